package executortest

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// A collection is what its runs have in common.
type collection struct {
	id             uuid.UUID
	tasks, finally []ledger.Task
	results        map[uuid.UUID]result // of tasks that have succeeded, in whatever run
	attempts       map[uuid.UUID]int    // accepted starts of tasks, in all runs
}

type result struct{ value json.RawMessage }

func (c *collection) add(d Definition) {
	list := &c.tasks
	if d.kind == ledger.KindFinally {
		list = &c.finally
	}
	d.task.Index = len(*list)
	d.task.ID = ledger.TaskID(c.id, d.kind, d.task.Index)
	*list = append(*list, d.task)
}

// find returns the definition of a task by its name.
func (c *collection) find(name string) (ledger.Task, bool) {
	for _, list := range [][]ledger.Task{c.tasks, c.finally} {
		for i := range list {
			if list[i].Name == name {
				return list[i], true
			}
		}
	}
	return ledger.Task{}, false
}

func (c *collection) byID(id uuid.UUID) ledger.Task {
	for _, list := range [][]ledger.Task{c.tasks, c.finally} {
		for i := range list {
			if list[i].ID == id {
				return list[i]
			}
		}
	}
	return ledger.Task{}
}

// A Run is one pass of a chain: the first, or a retry of what did not succeed.
type Run struct {
	kit        *Kit
	collection *collection
	number     int
	status     ledger.Status
	failedTask uuid.UUID
	failure    ledger.TaskError
	attempts   []*Attempt
	byID       map[int64]*Attempt
}

func (k *Kit) newRun(c *collection, number int) *Run {
	r := &Run{kit: k, collection: c, number: number, status: ledger.StatusPending, byID: make(map[int64]*Attempt)}
	k.runs[r.id()] = r
	return r
}

func (r *Run) id() ledger.RunID { return ledger.RunID{Collection: r.collection.id, Run: r.number} }

// note keeps the state of an attempt.
func (r *Run) note(change *ledger.AttemptChange) {
	a := r.byID[change.ID]
	if a == nil {
		def := r.collection.byID(change.TaskID)
		a = &Attempt{id: change.ID, Task: def.Name, Type: def.Type, Number: change.Number}
		r.byID[change.ID] = a
		r.attempts = append(r.attempts, a)
		r.collection.attempts[change.TaskID] = change.Number
	}
	a.Status, a.Result, a.Error = change.Status, change.Result, change.Error
	if change.Status == ledger.StatusSucceeded {
		r.collection.results[change.TaskID] = result{change.Result}
	}
}

// Number returns which run it is: 1 for the first, one more with each retry.
func (r *Run) Number() int { return r.number }

// Collection returns the id of the run's collection.
func (r *Run) Collection() uuid.UUID { return r.collection.id }

// Status returns the state of the run: running while a task waits for its outcome
// from outside, else succeeded, failed or canceled.
func (r *Run) Status() ledger.Status { return r.status }

// Succeeded ends the test unless the run has succeeded.
func (r *Run) Succeeded() *Run {
	r.kit.tb.Helper()
	return r.mustBe(ledger.StatusSucceeded)
}

// Canceled ends the test unless the run was canceled.
func (r *Run) Canceled() *Run {
	r.kit.tb.Helper()
	return r.mustBe(ledger.StatusCanceled)
}

func (r *Run) mustBe(want ledger.Status) *Run {
	r.kit.tb.Helper()
	if r.status != want {
		r.fatalf("run %d should be %s, and %s", r.number, want, r.situation())
	}
	return r
}

// Failed ends the test unless the run has failed at the task of that name.
func (r *Run) Failed(task string) *Run {
	r.kit.tb.Helper()
	r.mustKnow(task)
	r.mustBe(ledger.StatusFailed)
	if at := r.collection.byID(r.failedTask).Name; at != task {
		r.fatalf("run %d should have failed at task %q, and %s", r.number, task, r.situation())
	}
	return r
}

