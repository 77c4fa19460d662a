package simtest

import (
	"encoding/json"
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// A draft takes the facts of one accepted record into the oracle and collects
// what the fold's outcome must say about it.
type draft struct {
	o      *oracle
	offset int64
	timeMS int64
	bytes  int
	ends   []runEnd
	closes []attemptEnd
	opens  int64 // attempt opened, -1 for none
}

type runEnd struct {
	run    ledger.RunID
	status ledger.Status
}

type attemptEnd struct {
	id     int64
	status ledger.Status
}

func (d *draft) apply(e ledger.Event) {
	d.opens = -1
	o := d.o
	switch e := e.(type) {
	case ledger.LedgerOpened:
		o.opened, o.window = true, e.Window
	case ledger.CollectionCreated:
		o.honestCreate(e, d.offset)
		d.openRun(&runFact{
			id: ledger.RunID{Collection: e.CollectionID, Run: 1}, tenant: e.Tenant, name: e.Name, lane: lane{e.Tenant, e.OrderingKey},
			count: len(e.Tasks),
		}, e.Tasks, e.Finally)
	case ledger.RetryRequested:
		o.honestRetry(e, d.offset)
		d.openRun(&runFact{
			id: ledger.RunID{Collection: e.CollectionID, Run: e.Run}, tenant: e.Tenant, name: e.Name, lane: lane{e.Tenant, e.OrderingKey},
			count: e.TaskCount, first: e.TaskCount - len(e.Tasks), input: e.Input,
		}, e.Tasks, e.Finally)
	case ledger.CancelRequested:
		r := o.lives[e.CollectionID].active
		r.canceled = d.offset
		if t := r.current(); t.open == nil {
			d.end(r, ledger.StatusCanceled)
		}
	case ledger.PartitionClaimed:
		o.claims[e.Queue] = &claimFact{offset: d.offset, queue: e.Queue, worker: e.Worker}
	case ledger.PartitionReleased:
		d.release(e)
	case ledger.TaskStarted:
		d.start(e)
	case ledger.TaskSucceeded:
		d.succeed(o.attempts[e.AttemptID], e.Result)
	case ledger.TaskFailed:
		d.fail(o.attempts[e.AttemptID], e)
	case ledger.TaskDeferred:
		o.attempts[e.AttemptID].deferred, o.attempts[e.AttemptID].deferMS = d.offset, d.timeMS
	default:
	}
}

func (d *draft) openRun(r *runFact, tasks, finally []ledger.Task) {
	o := d.o
	l := o.lives[r.id.Collection]
	if l == nil {
		l = &life{id: r.id.Collection, starts: map[int]int{}, results: map[int]json.RawMessage{}, lastEnd: -1}
		o.lives[l.id] = l
		o.order = append(o.order, l)
	}
	r.life, r.opened, r.bytes, r.canceled, r.ended = l, d.offset, d.bytes, -1, -1
	for i := range tasks {
		r.chain = append(r.chain, &taskFact{run: r, kind: ledger.KindTask, def: tasks[i], success: -1})
	}
	for i := range finally {
		r.after = append(r.after, &taskFact{run: r, kind: ledger.KindFinally, def: finally[i], success: -1})
	}
	if r.id.Run == 1 {
		l.creations++
	}
	o.sawOpening(r)
	l.runs, l.active = append(l.runs, r), r
	if r.lane.key != "" {
		o.lanes[r.lane] = append(o.lanes[r.lane], r)
	}
	o.counts.active++
}

// end ends a run: it leaves its lane, and its finally tasks may start.
func (d *draft) end(r *runFact, s ledger.Status) {
	o := d.o
	r.ended, r.endedMS, r.status = d.offset, d.timeMS, s
	r.life.active, r.life.lastEnd = nil, d.offset
	o.lanes[r.lane] = slices.DeleteFunc(o.lanes[r.lane], func(other *runFact) bool { return other == r })
	o.counts.active--
	r.afterStart = true
	if len(r.after) > 0 {
		o.counts.pending++
		o.sawFinally(r)
	}
	d.ends = append(d.ends, runEnd{r.id, s})
}

func (d *draft) close(a *attemptFact, s ledger.Status) {
	o := d.o
	a.closed, a.closedMS, a.status, a.task.open = d.offset, o.w.nowMS, s, nil
	o.open = slices.DeleteFunc(o.open, func(other *attemptFact) bool { return other == a })
	d.closes = append(d.closes, attemptEnd{a.id, s})
}

func (d *draft) start(e ledger.TaskStarted) {
	o := d.o
	t := o.find(ledger.RunID{Collection: e.CollectionID, Run: e.Run}).current()
	if t.open != nil {
		t.lost++
		o.w.saw("situation", "superseded "+string(t.kind))
		d.close(t.open, ledger.StatusSuperseded)
	}
	t.starts++
	t.waits = false
	a := &attemptFact{id: d.offset, task: t, number: e.Attempt, claim: e.Claim, worker: e.Worker, deferred: -1, closed: -1}
	t.open = a
	o.attempts[a.id] = a
	o.open = append(o.open, a)
	d.opens = a.id
	if t.kind == ledger.KindTask {
		t.run.life.starts[t.def.Index]++
	}
	o.honestStart(a)
}

func (d *draft) succeed(a *attemptFact, result json.RawMessage) {
	t := a.task
	if t.success >= 0 {
		d.o.w.violated("G3", "a second success of %s in run %d", d.o.w.taskName(t.run.id.Collection, t.def.ID), t.run.id.Run)
	}
	d.o.sawOutcome(a)
	d.close(a, ledger.StatusSucceeded)
	t.success, t.result = d.offset, result
	r := t.run
	if t.kind == ledger.KindFinally {
		d.afterFinally(r)
		return
	}
	r.life.results[t.def.Index] = result
	switch {
	case r.current() == nil:
		if r.canceled >= 0 {
			d.o.w.saw("situation", "succeeded after a cancel")
		}
		d.end(r, ledger.StatusSucceeded)
	case r.canceled >= 0:
		d.end(r, ledger.StatusCanceled)
	}
}

func (d *draft) fail(a *attemptFact, e ledger.TaskFailed) {
	t, r := a.task, a.task.run
	d.o.sawOutcome(a)
	d.o.sawFailure(a, e)
	d.close(a, ledger.StatusFailed)
	if t.kind == ledger.KindTask && r.canceled >= 0 {
		d.end(r, ledger.StatusCanceled)
		return
	}
	onlyOnce := t.def.OnInterrupt == ledger.OnInterruptFail
	if e.ByClaim != nil && isLost(e.Error.Code) && e.Error.Retryable && !onlyOnce {
		t.lost++
		return
	}
	t.failures++
	again := e.Error.Retryable && (e.Error.Code != ledger.CodeTimeout || !onlyOnce)
	if again && t.failures < t.def.MaxAttempts {
		t.waits, t.failedMS, t.retryAfterMS = true, d.timeMS, e.RetryAfterMS
		return
	}
	t.gaveUp = t.kind == ledger.KindFinally
	if t.gaveUp {
		d.o.w.saw("situation", "finally task failed for good")
		d.afterFinally(r)
		return
	}
	r.failed, r.failure = t, e.Error
	d.end(r, ledger.StatusFailed)
}

func (d *draft) afterFinally(r *runFact) {
	if r.current() == nil {
		d.o.counts.pending--
	}
}

func (d *draft) release(e ledger.PartitionReleased) {
	o := d.o
	if c := o.claims[e.Queue]; c.offset == e.Claim {
		c.released = true
		o.w.saw("release", "of the current claim")
	} else {
		o.w.saw("release", "after a newer claim")
	}
	for _, a := range slices.Clone(o.open) {
		if a.worker != e.Worker || a.task.def.Queue != e.Queue || a.deferred >= 0 {
			continue
		}
		if slices.Contains(e.Running, a.id) {
			o.w.saw("release", "leaves an attempt draining")
			a.draining, a.graceMS = true, e.GraceMS
			continue
		}
		if a.claim != e.Claim {
			continue
		}
		o.w.saw("release", "closes an attempt as not started")
		d.close(a, ledger.StatusNotStarted)
		if o.w.honest && a.handlers > 0 {
			o.w.violated("G4", "attempt @%d was closed as not started, and its handler ran", a.id)
		}
		if r := a.task.run; a.task.kind == ledger.KindTask && r.canceled >= 0 {
			o.w.saw("release", "ends a canceled run")
			d.end(r, ledger.StatusCanceled)
		}
	}
}

// compare holds what the facts imply against what the fold reported.
func (d *draft) compare(s *saved) {
	w := d.o.w
	var ends []runEnd
	for _, r := range s.runs {
		if isEnd(r.Status) {
			ends = append(ends, runEnd{ledger.RunID{Collection: r.Collection, Run: r.Run}, r.Status})
		}
	}
	if !sameSet(ends, d.ends) {
		w.violated("G3", "offset %d ends the runs %v, the records imply %v", d.offset, w.endsText(ends), w.endsText(d.ends))
	}
	var closes []attemptEnd
	opens := int64(-1)
	for _, a := range s.attempts {
		switch {
		case a.Status == ledger.StatusRunning:
			opens = a.ID
		case a.Status != ledger.StatusDeferred:
			closes = append(closes, attemptEnd{a.ID, a.Status})
		}
	}
	if !sameSet(closes, d.closes) || opens != d.opens {
		w.violated("G3", "offset %d closes the attempts %v and opens @%d, the records imply %v and @%d", d.offset, closes, opens, d.closes, d.opens)
	}
	if n := w.reference.fold.Active(); n != d.o.counts.active {
		w.violated("BOUND", "%d collections are active, the fold remembers %d", d.o.counts.active, n)
	}
	if n := w.reference.fold.Ending(); n != d.o.counts.pending {
		w.violated("BOUND", "%d runs have finally tasks under way, the fold remembers %d", d.o.counts.pending, n)
	}
}

func isEnd(s ledger.Status) bool {
	return s == ledger.StatusSucceeded || s == ledger.StatusFailed || s == ledger.StatusCanceled
}

func sameSet[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

func (w *world) endsText(ends []runEnd) []string {
	list := make([]string, 0, len(ends))
	for _, e := range ends {
		list = append(list, w.short(e.run.Collection)+" run "+itoa(e.run.Run)+" "+string(e.status))
	}
	return list
}
