package executor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

type seenKey struct{}

// noting writes down that an attempt passed, in the context too.
func noting(j *journal, name string) executor.Middleware {
	return func(next executor.RawHandler) executor.RawHandler {
		return func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
			before, _ := ctx.Value(seenKey{}).(string)
			j.note("%s in: %s %s run %d attempt %d", name, t.Type, t.Name, t.Run, t.Attempt)
			result, err := next(context.WithValue(ctx, seenKey{}, before+name), t)
			j.note("%s out: %s %v", name, result, err)
			return result, err
		}
	}
}

// The registry's middleware is around a handler's own, in the order given, and
// around handlers that were registered before it.
func TestMiddlewareOrder(t *testing.T) {
	t.Parallel()
	var j journal
	reg := executor.NewRegistry()
	executor.Handle(reg, "x", func(ctx context.Context, _ executor.Task[struct{}]) (string, error) {
		s, _ := ctx.Value(seenKey{}).(string)
		return s, nil
	}, noting(&j, "c"))
	reg.Use(noting(&j, "a"), noting(&j, "b"))
	e := runOne(t.Context(), t, reg, attempt("x"), nil)
	require.Equal(t, ledger.TaskSucceeded{Result: json.RawMessage(`"abc"`)}, bare(t, attempt("x"), e))
	require.Equal(t, []string{
		"a in: x step run 2 attempt 3", "b in: x step run 2 attempt 3", "c in: x step run 2 attempt 3",
		`c out: "abc" <nil>`, `b out: "abc" <nil>`, `a out: "abc" <nil>`,
	}, j.all())
}

// Middleware sees a panic as an error, and may make something else of it.
func TestMiddlewareSeesPanics(t *testing.T) {
	t.Parallel()
	reg := executor.NewRegistry()
	reg.Use(func(next executor.RawHandler) executor.RawHandler {
		return func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
			_, err := next(ctx, t)
			if e, ok := errors.AsType[*executor.Error](err); ok && e.Code == ledger.CodePanic {
				return json.RawMessage(`"saved"`), nil
			}
			return nil, err
		}
	})
	reg.HandleRaw("x", panicking)
	e := runOne(t.Context(), t, reg, attempt("x"), nil)
	require.Equal(t, ledger.TaskSucceeded{Result: json.RawMessage(`"saved"`)}, bare(t, attempt("x"), e))
}

func TestNilMiddlewareIsRefused(t *testing.T) {
	t.Parallel()
	require.Panics(t, func() { executor.NewRegistry().Use(nil) })
	require.Panics(t, func() { executor.NewRegistry().HandleRaw("x", panicking, nil) })
}

// Each attempt is logged when it begins and when it ends, with the ids and what
// came of it.
func TestLogging(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		handler       executor.RawHandler
		outcome, code string
	}{
		"success":   {raw(`1`, nil), "succeeded", ""},
		"failure":   {raw("", executor.Fail("quota", ledger.AudienceUser, "no more")), "failed", "quota"},
		"pending":   {raw("", executor.ErrPending), "deferred", ""},
		"no result": {raw("{", nil), "failed", ledger.CodeInvalidResult},
		"panic":     {panicking, "failed", ledger.CodePanic},
		"timeout": {func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "failed", ledger.CodeTimeout},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reg := executor.NewRegistry()
				reg.Use(executor.Logging())
				reg.HandleRaw("x", tt.handler)
				var log bytes.Buffer
				a := attempt("x")
				runOne(t.Context(), t, reg, a, &log)
				lines := strings.Split(strings.TrimSpace(log.String()), "\n")
				require.Len(t, lines, 2)
				for i, msg := range []string{"attempt begins", "attempt ends"} {
					var line map[string]any
					require.NoError(t, json.Unmarshal([]byte(lines[i]), &line))
					require.Equal(t, msg, line["msg"])
					require.Equal(t, a.Collection.String(), line["collection_id"])
					require.Equal(t, a.Task.ID.String(), line["task_id"])
					require.EqualValues(t, 2, line["run"])
					require.EqualValues(t, 3, line["attempt"])
					if i == 1 {
						require.Equal(t, tt.outcome, line["outcome"])
						require.Contains(t, line, "duration")
						require.Equal(t, tt.code != "", line["code"] != nil)
						if tt.code != "" {
							require.Equal(t, tt.code, line["code"])
						}
					}
				}
			})
		})
	}
}

