package simtest

import (
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

func (o *oracle) judgeAsOf(asOf, offset int64) clause {
	switch {
	case asOf < 0, asOf < offset-o.window:
		return clause{"G6", "as_of is older than the window"}
	case asOf > offset:
		return clause{"G13", "as_of is beyond the log"}
	}
	return clause{}
}

func (o *oracle) judgeCreated(e ledger.CollectionCreated, offset int64) clause {
	if p, ok := ledger.PartitionFor(e.Tenant, e.OrderingKey, e.IdempotencyKey, o.w.partitions); ok && p != o.w.index {
		return clause{"R3", "its keys belong to another partition"}
	}
	if l := o.lives[e.CollectionID]; l != nil {
		if l.active != nil {
			return clause{"G7", "the collection is active"}
		}
		for _, r := range l.runs {
			if r.pending() {
				return clause{"G7", "the collection has finally tasks under way"}
			}
		}
		if l.lastEnd >= o.position-o.window && l.lastEnd >= 0 {
			return clause{"G7", "the collection ended within the window"}
		}
	}
	return o.judgeAsOf(e.AsOf, offset)
}

func (o *oracle) judgeRetry(e ledger.RetryRequested, offset int64) clause {
	if p, ok := ledger.PartitionFor(e.Tenant, e.OrderingKey, "", o.w.partitions); ok && p != o.w.index {
		return clause{"R8", "its ordering key belongs to another partition"}
	}
	if l := o.lives[e.CollectionID]; l != nil {
		if l.active != nil {
			return clause{"G6", "the collection is active"}
		}
		if l.lastEnd >= e.AsOf && l.lastEnd >= 0 {
			return clause{"G6", "a run ended since as_of"}
		}
		for _, r := range l.runs {
			if r.pending() && r.id.Run >= e.Run {
				return clause{"G6", "a run with that number or a higher one has finally tasks under way"}
			}
		}
	}
	return o.judgeAsOf(e.AsOf, offset)
}

func (o *oracle) judgeCancel(e ledger.CancelRequested) clause {
	l := o.lives[e.CollectionID]
	switch {
	case l == nil || l.active == nil || l.active.id.Run != e.Run:
		return clause{"R7", "no such run is active"}
	case l.active.tenant != e.Tenant:
		return clause{"TENANT", "the collection is another tenant's"}
	case l.active.canceled >= 0:
		return clause{"R7", "the run is canceled already"}
	}
	return clause{}
}

func (o *oracle) judgeClaimed(e ledger.PartitionClaimed) clause {
	current := o.claims[e.Queue]
	switch {
	case current == nil && len(o.claims) >= ledger.MaxQueues:
		return clause{"R2", "there are 64 queues already"}
	case current == nil && e.Prev != -1, current != nil && e.Prev != current.offset:
		return clause{"R2", "prev is not the queue's claim"}
	}
	return clause{}
}

func (o *oracle) judgeReleased(e ledger.PartitionReleased) clause {
	current := o.claims[e.Queue]
	switch {
	case current == nil || e.Claim > current.offset:
		return clause{"R11", "the claim never was"}
	case e.Claim == current.offset && e.Worker != current.worker:
		return clause{"R11", "the claim is another worker's"}
	case e.Claim == current.offset && current.released:
		return clause{"R11", "the claim is released already"}
	}
	return clause{}
}

// holds reports whether a claim is the queue's current, unreleased one.
func (o *oracle) holds(queue string, claim int64, worker string) bool {
	c := o.claims[queue]
	return c != nil && c.offset == claim && c.worker == worker && !c.released
}

func (o *oracle) judgeStarted(e ledger.TaskStarted) clause {
	r := o.find(ledger.RunID{Collection: e.CollectionID, Run: e.Run})
	if r == nil {
		return clause{"G5", "no such run is active or has finally tasks under way"}
	}
	t := r.current()
	switch {
	case t == nil || t.def.ID != e.TaskID:
		return clause{"G5", "the task is not the next one"}
	case r.tenant != e.Tenant:
		return clause{"TENANT", "the collection is another tenant's"}
	case t.kind == ledger.KindTask && r.canceled >= 0:
		return clause{"G8", "the run was canceled before"}
	case t.kind == ledger.KindTask && r.lane.key != "" && o.lanes[r.lane][0] != r:
		return clause{"LANE", "another collection of the lane has not ended"}
	case !o.holds(t.def.Queue, e.Claim, e.Worker):
		return clause{"CLAIM", "the claim is not the queue's current, unreleased one of that worker"}
	case e.Attempt != t.def.Attempts+t.starts+1:
		return clause{"G4", "the attempt's number is not the next one"}
	}
	switch a := t.open; {
	case a == nil:
	case a.claim == e.Claim:
		return clause{"G4", "an attempt of the same claim is open"}
	case t.def.OnInterrupt == ledger.OnInterruptFail:
		return clause{"G4", "the open attempt is of a task that may run once"}
	case a.deferred >= 0:
		return clause{"DEFERRED", "the open attempt is deferred"}
	}
	return clause{}
}

// judgeOutcome is what speaks against an outcome that a worker reports itself.
func (o *oracle) judgeOutcome(run ledger.RunID, tenant string, task uuid.UUID, attempt int64, worker string) clause {
	if c := o.judgeClose(run, tenant, task, attempt); c != (clause{}) {
		return c
	}
	if o.attempts[attempt].worker != worker {
		return clause{"G3", "the attempt is another worker's"}
	}
	return clause{}
}

func (o *oracle) judgeClose(run ledger.RunID, tenant string, task uuid.UUID, attempt int64) clause {
	a := o.attempts[attempt]
	switch {
	case a == nil:
		return clause{"G3", "the attempt was never opened"}
	case a.closed >= 0:
		return clause{"G3", "the attempt is closed already"}
	case a.task.run.id != run, a.task.def.ID != task:
		return clause{"G3", "the attempt is of another task or run"}
	case a.task.run.tenant != tenant:
		return clause{"TENANT", "the collection is another tenant's"}
	}
	return clause{}
}

func (o *oracle) judgeFailed(e ledger.TaskFailed) clause {
	if e.ByClaim == nil {
		return o.judgeOutcome(ledger.RunID{Collection: e.CollectionID, Run: e.Run}, e.Tenant, e.TaskID, e.AttemptID, e.Worker)
	}
	if c := o.judgeClose(ledger.RunID{Collection: e.CollectionID, Run: e.Run}, e.Tenant, e.TaskID, e.AttemptID); c != (clause{}) {
		return c
	}
	a := o.attempts[e.AttemptID]
	switch {
	case !o.holds(a.task.def.Queue, *e.ByClaim, e.Worker):
		return clause{"CLAIM", "by_claim is not the queue's current, unreleased claim of that worker"}
	case a.deferred >= 0 && isLost(e.Error.Code):
		return clause{"DEFERRED", "a deferred attempt cannot be lost"}
	}
	return clause{}
}

func isLost(code string) bool { return code == ledger.CodeLost || code == ledger.CodeInterrupted }

func (o *oracle) judgeDeferred(e ledger.TaskDeferred) clause {
	if c := o.judgeOutcome(ledger.RunID{Collection: e.CollectionID, Run: e.Run}, e.Tenant, e.TaskID, e.AttemptID, e.Worker); c != (clause{}) {
		return c
	}
	if o.attempts[e.AttemptID].deferred >= 0 {
		return clause{"R5b", "the attempt is deferred already"}
	}
	return clause{}
}
