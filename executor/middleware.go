package executor

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// A Middleware puts something around a handler: it sees the task and the
// outcome, may change both, and may hand on another context. What a handler
// panics with reaches it as an *[Error] with code panic. Once the context has
// ended, an error that is its consequence is recorded for what ended it: as a
// timeout, as canceled, or, on shutdown, not at all.
//
// Some things need none, because every attempt has them: a panic is recorded as
// a failure with its stack, the task's timeout ends the context, and
// keten_task_attempts_total, keten_task_failures_total, keten_task_running and
// keten_task_duration_seconds count and measure.
type Middleware func(RawHandler) RawHandler

func checkMiddleware(middleware []Middleware) {
	for _, m := range middleware {
		if m == nil {
			panic("executor: a middleware is nil")
		}
	}
}

// wrap puts middleware around a handler, the first outermost.
func wrap(h RawHandler, middleware []Middleware) RawHandler {
	if len(middleware) == 0 {
		return h
	}
	h = recovering(h)
	for _, m := range slices.Backward(middleware) {
		h = m(h)
	}
	return h
}

// recovering turns a panic into an error, so that middleware sees it.
func recovering(h RawHandler) RawHandler {
	return func(ctx context.Context, t RawTask) (result json.RawMessage, err error) {
		defer func() {
			if v := recover(); v != nil {
				err = panicError(v)
			}
		}()
		return h(ctx, t)
	}
}

// Logging logs the start and the end of every attempt with the task's logger,
// which carries the ids of collection, task, run and attempt: how long the
// handler ran, what came of it, and the code of a failure.
func Logging() Middleware {
	return func(next RawHandler) RawHandler {
		return func(ctx context.Context, t RawTask) (result json.RawMessage, err error) {
			began := time.Now()
			t.Logger.InfoContext(ctx, "attempt begins", slog.String("name", t.Name))
			err = errNoReturn()
			defer func() {
				outcome, failure := outcomeOf(ctx, &t, result, err)
				attrs := []any{
					slog.String("name", t.Name), slog.String("outcome", outcome), slog.Duration("duration", time.Since(began)),
				}
				if failure != nil {
					attrs = append(attrs, slog.String("code", failure.code()), slog.String("message", clip(failure.Error(), ledger.MaxMessageBytes)))
				}
				t.Logger.InfoContext(ctx, "attempt ends", attrs...)
			}()
			return next(ctx, t)
		}
	}
}

// outcomeOf returns what will be recorded of what a handler returned, in the
// words of the label result of keten_task_attempts_total, and the failure if it
// is one.
func outcomeOf(ctx context.Context, t *RawTask, result json.RawMessage, err error) (string, *Error) {
	if err == nil {
		err = checkResult(result)
	}
	if err == nil {
		return resultSucceeded, nil
	}
	if errors.Is(err, ErrPending) {
		return resultDeferred, nil
	}
	failure := failureOf(ctx, err, t.Timeout)
	switch {
	case failure == nil:
		return resultAbandoned, nil
	case failure.code() == ledger.CodeCanceled:
		return resultCanceled, failure
	}
	return resultFailed, failure
}
