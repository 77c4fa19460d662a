package ledger

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/google/uuid"
)

// applyStarted is R4 and, for finally tasks, R4f.
func (p *Partition) applyStarted(x *Parsed, e TaskStarted) {
	id := RunID{e.CollectionID, e.Run}
	p.touch(id)
	r := p.find(id)
	switch {
	case r == nil:
		p.stale(ReasonClosed)
		return
	case r.tenant != e.Tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
		return
	}
	if reason := p.judgeStart(r, &e); reason != "" {
		p.stale(reason)
		return
	}
	if r.isOpen() {
		r.lost++
		p.closeAttempt(x, r, StatusSuperseded, nil, "", nil)
	}
	r.task().Attempts++
	r.open = openAttempt{id: x.Offset, claim: e.Claim, worker: e.Worker, startedMS: x.TimeMS}
	r.waiting = false
	p.out.Attempts = append(p.out.Attempts, r.attempt(StatusRunning))
	p.out.Tasks = append(p.out.Tasks, r.openTask(StatusRunning))
	if r.kind == KindTask && !r.started {
		r.started = true
		p.out.Collections = append(p.out.Collections, CollectionChange{ID: r.id, Tenant: r.tenant, Run: r.number, Status: StatusRunning})
		p.out.Runs = append(p.out.Runs, RunChange{Collection: r.id, Run: r.number, Status: StatusRunning})
	}
}

// judgeStart returns why a TaskStarted is refused, "" when it is accepted.
// Neither cancel nor lane concern the finally tasks of a run that has ended.
func (p *Partition) judgeStart(r *run, e *TaskStarted) Reason {
	t := r.task()
	switch {
	case r.canceled:
		return ReasonCanceled
	case t.ID != e.TaskID:
		return ReasonAttempt
	case !p.isHead(r):
		return ReasonLane
	case !p.holdsClaim(t.Queue, e.Claim, e.Worker):
		return ReasonClaim
	// Two executors may hold the partition for a moment during a rebalance and
	// both start attempt 1. The log orders them; the second lands here, as does
	// a duplicate of a start whose attempt has failed since.
	case e.Attempt != t.Attempts+1:
		return ReasonAttempt
	case r.open.deferred:
		return ReasonDeferred
	case r.isOpen() && (r.open.claim == e.Claim || t.OnInterrupt != OnInterruptRestart):
		return ReasonAttempt
	}
	return ""
}

// judgeOpen returns the run whose open attempt an event is about, or nil when
// it was refused.
func (p *Partition) judgeOpen(id RunID, tenant string, task uuid.UUID, attemptID int64) *run {
	p.touch(id)
	r := p.find(id)
	switch {
	case r == nil:
		p.stale(ReasonClosed)
	case r.tenant != tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
	case !r.isOpen() || r.open.id != attemptID || r.task().ID != task:
		p.stale(ReasonAttempt)
	default:
		return r
	}
	return nil
}

// applySucceeded is R5 and R6 for a success.
func (p *Partition) applySucceeded(x *Parsed, e TaskSucceeded) {
	r := p.judgeOpen(RunID{e.CollectionID, e.Run}, e.Tenant, e.TaskID, e.AttemptID)
	if r == nil {
		return
	}
	// No claim is asked for: a slow but honest worker counts as long as nobody
	// has restarted the task.
	if r.open.worker != e.Worker {
		p.stale(ReasonAttempt)
		return
	}
	p.closeAttempt(x, r, StatusSucceeded, e.Result, e.Message, nil)
	p.out.Tasks = append(p.out.Tasks, r.closedTask(p.out.Attempts, StatusSucceeded))
	p.taskDone(x, r, e.Result)
}

// taskDone goes on behind a task that succeeded, or a finally task that failed
// for good.
func (p *Partition) taskDone(x *Parsed, r *run, result json.RawMessage) {
	if r.kind == KindFinally {
		if !r.step(nil, x.TimeMS) {
			p.finish(r)
		}
		return
	}
	switch more := r.step(result, x.TimeMS); {
	case !more:
		p.end(x, r, StatusSucceeded, nil, nil) // even when a cancel was accepted meanwhile
	case r.canceled:
		p.end(x, r, StatusCanceled, nil, nil)
	}
}

// applyFailed is R5 and R6 for a failure.
func (p *Partition) applyFailed(x *Parsed, e TaskFailed) {
	r := p.judgeOpen(RunID{e.CollectionID, e.Run}, e.Tenant, e.TaskID, e.AttemptID)
	if r == nil {
		return
	}
	lost := e.ByClaim != nil && (e.Error.Code == CodeLost || e.Error.Code == CodeInterrupted)
	switch {
	case e.ByClaim == nil && r.open.worker != e.Worker:
		p.stale(ReasonAttempt)
		return
	// An owner that was fenced since must not end an attempt that may live.
	case e.ByClaim != nil && !p.holdsClaim(r.task().Queue, *e.ByClaim, e.Worker):
		p.stale(ReasonClaim)
		return
	// The owner decided before it read that no worker holds the attempt.
	case lost && r.open.deferred:
		p.stale(ReasonDeferred)
		return
	}
	p.afterFailure(x, r, &e, lost)
}

