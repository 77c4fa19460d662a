package executor

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// TaskInfo is what every handler gets beside its args.
type TaskInfo struct {
	// Previous is the result of the task before this one, as JSON; for a finally
	// task it is a [ledger.FinallyInput]. It is nil for the first task of a
	// chain, for an immutable one, and after a task without a result.
	Previous json.RawMessage

	Collection uuid.UUID
	Tenant     string
	// TaskID is the same in every attempt and every run: the idempotency key
	// for the systems that the handler calls. Finally tasks run once more after
	// every run, even side by side: theirs is the id together with the run.
	TaskID  uuid.UUID
	Type    string
	Name    string // of the task within its chain
	Run     int    // from 1; each retry adds one
	Attempt int    // from 1, counted over all runs; of a finally task in this one
	// Fence grows with every attempt of the collection's partition. A system
	// that remembers the highest one it saw can refuse a handler that was
	// replaced while it hung.
	Fence int64
	// Timeout is the task's, of one attempt; Deadline is when the handler's
	// context ends with it.
	Timeout  time.Duration
	Deadline time.Time
	// Logger carries the ids of collection, task, run and attempt.
	Logger *slog.Logger
	// Output shows progress and log lines outside while the handler runs.
	Output *Output
	// OutcomeToken makes the token with which the attempt's outcome may be
	// reported from outside after the handler has returned [ErrPending]. It
	// returns an error when this executor has no key for tokens. Nil counts as
	// that.
	OutcomeToken func() (string, error)
}

// DecodePrevious decodes the previous task's result into v, a pointer. The
// error may be returned as it is: it fails the task for good.
func (t TaskInfo) DecodePrevious(v any) error {
	if len(t.Previous) == 0 {
		return &Error{Code: CodeInvalidArgs, Message: "the task needs the result of the one before it, and there is none"}
	}
	if err := json.Unmarshal(t.Previous, v); err != nil {
		return &Error{Code: CodeInvalidArgs, Message: "the previous task's result does not fit: " + err.Error(), Err: err}
	}
	return nil
}

// A RawTask is one attempt of a task with its args as JSON.
type RawTask struct {
	TaskInfo

	Args json.RawMessage
}

// A Task is one attempt of a task with decoded args.
type Task[A any] struct {
	TaskInfo

	Args A
}

func encodeResult(result any) (json.RawMessage, error) {
	b, err := json.Marshal(result)
	if err != nil {
		return nil, &Error{Code: ledger.CodeInvalidResult, Message: "the result cannot be encoded: " + err.Error(), Err: err}
	}
	return b, nil
}
