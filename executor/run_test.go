package executor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// attempt is one of a task of a type, as the fold gives it.
func attempt(taskType string) ledger.Attempt {
	id := uuid.MustParse("018c0000-0000-7000-8000-00000000000a")
	def := task(taskType)
	def.ID, def.Name = ledger.TaskID(id, ledger.KindTask, 0), "step"
	return ledger.Attempt{
		ID: 7, Collection: id, Tenant: "default", Name: "test", Run: 2, Number: 3, Worker: "w", Task: def, TaskKind: ledger.KindTask,
	}
}

// runOne runs one attempt without Kafka and returns the event that reports it,
// nil for none. log gets what was logged.
func runOne(ctx context.Context, t *testing.T, reg *executor.Registry, a ledger.Attempt, log *bytes.Buffer) ledger.Event {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if log != nil {
		logger = slog.New(slog.NewJSONHandler(log, nil))
	}
	r, err := executor.NewRunner(executor.RunnerConfig{Registry: reg, Worker: "w", Source: ledger.Source(a.Collection, "executor"), Logger: logger})
	require.NoError(t, err)
	reported := make(chan ledger.Event, 1)
	go r.Run(ctx, a, func(msg ledger.Message, ok bool) {
		if !ok {
			reported <- nil
			return
		}
		env, err := ledger.Decode(ledger.Record{Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
		if err != nil {
			panic(err)
		}
		reported <- env.Event
	})
	return <-reported
}

func raw(result string, err error) executor.RawHandler {
	return func(context.Context, executor.RawTask) (json.RawMessage, error) { return json.RawMessage(result), err }
}

// What a handler returns, and how its context stands then, decides what is
// recorded.
func TestWhatIsReported(t *testing.T) {
	t.Parallel()
	failed := func(code string, retryable bool) ledger.TaskError {
		return ledger.TaskError{Code: code, Audience: ledger.AudienceOperator, Retryable: retryable}
	}
	ends := func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tests := map[string]struct {
		handler executor.RawHandler
		cause   error // ends the context before the handler begins
		want    ledger.Event
	}{
		"a result":        {raw(`{"n":1}`, nil), nil, ledger.TaskSucceeded{Result: json.RawMessage(`{"n":1}`)}},
		"no result":       {raw("", nil), nil, ledger.TaskSucceeded{}},
		"a broken result": {raw(`{"n":`, nil), nil, ledger.TaskFailed{Error: failed(ledger.CodeInvalidResult, false)}},
		"a plain error":   {raw("", errors.New("no")), nil, ledger.TaskFailed{Error: failed(executor.CodeFailed, true)}},
		"an own code":     {raw("", executor.Fail("quota", ledger.AudienceUser, "no")), nil, ledger.TaskFailed{Error: ledger.TaskError{Code: "quota", Audience: ledger.AudienceUser}}},
		"a wait":          {raw("", executor.RetryAfter(3*time.Second, errors.New("no"))), nil, ledger.TaskFailed{Error: failed(executor.CodeFailed, true), RetryAfterMS: 3000}},
		"pending":         {raw("", executor.ErrPending), nil, ledger.TaskDeferred{}},
		"a panic":         {func(context.Context, executor.RawTask) (json.RawMessage, error) { panic("oh") }, nil, ledger.TaskFailed{Error: failed(ledger.CodePanic, true)}},
		"no return": {func(context.Context, executor.RawTask) (json.RawMessage, error) { runtime.Goexit(); return nil, nil }, nil, //nolint:nlreturn // never comes back
			ledger.TaskFailed{Error: failed(ledger.CodePanic, true)}},
		"a timeout":         {ends, nil, ledger.TaskFailed{Error: failed(ledger.CodeTimeout, true)}},
		"a cancel":          {ends, executor.ErrCanceled, ledger.TaskFailed{Error: ledger.TaskError{Code: ledger.CodeCanceled, Audience: ledger.AudienceUser}}},
		"a shutdown":        {ends, executor.ErrShutdown, nil},
		"done all the same": {raw(`{"n":1}`, nil), executor.ErrShutdown, ledger.TaskSucceeded{Result: json.RawMessage(`{"n":1}`)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cause != nil {
					cancel(tt.cause)
				}
				reg := executor.NewRegistry()
				reg.HandleRaw("x", tt.handler)
				a := attempt("x")
				require.Equal(t, tt.want, bare(t, a, runOne(ctx, t, reg, a, nil)))
			})
		})
	}
}

// bare checks that an event is about an attempt and returns it without its ids
// and texts.
func bare(t *testing.T, a ledger.Attempt, e ledger.Event) ledger.Event {
	t.Helper()
	about := ledger.TaskDeferred{CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker}
	switch e := e.(type) {
	case ledger.TaskSucceeded:
		is := ledger.TaskDeferred{CollectionID: e.CollectionID, Tenant: e.Tenant, Run: e.Run, TaskID: e.TaskID, AttemptID: e.AttemptID, Worker: e.Worker}
		require.Equal(t, about, is)
		return ledger.TaskSucceeded{Result: e.Result}
	case ledger.TaskFailed:
		is := ledger.TaskDeferred{CollectionID: e.CollectionID, Tenant: e.Tenant, Run: e.Run, TaskID: e.TaskID, AttemptID: e.AttemptID, Worker: e.Worker}
		require.Equal(t, about, is)
		require.NotEmpty(t, e.Error.Message)
		e.Error.Message, e.Error.Detail = "", ""
		return ledger.TaskFailed{Error: e.Error, RetryAfterMS: e.RetryAfterMS}
	case ledger.TaskDeferred:
		require.Equal(t, about, e)
		return ledger.TaskDeferred{}
	default:
		return e
	}
}

// A panic is recorded with the place that panicked, also through middleware.
func TestPanicKeepsItsStack(t *testing.T) {
	t.Parallel()
	pass := func(next executor.RawHandler) executor.RawHandler { return next }
	for _, middleware := range [][]executor.Middleware{nil, {pass}} {
		reg := executor.NewRegistry()
		reg.HandleRaw("x", panicking, middleware...)
		e, ok := runOne(t.Context(), t, reg, attempt("x"), nil).(ledger.TaskFailed)
		require.True(t, ok)
		require.Equal(t, "the handler panicked: oh", e.Error.Message)
		require.Contains(t, e.Error.Detail, "executor_test.panicking")
	}
}

func panicking(context.Context, executor.RawTask) (json.RawMessage, error) { panic("oh") }

// A task whose type has no handler fails for good, with a code for operators.
func TestTypeWithoutHandler(t *testing.T) {
	t.Parallel()
	e, ok := runOne(t.Context(), t, executor.NewRegistry(), attempt("nobody"), nil).(ledger.TaskFailed)
	require.True(t, ok)
	require.Equal(t, ledger.CodeConfig, e.Error.Code)
	require.False(t, e.Error.Retryable)
	require.Contains(t, e.Error.Message, "nobody")
}

// No failure stays none, whatever it is marked as.
func TestMarkingNoFailure(t *testing.T) {
	t.Parallel()
	require.NoError(t, executor.Permanent(nil))
	require.NoError(t, executor.RetryAfter(time.Second, nil))
}
