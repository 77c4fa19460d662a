package executortest

import (
	"encoding/json"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// Retry runs again what did not succeed, with the same ids and the results that
// are there, as POST /v1/collections/{id}/retry does, and returns the new run. A
// run that has not failed and was not canceled ends the test.
func (r *Run) Retry() *Run {
	r.kit.tb.Helper()
	return r.retry(nil)
}

// RetryWith is [Run.Retry] with other args for one task, which must not have
// succeeded.
func (r *Run) RetryWith(task string, args any) *Run {
	r.kit.tb.Helper()
	def := r.mustKnow(task)
	if _, done := r.collection.results[def.ID]; done {
		r.fatalf("task %q has succeeded: a retry does not run it", task)
	}
	b, err := json.Marshal(args)
	if err != nil {
		r.fatalf("the args of task %q cannot be encoded: %v", task, err)
	}
	def.Args = b
	return r.retry(&def)
}

func (r *Run) retry(amended *ledger.Task) *Run {
	k, c := r.kit, r.collection
	k.tb.Helper()
	k.mustBeIdle("Retry")
	if r.status != ledger.StatusFailed && r.status != ledger.StatusCanceled {
		r.fatalf("run %d cannot be retried: it has not failed and was not canceled, but %s", r.number, r.situation())
	}
	if later := k.runs[ledger.RunID{Collection: c.id, Run: r.number + 1}]; later != nil {
		r.fatalf("run %d was retried before", r.number)
	}
	event := ledger.RetryRequested{
		CollectionID: c.id, Tenant: tenant, Run: r.number + 1, AsOf: k.fold.Position(), Name: collectionName, RequestHash: requestHash,
		TaskCount: len(c.tasks), Finally: c.finally,
	}
	for i := range c.tasks {
		if res, done := c.results[c.tasks[i].ID]; done {
			event.Input = res.value
			continue
		}
		if amended != nil && amended.ID == c.tasks[i].ID {
			c.tasks[i].Args = amended.Args
			event.Amended = append(event.Amended, amended.ID)
		}
		t := c.tasks[i]
		t.Attempts = c.attempts[t.ID]
		event.Tasks = append(event.Tasks, t)
	}
	next := k.newRun(c, r.number+1)
	k.append(event)
	k.drive()
	return next
}

// Cancel cancels the run, as POST /v1/collections/{id}/cancel does: nothing more
// of it starts, and the handler that runs within [Kit.During] gets
// [executor.ErrCanceled]. A run that has ended ends the test.
func (r *Run) Cancel() *Run {
	k := r.kit
	k.tb.Helper()
	if r.status != ledger.StatusPending && r.status != ledger.StatusRunning {
		r.fatalf("run %d cannot be canceled: it %s", r.number, r.situation())
	}
	k.append(ledger.CancelRequested{CollectionID: r.collection.id, Tenant: tenant, Run: r.number, RequestHash: requestHash})
	switch {
	case k.current == nil:
		k.drive()
	case k.current.run == r:
		k.current.cancel(executor.ErrCanceled)
	}
	return r
}

// Complete gives the outcome from outside of a task whose handler has returned
// [executor.ErrPending]: it succeeds with a result, which is encoded to JSON; nil
// means none. The run then goes on.
func (r *Run) Complete(task string, result any) *Run {
	r.kit.tb.Helper()
	a := r.deferred(task)
	var value json.RawMessage
	if result != nil {
		b, err := json.Marshal(result)
		if err != nil {
			r.fatalf("the result for task %q cannot be encoded: %v", task, err)
		}
		value = b
	}
	r.kit.append(ledger.TaskSucceeded{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker, Result: value,
	})
	r.kit.drive()
	return r
}

// Reject gives a failure as the outcome from outside of a task whose handler has
// returned [executor.ErrPending]. An empty audience means operator, an empty code
// [executor.CodeFailed].
func (r *Run) Reject(task string, failure ledger.TaskError) *Run {
	r.kit.tb.Helper()
	a := r.deferred(task)
	if failure.Code == "" {
		failure.Code = executor.CodeFailed
	}
	if failure.Audience == "" {
		failure.Audience = ledger.AudienceOperator
	}
	r.kit.append(ledger.TaskFailed{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker, Error: failure,
	})
	r.kit.drive()
	return r
}

// Expire lets the timeout pass of a task that waits for its outcome from outside.
func (r *Run) Expire(task string) *Run {
	k := r.kit
	k.tb.Helper()
	a := r.deferred(task)
	for _, action := range k.actions() {
		if action.RunID() == r.id() && action.AttemptID == a.ID {
			k.do(&action, k.dueMS(&action))
			k.drive()
			return r
		}
	}
	r.fatalf("the ledger does not end task %q, which waits for its outcome", task)
	return r
}

// deferred returns the attempt of a task that waits for its outcome from outside.
func (r *Run) deferred(task string) ledger.Attempt {
	r.kit.tb.Helper()
	r.kit.mustBeIdle("an outcome from outside")
	r.mustKnow(task)
	a, ok := r.kit.fold.OpenAttempt(r.id())
	if !ok || !a.Deferred || a.Task.Name != task {
		r.fatalf("task %q should wait for an outcome from outside, and run %d %s", task, r.number, r.situation())
	}
	return a
}