// traced runs an attempt and returns its span.
func traced(t *testing.T, a ledger.Attempt, h executor.RawHandler, opts ...sdktrace.TracerProviderOption) tracetest.SpanStubs {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(append(opts, sdktrace.WithSyncer(spans))...)
	reg := executor.NewRegistry()
	reg.Use(executor.Tracing(provider.Tracer("test")))
	reg.HandleRaw("x", h)
	runOne(t.Context(), t, reg, a, nil)
	return spans.GetSpans()
}

// All attempts of a run are in one trace, those of another run in another.
func TestTraceOfARun(t *testing.T) {
	t.Parallel()
	first := attempt("x")
	var inHandler trace.SpanContext
	spans := traced(t, first, func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
		inHandler = trace.SpanContextFromContext(ctx)
		return nil, nil
	})
	require.Len(t, spans, 1)
	require.Equal(t, "x", spans[0].Name)
	require.Equal(t, codes.Unset, spans[0].Status.Code)
	require.Equal(t, executor.TraceID(first.Collection, 2), spans[0].SpanContext.TraceID())
	require.Equal(t, inHandler, spans[0].SpanContext, "the handler's context carries the span")
	attributes := map[string]any{}
	for _, kv := range spans[0].Attributes {
		attributes[string(kv.Key)] = kv.Value.AsInterface()
	}
	require.Equal(t, map[string]any{
		"collection_id": first.Collection.String(), "task_id": first.Task.ID.String(), "run": int64(2), "attempt": int64(3), "type": "x", "outcome": "succeeded",
	}, attributes)

	second := attempt("x")
	second.Number, second.Task.ID = 1, ledger.TaskID(second.Collection, ledger.KindTask, 1)
	after := traced(t, second, raw("", nil))
	require.Equal(t, spans[0].SpanContext.TraceID(), after[0].SpanContext.TraceID())
	require.Equal(t, spans[0].Parent.SpanID(), after[0].Parent.SpanID())
	require.NotEqual(t, spans[0].SpanContext.SpanID(), after[0].SpanContext.SpanID())
	second.Run = 3
	require.NotEqual(t, spans[0].SpanContext.TraceID(), traced(t, second, raw("", nil))[0].SpanContext.TraceID())
}

func TestSpanOfAFailure(t *testing.T) {
	t.Parallel()
	for code, h := range map[string]executor.RawHandler{"quota": raw("", executor.Fail("quota", ledger.AudienceUser, "no more")), "panic": panicking} {
		spans := traced(t, attempt("x"), h)
		require.Len(t, spans, 1, "the span has ended")
		require.Equal(t, codes.Error, spans[0].Status.Code)
		var codeOf string
		for _, kv := range spans[0].Attributes {
			if kv.Key == "error.type" {
				codeOf = kv.Value.AsString()
			}
		}
		require.Equal(t, code, codeOf)
	}
}

// A ratio sampler keeps about its part of the runs.
func TestRunsAreSampledByTheirTrace(t *testing.T) {
	t.Parallel()
	keep := sdktrace.ParentBased(sdktrace.AlwaysSample(), sdktrace.WithRemoteParentSampled(sdktrace.TraceIDRatioBased(0.25)))
	kept := 0
	for range 200 {
		a := attempt("x")
		a.Collection = newID(0)
		kept += len(traced(t, a, raw("", nil), sdktrace.WithSampler(keep)))
	}
	require.InDelta(t, 50, kept, 40)
}
