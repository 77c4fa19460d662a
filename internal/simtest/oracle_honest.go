package simtest

import (
	"encoding/json"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// What is checked here rests on authors that keep their promises: that as_of is
// the position of the row they decided on, that the suffix is what did not
// succeed, that a worker releases what it really holds.

func (o *oracle) honestCreate(e ledger.CollectionCreated, offset int64) {
	if !o.w.honest {
		return
	}
	if l := o.lives[e.CollectionID]; l != nil {
		o.w.violated("G7", "collection %s is created a second time at offset %d", o.w.short(e.CollectionID), offset)
	}
}

func (o *oracle) honestRetry(e ledger.RetryRequested, offset int64) {
	if !o.w.honest {
		return
	}
	bad := func(format string, args ...any) {
		o.w.violated("G6", "the retry of %s at offset %d: "+format, append([]any{o.w.short(e.CollectionID), offset}, args...)...)
	}
	l := o.lives[e.CollectionID]
	if l == nil {
		bad("no such collection")
		return
	}
	last := l.runs[len(l.runs)-1]
	first := e.TaskCount - len(e.Tasks)
	switch _, done := l.results[first]; {
	case e.Run != last.id.Run+1:
		bad("run %d follows run %d", e.Run, last.id.Run)
	case last.status != ledger.StatusFailed && last.status != ledger.StatusCanceled:
		bad("run %d is %s", last.id.Run, last.status)
	case e.TaskCount != last.count:
		bad("%d tasks have become %d", last.count, e.TaskCount)
	case done:
		bad("task %d has succeeded and would run again", first)
	case first > 0 && l.results[first-1] == nil:
		bad("task %d has not succeeded and is left out", first-1)
	case first > 0 && !sameJSON(l.results[first-1], e.Input):
		bad("the input is %s, the result of task %d was %s", e.Input, first-1, l.results[first-1])
	}
	for i := range e.Tasks {
		if t := &e.Tasks[i]; t.Attempts != l.starts[t.Index] {
			bad("task %d has had %d attempts, the retry says %d", t.Index, l.starts[t.Index], t.Attempts)
		}
	}
}

// honestStart counts over all runs, which only an honest retry carries on.
func (o *oracle) honestStart(a *attemptFact) {
	t := a.task
	if !o.w.honest || t.kind != ledger.KindTask {
		return
	}
	if n := t.run.life.starts[t.def.Index]; n != a.number {
		o.w.violated("G4", "attempt @%d is number %d, and %d starts of the task were accepted", a.id, a.number, n)
	}
	if t.lost >= ledger.MaxLostAttempts {
		o.w.violated("BOUND", "attempt @%d was started after the worker was lost %d times", a.id, t.lost)
	}
}

// handlerStarts checks a handler that is about to run.
func (o *oracle) handlerStarts(worker string, a *ledger.Attempt) {
	w := o.w
	f := o.attempts[a.ID]
	if f == nil {
		w.violated("G4", "a handler starts for @%d, which is no accepted TaskStarted", a.ID)
		return
	}
	t := f.task
	f.handlers++
	t.handlers++
	onlyOnce := t.def.OnInterrupt == ledger.OnInterruptFail
	switch {
	case f.handlers > 1:
		w.violated("G4", "a second handler starts for attempt @%d", a.ID)
	case f.worker != worker:
		w.violated("G4", "%s starts a handler for attempt @%d of %s", worker, a.ID, f.worker)
	case w.honest && onlyOnce && t.handlers > 1:
		w.violated("G4", "a task that may run once per run is handled again, as attempt @%d", a.ID)
	case w.honest && f.status == ledger.StatusNotStarted:
		w.violated("G4", "a handler starts for attempt @%d, which was closed as not started", a.ID)
	case f.closed >= 0 && w.nowMS-f.closedMS >= leaseMS:
		w.violated("LEASE", "a handler starts for attempt @%d, %d ms after its end", a.ID, w.nowMS-f.closedMS)
	case a.Run != t.run.id.Run || a.Task.ID != t.def.ID || a.TaskKind != t.kind || a.Number != f.number:
		w.violated("G5", "the handler of attempt @%d gets the wrong task, run or number", a.ID)
	case !sameJSON(a.Task.Args, t.def.Args):
		w.violated("G5", "the handler of attempt @%d gets the args %s, its definition says %s", a.ID, a.Task.Args, t.def.Args)
	}
	if t.kind == ledger.KindFinally {
		o.finallyInput(a, t)
		return
	}
	if want := o.input(t); !sameJSON(a.Input, want) {
		w.violated("G5", "the handler of attempt @%d gets the input %s instead of %s", a.ID, a.Input, want)
	}
}

// input is what a chain task's handler must get: the result before it.
func (o *oracle) input(t *taskFact) json.RawMessage {
	r := t.run
	switch k := t.def.Index - r.first; {
	case t.def.Immutable:
		return nil
	case k == 0:
		return r.input
	default:
		return r.chain[k-1].result
	}
}

func (o *oracle) finallyInput(a *ledger.Attempt, t *taskFact) {
	if t.def.Immutable {
		if len(a.Input) > 0 {
			o.w.violated("G5", "the immutable finally task of attempt @%d gets the input %s", a.ID, a.Input)
		}
		return
	}
	r := t.run
	var got struct {
		Run        int           `json:"run"`
		Status     ledger.Status `json:"status"`
		Name       string        `json:"name"`
		FailedTask *struct {
			ID    uuid.UUID `json:"id"`
			Type  string    `json:"type"`
			Error struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		} `json:"failed_task"`
	}
	if err := json.Unmarshal(a.Input, &got); err != nil {
		o.w.violated("G5", "the input of finally attempt @%d is %s: %v", a.ID, a.Input, err)
		return
	}
	ok := got.Run == r.id.Run && got.Status == r.status && got.Name == r.name && (got.FailedTask != nil) == (r.failed != nil)
	if ok && r.failed != nil {
		f := got.FailedTask
		ok = f.ID == r.failed.def.ID && f.Type == r.failed.def.Type && f.Error.Code == r.failure.Code && f.Error.Message == r.failure.Message
	}
	if !ok {
		o.w.violated("G9", "the finally attempt @%d gets %s, run %d is %s", a.ID, a.Input, r.id.Run, r.status)
	}
}
