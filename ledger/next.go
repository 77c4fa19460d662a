package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/google/uuid"
)

// The waits before an owner treats an attempt of another worker as lost, in
// milliseconds: TakeoverGraceMS while that worker may still be alive,
// GoneGraceMS once it has left its consumer group.
const (
	TakeoverGraceMS = 10_000
	GoneGraceMS     = 1_000
)

// An ActionKind says what an owner should append.
type ActionKind int

// The kinds of actions.
const (
	ActionStart ActionKind = iota + 1 // a TaskStarted
	ActionFail                        // a TaskFailed on behalf of a lost worker
)

// An Action is what the owner of a queue should append next for a collection.
// [Action.Event] makes the event. Appended while the fold stands where it
// stood, it is accepted.
type Action struct {
	Kind       ActionKind
	Collection uuid.UUID
	Tenant     string
	Run        int
	TaskID     uuid.UUID
	Attempt    int       // the new one, for ActionStart
	AttemptID  int64     // the open one, for ActionFail and for a start that supersedes; else -1
	Error      TaskError // for ActionFail
	Claim      int64
	Worker     string

	// NotBefore: the action is due WaitMS after BaseMS, a record time in Unix
	// milliseconds; with BaseMS 0, WaitMS after this process first saw it.
	BaseMS int64
	WaitMS int64
	// LostWorker is set when the attempt belongs to another worker: once that
	// one is known to be gone, GoneGraceMS takes the place of WaitMS.
	LostWorker string
	// SinceMS is the record time at which the task became runnable, for
	// metrics; 0 when it is not known.
	SinceMS int64
}

// Event returns the event that the action asks for.
func (a Action) Event() Event {
	if a.Kind == ActionStart {
		return TaskStarted{
			CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.TaskID,
			Attempt: a.Attempt, Claim: a.Claim, Worker: a.Worker,
		}
	}
	claim := a.Claim
	return TaskFailed{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.TaskID,
		AttemptID: a.AttemptID, Worker: a.Worker, ByClaim: &claim, Error: a.Error,
	}
}

// Next returns what the owner of a queue should append now or later, for all
// active collections, in the order of their ids. holding reports whether this
// process still holds an attempt: its handler runs, or its outcome has not been
// read back. Without a current claim of worker there is nothing to do.
func (p *Partition) Next(queue, worker string, holding func(attemptID int64) bool) []Action {
	ids := make([]uuid.UUID, 0, len(p.active))
	for id := range p.active {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	var actions []Action
	for _, id := range ids {
		if a, ok := p.NextFor(id, queue, worker, holding); ok {
			actions = append(actions, a)
		}
	}
	return actions
}

// NextFor is [Partition.Next] for one collection.
func (p *Partition) NextFor(id uuid.UUID, queue, worker string, holding func(attemptID int64) bool) (Action, bool) {
	c := p.active[id]
	claim, ok := p.claims[queue]
	if c == nil || !ok || claim.Worker != worker || claim.Released || c.task().Queue != queue {
		return Action{}, false
	}
	a := Action{
		Collection: c.id, Tenant: c.tenant, Run: c.run, TaskID: c.task().ID,
		Claim: claim.Offset, Worker: worker, AttemptID: -1,
	}
	switch {
	case c.open == nil:
		c.nextStart(&a)
	case holding(c.open.id):
		return Action{}, false
	default:
		c.nextTakeover(&a)
	}
	return a, true
}

// nextStart proposes the next attempt of a task without an open one. A
// canceled collection without an open attempt has ended, so it isn't asked.
func (c *collection) nextStart(a *Action) {
	a.Kind, a.Attempt, a.SinceMS = ActionStart, c.task().Attempts+1, c.sinceMS
	if c.waiting {
		a.BaseMS, a.WaitMS = c.failed.timeMS, c.backoffMS()
		a.SinceMS = a.BaseMS + a.WaitMS
	}
}

// nextTakeover decides about an open attempt that no handler of this process
// holds: it is lost, at once when it was this worker's, else after a grace.
func (c *collection) nextTakeover(a *Action) {
	t := c.task()
	a.Kind, a.AttemptID = ActionFail, c.open.id
	own := c.open.worker == a.Worker
	if !own {
		a.WaitMS, a.LostWorker = TakeoverGraceMS, c.open.worker
	}
	a.Error = TaskError{Code: CodeLost, Message: "the worker was lost", Detail: "worker " + c.open.worker, Audience: AudienceOperator}
	switch {
	case c.canceled || t.OnInterrupt == OnInterruptFail:
		a.Error.Code, a.Error.Message = CodeInterrupted, "the worker was lost and the task may not be started again"
	case c.lost >= MaxLostAttempts-1:
		a.Error.Message = "the worker was lost 10 times in this run" // a task that kills its process must not kill the fleet
	case own || c.open.claim == a.Claim:
		a.Error.Retryable = true
	default:
		a.Kind, a.Attempt, a.Error = ActionStart, t.Attempts+1, TaskError{}
	}
}

// backoffMS is initial × multiplier^(failures-1), at most max, of which the
// second half is jitter derived from the attempt's id: the same everywhere.
func (c *collection) backoffMS() int64 {
	if c.failed.retryAfterMS > 0 {
		return c.failed.retryAfterMS
	}
	b := c.task().Backoff
	wait := b.InitialMS
	for i := 1; i < c.failures && wait < b.MaxMS; i++ {
		wait *= b.Multiplier // at most 24 h × 100: no overflow
		if b.Multiplier == 1 {
			break
		}
	}
	wait = min(wait, b.MaxMS)
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(c.failed.attemptID)) //nolint:gosec // offsets are not negative
	h := hashParts(string(seed[:]))
	return wait - int64(binary.BigEndian.Uint64(h[:8])%uint64(wait/2+1)) //nolint:gosec // both are at most 24 h in milliseconds
}