// afterFailure decides what becomes of the task: canceled, runnable again
// after a lost worker, waiting for its next attempt, or failed for this run. A
// task that may not be interrupted has one attempt only, so none of its
// failures is followed by another.
func (p *Partition) afterFailure(x *Parsed, r *run, e *TaskFailed, lost bool) {
	t, attemptID := r.task(), r.open.id
	p.closeAttempt(x, r, StatusFailed, nil, "", &e.Error)
	change := r.closedTask(p.out.Attempts, StatusFailed)
	switch {
	case r.canceled:
		p.out.Tasks = append(p.out.Tasks, change)
		p.end(x, r, StatusCanceled, nil, nil)
	case lost && e.Error.Retryable && t.OnInterrupt == OnInterruptRestart:
		r.lost++
		r.sinceMS = x.TimeMS
		change.Status = StatusPending
		p.out.Tasks = append(p.out.Tasks, change)
	case e.Error.Retryable && r.failures+1 < t.MaxAttempts:
		r.failures++
		r.waiting = true
		r.failure = lastFailure{attemptID: attemptID, timeMS: x.TimeMS, retryAfterMS: e.RetryAfterMS}
		change.Status = StatusWaiting
		p.out.Tasks = append(p.out.Tasks, change)
	case r.kind == KindFinally:
		p.out.Tasks = append(p.out.Tasks, change)
		p.taskDone(x, r, nil) // a failed finally task does not stop the next
	default:
		p.out.Tasks = append(p.out.Tasks, change)
		p.end(x, r, StatusFailed, t, &e.Error)
	}
}

// applyDeferred is R5b.
func (p *Partition) applyDeferred(x *Parsed, e TaskDeferred) {
	r := p.judgeOpen(RunID{e.CollectionID, e.Run}, e.Tenant, e.TaskID, e.AttemptID)
	switch {
	case r == nil:
	case r.open.worker != e.Worker:
		p.stale(ReasonAttempt)
	case r.open.deferred:
		p.refuse(Duplicate, "")
	default:
		r.open.deferred, r.open.deferredMS = true, x.TimeMS
		p.out.Attempts = append(p.out.Attempts, r.attempt(StatusDeferred))
		p.out.Tasks = append(p.out.Tasks, r.openTask(StatusWaiting))
	}
}

// applyReleased is R11.
func (p *Partition) applyReleased(x *Parsed, e PartitionReleased) {
	claim, ok := p.claims[e.Queue]
	current := ok && e.Claim == claim.Offset
	switch {
	// The release of an older claim often comes behind the next one: it counts,
	// or else live work would be restarted.
	case !ok || e.Claim > claim.Offset || current && e.Worker != claim.Worker:
		p.stale(ReasonClaim)
		return
	case current && claim.Released:
		p.refuse(Duplicate, "")
		return
	case current:
		claim.Released = true
		p.claims[e.Queue] = claim
	}
	running := make(map[int64]bool, len(e.Running))
	for _, id := range e.Running {
		running[id] = true
	}
	for _, r := range p.heldBy(e.Worker, e.Queue) {
		switch {
		case running[r.open.id]:
			r.open.draining, r.open.graceMS = true, e.GraceMS
			p.touch(r.runID())
		case r.open.claim == e.Claim:
			p.touch(r.runID())
			p.neverStarted(x, r)
		}
	}
}

// heldBy returns the runs with an open attempt of a worker and queue that is
// not deferred, in the order of the attempts.
func (p *Partition) heldBy(worker, queue string) []*run {
	var held []*run
	add := func(r *run) {
		if r.open.worker == worker && !r.open.deferred && r.task().Queue == queue {
			held = append(held, r)
		}
	}
	for _, r := range p.active {
		add(r)
	}
	for _, runs := range p.ending {
		for _, r := range runs {
			add(r)
		}
	}
	slices.SortFunc(held, func(a, b *run) int { return cmp.Compare(a.open.id, b.open.id) })
	return held
}

// neverStarted closes an attempt whose handler was never started: that is no
// failure, and the task may start again at once.
func (p *Partition) neverStarted(x *Parsed, r *run) {
	p.closeAttempt(x, r, StatusNotStarted, nil, "", nil)
	if r.canceled {
		p.end(x, r, StatusCanceled, nil, nil)
		return
	}
	r.sinceMS = x.TimeMS
	p.out.Tasks = append(p.out.Tasks, r.closedTask(p.out.Attempts, StatusPending))
}

// closeAttempt takes the open attempt away and reports it.
func (p *Partition) closeAttempt(x *Parsed, r *run, s Status, result json.RawMessage, message string, e *TaskError) {
	a := r.attempt(s)
	a.FinishedMS, a.Result, a.Message, a.Error = x.TimeMS, result, message, e
	p.out.Attempts = append(p.out.Attempts, a)
	r.open = openAttempt{}
}

// attempt is the open attempt.
func (r *run) attempt(s Status) AttemptChange {
	t := r.task()
	return AttemptChange{
		ID: r.open.id, Collection: r.id, TaskID: t.ID, TaskKind: r.kind, Run: r.number, Number: t.Attempts,
		Claim: r.open.claim, Worker: r.open.worker, Status: s, StartedMS: r.open.startedMS,
	}
}

// openTask is the next task with its open attempt.
func (r *run) openTask(s Status) TaskChange {
	t := r.task()
	return TaskChange{
		Collection: r.id, ID: t.ID, TaskKind: r.kind, Index: t.Index, Run: r.number, Status: s, Attempts: t.Attempts,
		AttemptID: r.open.id, Worker: r.open.worker, StartedMS: r.open.startedMS,
	}
}

// closedTask is the next task after the attempt that was closed last.
func (r *run) closedTask(attempts []AttemptChange, s Status) TaskChange {
	t, a := r.task(), &attempts[len(attempts)-1]
	return TaskChange{
		Collection: r.id, ID: t.ID, TaskKind: r.kind, Index: t.Index, Run: r.number, Status: s, Attempts: t.Attempts,
		AttemptID: a.ID, Worker: a.Worker, StartedMS: a.StartedMS, FinishedMS: a.FinishedMS,
		Result: a.Result, Message: a.Message, Error: a.Error,
	}
}
