package executortest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// A Definition is a task of a chain, as a request to the API would define it.
// Its methods return a changed copy. What is wrong with it is said by [Kit.Run].
type Definition struct {
	task ledger.Task
	kind ledger.Kind
	err  error
}

// Task defines a task of a type with args, which are encoded to JSON; nil means
// {}. All else has the ledger's defaults: one attempt, a back-off from 1 s to
// 5 min, a timeout of 1 h, the previous task's result handed on.
func Task(name, taskType string, args any) Definition {
	return define(ledger.KindTask, name, taskType, args)
}

// Finally defines a task that runs after the run has ended, whatever its outcome.
// Its [executor.TaskInfo.Previous] is a [ledger.FinallyInput].
func Finally(name, taskType string, args any) Definition {
	return define(ledger.KindFinally, name, taskType, args)
}

func define(kind ledger.Kind, name, taskType string, args any) Definition {
	d := Definition{kind: kind, task: ledger.Task{
		Name: name, Type: taskType, Queue: ledger.DefaultQueue, Args: json.RawMessage(`{}`),
		OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts,
		Backoff: ledger.Backoff{
			InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS,
		},
		TimeoutMS: ledger.DefaultTimeoutMS,
	}}
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			d.err = fmt.Errorf("the args of task %q cannot be encoded: %w", name, err)
		}
		d.task.Args = b
	}
	return d
}

// MaxAttempts sets how many failures in one run are one too many, 1 to 1,000.
func (d Definition) MaxAttempts(n int) Definition {
	d.task.MaxAttempts = n
	return d
}

// Backoff sets the wait before automatic attempts: initial, then multiplier times
// as long after each failure, at most longest. It is skipped, and shown by
// [Attempt.Waited].
func (d Definition) Backoff(initial time.Duration, multiplier int, longest time.Duration) Definition {
	d.task.Backoff = ledger.Backoff{InitialMS: initial.Milliseconds(), Multiplier: int64(multiplier), MaxMS: longest.Milliseconds()}
	return d
}

// Timeout sets how long one attempt may take, 1 ms to 24 h.
func (d Definition) Timeout(limit time.Duration) Definition {
	d.task.TimeoutMS = limit.Milliseconds()
	return d
}

// Immutable keeps the previous task's result from the handler.
func (d Definition) Immutable() Definition {
	d.task.Immutable = true
	return d
}

// FailOnInterrupt makes the task one that fails when its executor is lost,
// instead of being started again.
func (d Definition) FailOnInterrupt() Definition {
	d.task.OnInterrupt = ledger.OnInterruptFail
	return d
}

// Queue sets the queue of the executors that run the task. A Kit serves all.
func (d Definition) Queue(name string) Definition {
	d.task.Queue = name
	return d
}
