package executor

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Tracing makes a span of every attempt, named for the task's type. All attempts
// of one run are in one trace, whichever processes run them: its id is
// [TraceID]. The span ends with status Error and the failure's code when a
// failure is recorded.
//
// The parent of the spans is a sampled one that nobody exports. Who wants to
// keep a part of the traces gives the SDK's ParentBased sampler
// WithRemoteParentSampled(TraceIDRatioBased(…)), which then decides for all
// attempts of a run alike.
func Tracing(tracer trace.Tracer) Middleware {
	return func(next RawHandler) RawHandler {
		return func(ctx context.Context, t RawTask) (result json.RawMessage, err error) {
			ctx, span := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, runSpan(t.Collection, t.Run)), t.Type,
				trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
					attribute.String("collection_id", t.Collection.String()), attribute.String("task_id", t.TaskID.String()),
					attribute.Int("run", t.Run), attribute.Int("attempt", t.Attempt), attribute.String("type", t.Type),
				))
			err = errNoReturn()
			defer func() {
				endSpan(ctx, span, &t, result, err)
			}()
			return next(ctx, t)
		}
	}
}

func endSpan(ctx context.Context, span trace.Span, t *RawTask, result json.RawMessage, err error) {
	outcome, failure := outcomeOf(ctx, t, result, err)
	span.SetAttributes(attribute.String("outcome", outcome))
	if failure != nil {
		span.SetAttributes(attribute.String("error.type", failure.code()))
		span.SetStatus(codes.Error, failure.Error())
	}
	span.End()
}

// TraceID returns the id of the trace that the attempts of a run are in: the
// first 16 bytes of SHA-256 over the collection id and the run as uint64
// big-endian. A collection id itself would not do: samplers that keep a part of
// the traces take an id's last bytes for random, and a UUID's are not.
func TraceID(collection uuid.UUID, run int) trace.TraceID {
	return runSpan(collection, run).TraceID()
}

// runSpan is the parent of the spans of a run.
func runSpan(collection uuid.UUID, run int) trace.SpanContext {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(collection[:], uint64(run))) //nolint:gosec // runs are positive
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(h[:16]), SpanID: trace.SpanID(h[16:24]), TraceFlags: trace.FlagsSampled, Remote: true,
	})
}
