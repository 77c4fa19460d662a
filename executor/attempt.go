package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// An attempt is held from the start of its handler until its outcome was read
// back. Held attempts are never given up as lost, also while the partition is
// with another process. All fields belong to the owner's goroutine, except that
// the handler's goroutine reads def, set before it starts.
type attempt struct {
	def     ledger.Attempt
	class   string // of its slot
	cancel  context.CancelCauseFunc
	running bool // the handler has not returned
	closed  bool // someone else ended the attempt in the log
	// awaitedBy is the run whose next task may not start before the handler of
	// this attempt has returned; the zero value for none.
	awaitedBy ledger.RunID
}

func (a *attempt) runID() ledger.RunID {
	return ledger.RunID{Collection: a.def.Collection, Run: a.def.Run}
}

func (a *attempt) attrs() []any {
	return []any{
		slog.String("collection_id", a.def.Collection.String()), slog.String("task_id", a.def.Task.ID.String()),
		slog.String("type", a.def.Task.Type), slog.Int("run", a.def.Run), slog.Int("attempt", a.def.Number),
	}
}

// A report is what became of a handler.
type report struct {
	msg       ledger.Message
	succeeded bool
	result    string // the metric's label
	err       *ledger.TaskError
	deferred  bool  // the outcome comes from outside
	abandoned bool  // nothing is to be appended
	broken    error // the outcome could not be encoded, which stops the partition
}

// errNoReturn is what becomes of a handler that ends its goroutine instead of
// returning, as testing.T.FailNow does.
var errNoReturn = &Error{Code: ledger.CodePanic, Message: "the handler ended its goroutine without returning", Retryable: true}

// runHandler runs the handler of an attempt, makes the record of its outcome
// and hands it to done. It is the body of the attempt's own goroutine.
func (x *Executor) runHandler(ctx context.Context, h RawHandler, a *attempt, done func(report)) {
	timeout := time.Duration(a.def.Task.TimeoutMS) * time.Millisecond
	began := time.Now()
	ctx, stop := context.WithDeadline(ctx, began.Add(timeout))
	defer stop()
	var result json.RawMessage
	var err error = errNoReturn
	// All that follows the handler is deferred, since a handler may panic or end
	// the goroutine.
	defer func() {
		if v := recover(); v != nil {
			err = &Error{Code: ledger.CodePanic, Message: fmt.Sprintf("the handler panicked: %v", v), Detail: string(debug.Stack()), Retryable: true}
		}
		x.metrics.duration.WithLabelValues(a.def.Task.Type).Observe(time.Since(began).Seconds())
		done(x.reportOn(ctx, a, result, err, timeout))
	}()
	result, err = h(ctx, RawTask{Args: a.def.Task.Args, TaskInfo: TaskInfo{
		Previous: a.def.Input, Collection: a.def.Collection, Tenant: a.def.Tenant, TaskID: a.def.Task.ID,
		Type: a.def.Task.Type, Name: a.def.Task.Name, Run: a.def.Run, Attempt: a.def.Number, Fence: a.def.ID,
		Deadline: began.Add(timeout), Logger: x.logger.With(a.attrs()...),
	}})
}

func (x *Executor) reportOn(ctx context.Context, a *attempt, result json.RawMessage, err error, timeout time.Duration) report {
	if err == nil {
		err = checkResult(result)
	}
	if err == nil {
		return x.success(a, result)
	}
	if errors.Is(err, ErrPending) {
		return x.deferral(a)
	}
	failure := failureOf(ctx, err, timeout)
	if failure == nil {
		return report{result: resultAbandoned, abandoned: true}
	}
	return x.failure(a, failure)
}

func checkResult(result json.RawMessage) error {
	if len(result) == 0 {
		return nil
	}
	if err := ledger.CheckPayload(result); err != nil {
		return &Error{Code: ledger.CodeInvalidResult, Message: "the result cannot be recorded: " + err.Error(), Err: err}
	}
	return nil
}

// failureOf decides what a handler's error means. Once the context has ended,
// an error is its consequence, unless the handler says otherwise by an *Error
// of another cause. It returns nil when nothing is to be recorded.
func failureOf(ctx context.Context, err error, timeout time.Duration) *Error {
	failure := asError(err)
	cause := context.Cause(ctx)
	var explicit *Error
	consequence := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cause)
	if cause == nil || errors.As(err, &explicit) && !consequence {
		return failure
	}
	if failure.Detail == "" {
		failure.Detail = err.Error()
	}
	failure.RetryAfter = 0
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		failure.Code, failure.Retryable = ledger.CodeTimeout, true
		failure.Message = "the attempt did not end within " + timeout.String()
		return failure
	case errors.Is(cause, ErrShutdown), errors.Is(cause, context.Canceled):
		return nil
	}
	failure.Code, failure.Message, failure.Retryable = ledger.CodeCanceled, cause.Error(), false
	if errors.Is(cause, ErrCanceled) {
		failure.Audience = ledger.AudienceUser
	}
	return failure
}

func (x *Executor) success(a *attempt, result json.RawMessage) report {
	if len(result) == 0 {
		result = nil // no result, and not one that is no JSON
	}
	msg, err := x.encode(ledger.PartitionOf(a.def.Collection), ledger.TaskSucceeded{
		CollectionID: a.def.Collection, Tenant: a.def.Tenant, Run: a.def.Run, TaskID: a.def.Task.ID,
		AttemptID: a.def.ID, Worker: x.worker, Result: result,
	})
	if err != nil {
		return x.failure(a, &Error{Code: ledger.CodeInvalidResult, Message: "the result cannot be recorded: " + err.Error(), Err: err})
	}
	return report{msg: msg, succeeded: true, result: resultSucceeded}
}

// deferral says that the outcome comes from outside, however the handler's
// context stands: what it handed the token to may be at work already.
func (x *Executor) deferral(a *attempt) report {
	msg, err := x.encode(ledger.PartitionOf(a.def.Collection), ledger.TaskDeferred{
		CollectionID: a.def.Collection, Tenant: a.def.Tenant, Run: a.def.Run, TaskID: a.def.Task.ID,
		AttemptID: a.def.ID, Worker: x.worker,
	})
	return report{msg: msg, deferred: true, result: resultDeferred, broken: err}
}

func (x *Executor) failure(a *attempt, e *Error) report {
	taskErr, afterMS := e.taskError()
	msg, err := x.encode(ledger.PartitionOf(a.def.Collection), ledger.TaskFailed{
		CollectionID: a.def.Collection, Tenant: a.def.Tenant, Run: a.def.Run, TaskID: a.def.Task.ID,
		AttemptID: a.def.ID, Worker: x.worker, Error: taskErr, RetryAfterMS: afterMS,
	})
	result := resultFailed
	if taskErr.Code == ledger.CodeCanceled {
		result = resultCanceled
	}
	return report{msg: msg, result: result, err: &taskErr, broken: err}
}

// encode makes the record of an event with an id of its own.
func (x *Executor) encode(partition int32, e ledger.Event) (ledger.Message, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return ledger.Message{}, fmt.Errorf("make an event id: %w", err)
	}
	return ledger.Encode(partition, ledger.Meta{EventID: id, Source: x.source, Time: time.Now()}, e)
}
