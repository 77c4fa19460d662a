package ledger

import (
	"encoding/json"

	"github.com/google/uuid"
)

// applyStarted is R4.
func (p *Partition) applyStarted(r Record, e TaskStarted) {
	c, reason := p.judgeStart(e)
	if reason != "" {
		p.stale(reason)
		return
	}
	if c.tenant != e.Tenant {
		p.refuse(Invalid, "/tenant: is not the collection's")
		return
	}
	t := c.task()
	if c.open != nil {
		c.lost++
		p.closeAttempt(r, c, StatusSuperseded, nil, "", nil)
	}
	t.Attempts++
	c.open = &openAttempt{id: r.Offset, claim: e.Claim, worker: e.Worker, startedMS: r.TimeMS}
	c.waiting = false
	p.out.Attempts = append(p.out.Attempts, c.attempt(StatusRunning))
	p.out.Tasks = append(p.out.Tasks, c.taskChange(StatusRunning))
	if !c.started {
		c.started = true
		p.out.Collections = append(p.out.Collections, CollectionChange{ID: c.id, Tenant: c.tenant, Run: c.run, Status: StatusRunning})
		p.out.Runs = append(p.out.Runs, RunChange{Collection: c.id, Run: c.run, Status: StatusRunning})
	}
}

// judgeStart returns the collection, or why a TaskStarted is refused.
func (p *Partition) judgeStart(e TaskStarted) (*collection, Reason) {
	c, reason := p.find(e.CollectionID, e.Run)
	if reason != "" {
		return nil, reason
	}
	t := c.task()
	switch {
	case c.canceled:
		return nil, ReasonCanceled
	// Two executors may hold the partition for a moment during a rebalance and
	// both start attempt 1. The log orders them; the second lands here, as does
	// a duplicate of a start whose attempt has failed since.
	case t.ID != e.TaskID || e.Attempt != t.Attempts+1:
		return nil, ReasonAttempt
	case !p.holdsClaim(t.Queue, e.Claim, e.Worker):
		return nil, ReasonClaim
	case c.open != nil && (c.open.claim == e.Claim || t.OnInterrupt != OnInterruptRestart):
		return nil, ReasonAttempt
	}
	return c, ""
}

// judgeClose returns the collection whose open attempt an outcome is about, or
// why the outcome is refused (R5 without the worker's side).
func (p *Partition) judgeClose(id uuid.UUID, run int, task uuid.UUID, attemptID int64) (*collection, Reason) {
	c, reason := p.find(id, run)
	if reason != "" {
		return nil, reason
	}
	if c.open == nil || c.open.id != attemptID || c.task().ID != task {
		return nil, ReasonAttempt
	}
	return c, ""
}

// applySucceeded is R5 and R6 for a success.
func (p *Partition) applySucceeded(r Record, e TaskSucceeded) {
	c, reason := p.judgeClose(e.CollectionID, e.Run, e.TaskID, e.AttemptID)
	switch {
	case reason != "":
		p.stale(reason)
		return
	case c.tenant != e.Tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
		return
	// No claim is asked for: a slow but honest worker counts as long as nobody
	// has restarted the task.
	case c.open.worker != e.Worker:
		p.stale(ReasonAttempt)
		return
	}
	p.closeAttempt(r, c, StatusSucceeded, e.Result, e.Message, nil)
	p.out.Tasks = append(p.out.Tasks, c.closedTask(p.out.Attempts, StatusSucceeded))
	c.next++
	c.input, c.failures, c.lost, c.failed, c.sinceMS = e.Result, 0, 0, lastFailure{}, r.TimeMS
	switch {
	case c.next == len(c.tasks):
		p.end(r, c, StatusSucceeded, uuid.Nil, nil) // even when a cancel was accepted meanwhile
	case c.canceled:
		p.end(r, c, StatusCanceled, uuid.Nil, nil)
	}
}

// applyFailed is R5 and R6 for a failure.
func (p *Partition) applyFailed(r Record, e TaskFailed) {
	c, reason := p.judgeClose(e.CollectionID, e.Run, e.TaskID, e.AttemptID)
	switch {
	case reason != "":
		p.stale(reason)
		return
	case c.tenant != e.Tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
		return
	case e.ByClaim == nil && c.open.worker != e.Worker:
		p.stale(ReasonAttempt)
		return
	// An owner that was fenced since must not end an attempt that may live.
	case e.ByClaim != nil && !p.holdsClaim(c.task().Queue, *e.ByClaim, e.Worker):
		p.stale(ReasonClaim)
		return
	}
	taskErr := e.Error
	attemptID := c.open.id
	p.closeAttempt(r, c, StatusFailed, nil, "", &taskErr)
	p.afterFailure(r, c, e, attemptID, &taskErr)
}