// Waits ends the test unless the task of that name waits for its outcome from
// outside.
func (r *Run) Waits(task string) *Run {
	r.kit.tb.Helper()
	r.deferred(task)
	return r
}

// Failure returns why the run failed. A run that has not failed ends the test.
func (r *Run) Failure() ledger.TaskError {
	r.kit.tb.Helper()
	r.mustBe(ledger.StatusFailed)
	return r.failure
}

// Result decodes the result of a task into v, a pointer. It may be from an
// earlier run. A task without one ends the test.
func (r *Run) Result(task string, v any) {
	r.kit.tb.Helper()
	def := r.mustKnow(task)
	res, ok := r.collection.results[def.ID]
	switch {
	case !ok:
		r.fatalf("task %q has not succeeded and has no result", task)
	case len(res.value) == 0:
		r.fatalf("task %q has succeeded without a result", task)
	}
	if err := json.Unmarshal(res.value, v); err != nil {
		r.fatalf("the result of task %q, %s, does not fit a %T: %v", task, res.value, v, err)
	}
}

// Attempts returns the attempts of a task in this run, oldest first.
func (r *Run) Attempts(task string) []*Attempt {
	r.kit.tb.Helper()
	r.mustKnow(task)
	var list []*Attempt
	for _, a := range r.attempts {
		if a.Task == task {
			list = append(list, a)
		}
	}
	return list
}

// TaskID returns the id of a task, which its handler gets in all attempts and
// all runs.
func (r *Run) TaskID(task string) uuid.UUID {
	r.kit.tb.Helper()
	return r.mustKnow(task).ID
}

func (r *Run) mustKnow(task string) ledger.Task {
	r.kit.tb.Helper()
	def, ok := r.collection.find(task)
	if !ok {
		r.fatalf("there is no task %q in the chain", task)
	}
	return def
}

// situation says in words how a run stands.
func (r *Run) situation() string {
	if r.status == ledger.StatusFailed {
		return fmt.Sprintf("failed at task %q: %s: %s", r.collection.byID(r.failedTask).Name, r.failure.Code, r.failure.Message)
	}
	if def, ok := r.kit.fold.OpenAttempt(r.id()); ok && def.Deferred {
		return fmt.Sprintf("its task %q waits for an outcome from outside: say which with Complete, Reject or Expire", def.Task.Name)
	}
	return "is " + string(r.status)
}

// fatalf ends the test with what all attempts came to.
func (r *Run) fatalf(format string, args ...any) {
	r.kit.tb.Helper()
	r.kit.tb.Fatalf("executortest: %s\n\n%s", fmt.Sprintf(format, args...), r)
}

// maxShown bounds what is shown of a result.
const maxShown = 200

// String shows all attempts of the run and what came of them, for messages.
func (r *Run) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', 0)
	tried := make(map[string]bool)
	for _, a := range r.attempts {
		tried[a.Task] = true
		fmt.Fprintf(w, "  %s\t%s\tattempt %d%s\t%s\t%s\n", a.Task, a.Type, a.Number, waited(a.Waited), a.Status, a.summary())
	}
	for _, list := range [][]ledger.Task{r.collection.tasks, r.collection.finally} {
		for i := range list {
			if !tried[list[i].Name] {
				fmt.Fprintf(w, "  %s\t%s\tnot in this run\n", list[i].Name, list[i].Type)
			}
		}
	}
	_ = w.Flush() // to memory
	return s.String()
}

func waited(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return " after " + d.String()
}

func (a *Attempt) summary() string {
	if a.Error == nil {
		return shortened(string(a.Result))
	}
	kind := "for good"
	if a.Error.Retryable {
		kind = "retryable"
	}
	s := fmt.Sprintf("%s: %s (%s, for the %s)", a.Error.Code, shortened(a.Error.Message), kind, a.Error.Audience)
	if a.Error.Code == ledger.CodePanic && a.Error.Detail != "" {
		s += "\n" + a.Error.Detail
	}
	return s
}

func shortened(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}
