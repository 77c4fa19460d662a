package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// A runner runs attempts: an accepted start, its handler and a context go in, a
// report comes out. It knows neither Kafka nor who owns the partition.
type runner struct {
	worker  string
	source  string
	logger  *slog.Logger
	metrics *metrics                                    // nil: none
	output  func(ledger.Attempt) *Output                // nil: handlers get a nil Output; closed when they have returned
	token   func(ledger.Attempt) func() (string, error) // nil: handlers get no OutcomeToken
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

// run runs a handler and hands the report on it to done, also when the handler
// panics or ends its goroutine. It is the body of the attempt's own goroutine.
func (r *runner) run(ctx context.Context, h RawHandler, a ledger.Attempt, done func(report)) {
	timeout := time.Duration(a.Task.TimeoutMS) * time.Millisecond
	began := time.Now()
	ctx, stop := context.WithDeadline(ctx, began.Add(timeout))
	defer stop()
	var result json.RawMessage
	var err error = errNoReturn()
	t := r.task(&a, began.Add(timeout))
	r.metrics.handlerBegan(a.Task.Type)
	// All that follows the handler is deferred, since a handler may panic or end
	// the goroutine.
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
		t.Output.Close()
		rep := r.reportOn(ctx, &a, result, err)
		r.metrics.handlerEnded(a.Task.Type, time.Since(began), rep.err)
		done(rep)
	}()
	result, err = h(ctx, t)
}

// task is what the handler of an attempt gets.
func (r *runner) task(a *ledger.Attempt, deadline time.Time) RawTask {
	t := RawTask{Args: a.Task.Args, TaskInfo: TaskInfo{
		Previous: a.Input, Collection: a.Collection, Tenant: a.Tenant, TaskID: a.Task.ID,
		Type: a.Task.Type, Name: a.Task.Name, Run: a.Run, Attempt: a.Number, Fence: a.ID,
		Timeout: time.Duration(a.Task.TimeoutMS) * time.Millisecond, Deadline: deadline, Logger: slog.New(attemptLog{r.logger.Handler(), a}),
	}}
	if r.output != nil {
		t.Output = r.output(*a)
	}
	if r.token != nil {
		t.OutcomeToken = r.token(*a)
	}
	return t
}

func attemptAttrs(a *ledger.Attempt) []slog.Attr {
	return []slog.Attr{
		slog.String("collection_id", a.Collection.String()), slog.String("task_id", a.Task.ID.String()),
		slog.String("type", a.Task.Type), slog.Int("run", a.Run), slog.Int("attempt", a.Number),
	}
}

// errNoReturn is what becomes of a handler that ends its goroutine instead of
// returning, as testing.T.FailNow does.
func errNoReturn() *Error {
	return &Error{Code: ledger.CodePanic, Message: "the handler ended its goroutine without returning", Retryable: true}
}

// panicError is what becomes of a handler that panicked with v. It must be
// called by the function that recovered: the stack is still the panic's.
func panicError(v any) *Error {
	return &Error{Code: ledger.CodePanic, Message: fmt.Sprintf("the handler panicked: %v", v), Detail: string(debug.Stack()), Retryable: true}
}

func (r *runner) reportOn(ctx context.Context, a *ledger.Attempt, result json.RawMessage, err error) report {
	if err == nil {
		err = checkResult(result)
	}
	if err == nil {
		return r.success(a, result)
	}
	if errors.Is(err, ErrPending) {
		return r.deferral(a)
	}
	failure := failureOf(ctx, err, time.Duration(a.Task.TimeoutMS)*time.Millisecond)
	if failure == nil {
		return report{result: resultAbandoned, abandoned: true}
	}
	return r.failure(a, failure)
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

func (r *runner) success(a *ledger.Attempt, result json.RawMessage) report {
	if len(result) == 0 {
		result = nil // no result, and not one that is no JSON
	}
	msg, err := encode(ledger.PartitionOf(a.Collection), r.source, ledger.TaskSucceeded{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID,
		AttemptID: a.ID, Worker: r.worker, Result: result,
	})
	if err != nil {
		return r.failure(a, &Error{Code: ledger.CodeInvalidResult, Message: "the result cannot be recorded: " + err.Error(), Err: err})
	}
	return report{msg: msg, succeeded: true, result: resultSucceeded}
}

// deferral says that the outcome comes from outside, however the handler's
// context stands: what it handed the token to may be at work already.
func (r *runner) deferral(a *ledger.Attempt) report {
	msg, err := encode(ledger.PartitionOf(a.Collection), r.source, ledger.TaskDeferred{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID,
		AttemptID: a.ID, Worker: r.worker,
	})
	return report{msg: msg, deferred: true, result: resultDeferred, broken: err}
}

func (r *runner) failure(a *ledger.Attempt, e *Error) report {
	taskErr, afterMS := e.taskError()
	msg, err := encode(ledger.PartitionOf(a.Collection), r.source, ledger.TaskFailed{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID,
		AttemptID: a.ID, Worker: r.worker, Error: taskErr, RetryAfterMS: afterMS,
	})
	result := resultFailed
	if taskErr.Code == ledger.CodeCanceled {
		result = resultCanceled
	}
	return report{msg: msg, result: result, err: &taskErr, broken: err}
}