// An Attempt is an open attempt with all that its handler gets.
type Attempt struct {
	ID         int64 // the fence: grows with every attempt of the partition
	Collection uuid.UUID
	Tenant     string
	Name       string // of the collection
	Run        int
	Number     int // from 1, over all runs
	Claim      int64
	Worker     string
	StartedMS  int64
	Task       Task
	Input      json.RawMessage // the previous task's result; nil for the first task and for an immutable one
	Canceled   bool
}

// OpenAttempt returns the open attempt of an active collection.
func (p *Partition) OpenAttempt(id uuid.UUID) (Attempt, bool) {
	c := p.active[id]
	if c == nil || c.open == nil {
		return Attempt{}, false
	}
	a := Attempt{
		ID: c.open.id, Collection: c.id, Tenant: c.tenant, Name: c.name, Run: c.run, Number: c.task().Attempts,
		Claim: c.open.claim, Worker: c.open.worker, StartedMS: c.open.startedMS, Task: *c.task(), Canceled: c.canceled,
	}
	if !a.Task.Immutable {
		a.Input = c.input
	}
	return a, true
}

// StartAfter returns the start of the task behind the open attempt, as it will
// be right if that attempt now succeeds: the two records are appended back to
// back, so that a task costs one awaited round trip. ok is false when there is
// no such task, it is of another queue, the run is canceled, or worker does not
// hold the claim.
func (p *Partition) StartAfter(id uuid.UUID, queue, worker string) (a Action, ok bool) {
	c := p.active[id]
	claim, claimed := p.claims[queue]
	if c == nil || c.open == nil || c.canceled || !claimed || claim.Worker != worker || claim.Released || c.next+1 >= len(c.tasks) {
		return Action{}, false
	}
	t := &c.tasks[c.next+1]
	if t.Queue != queue {
		return Action{}, false
	}
	return Action{
		Kind: ActionStart, Collection: c.id, Tenant: c.tenant, Run: c.run, TaskID: t.ID, Attempt: t.Attempts + 1,
		Claim: claim.Offset, Worker: worker, AttemptID: -1,
	}, true
}