// afterFailure decides what becomes of the task: canceled, runnable again
// after a lost worker, waiting for its next attempt, or failed for this run.
func (p *Partition) afterFailure(r Record, c *collection, e TaskFailed, attemptID int64, taskErr *TaskError) {
	t := c.task()
	change := c.closedTask(p.out.Attempts, StatusFailed)
	lost := e.ByClaim != nil && (e.Error.Code == CodeLost || e.Error.Code == CodeInterrupted)
	retryable := e.Error.Retryable && (e.Error.Code != CodeTimeout || t.OnInterrupt != OnInterruptFail)
	switch {
	case c.canceled:
		p.out.Tasks = append(p.out.Tasks, change)
		p.end(r, c, StatusCanceled, uuid.Nil, nil)
	case lost && retryable && t.OnInterrupt == OnInterruptRestart:
		c.lost++
		c.sinceMS = r.TimeMS
		change.Status = StatusPending
		p.out.Tasks = append(p.out.Tasks, change)
	case retryable && c.failures+1 < t.MaxAttempts:
		c.failures++
		c.waiting = true
		c.failed = lastFailure{attemptID: attemptID, timeMS: r.TimeMS, retryAfterMS: e.RetryAfterMS}
		change.Status = StatusWaiting
		p.out.Tasks = append(p.out.Tasks, change)
	default:
		c.failures++
		p.out.Tasks = append(p.out.Tasks, change)
		p.end(r, c, StatusFailed, t.ID, taskErr)
	}
}

// closeAttempt takes the open attempt away and reports it.
func (p *Partition) closeAttempt(r Record, c *collection, s Status, result json.RawMessage, message string, e *TaskError) {
	a := c.attempt(s)
	a.FinishedMS, a.Result, a.Message, a.Error = r.TimeMS, result, message, e
	p.out.Attempts = append(p.out.Attempts, a)
	c.open = nil
}

// end takes a collection out of the active ones; what was not done of a
// canceled run is reported as canceled.
func (p *Partition) end(r Record, c *collection, s Status, failed uuid.UUID, e *TaskError) {
	delete(p.active, c.id)
	p.win.add(c.id, r.Offset)
	p.out.Collections = append(p.out.Collections, CollectionChange{ID: c.id, Tenant: c.tenant, Run: c.run, Status: s})
	p.out.Runs = append(p.out.Runs, RunChange{Collection: c.id, Run: c.run, Status: s, FailedTask: failed, Error: e})
	if s != StatusCanceled {
		return
	}
	for i := c.next; i < len(c.tasks); i++ {
		if n := len(p.out.Tasks); n > 0 && p.out.Tasks[n-1].ID == c.tasks[i].ID {
			continue // its last attempt has just failed, which says more
		}
		p.out.Tasks = append(p.out.Tasks, TaskChange{
			Collection: c.id, ID: c.tasks[i].ID, Index: c.tasks[i].Index, Run: c.run,
			Status: StatusCanceled, Attempts: c.tasks[i].Attempts, AttemptID: -1,
		})
	}
}

func (c *collection) attempt(s Status) AttemptChange {
	return AttemptChange{
		ID: c.open.id, Collection: c.id, TaskID: c.task().ID, Run: c.run, Number: c.task().Attempts,
		Claim: c.open.claim, Worker: c.open.worker, Status: s, StartedMS: c.open.startedMS,
	}
}

// taskChange is the next task with its open attempt.
func (c *collection) taskChange(s Status) TaskChange {
	t := c.task()
	return TaskChange{
		Collection: c.id, ID: t.ID, Index: t.Index, Run: c.run, Status: s, Attempts: t.Attempts,
		AttemptID: c.open.id, Worker: c.open.worker, StartedMS: c.open.startedMS,
	}
}

// closedTask is the next task after the attempt that was closed last.
func (c *collection) closedTask(attempts []AttemptChange, s Status) TaskChange {
	t, a := c.task(), attempts[len(attempts)-1]
	return TaskChange{
		Collection: c.id, ID: t.ID, Index: t.Index, Run: c.run, Status: s, Attempts: t.Attempts,
		AttemptID: a.ID, Worker: a.Worker, StartedMS: a.StartedMS, FinishedMS: a.FinishedMS,
		Result: a.Result, Message: a.Message, Error: a.Error,
	}
}
