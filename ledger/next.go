package ledger

import (
	"bytes"
	"cmp"
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

// An Action is what the owner of a queue should append next for a run.
// [Action.Event] makes the event. Appended while the fold stands where it
// stood, it is accepted.
type Action struct {
	Kind       ActionKind
	Collection uuid.UUID
	Tenant     string
	Run        int
	TaskID     uuid.UUID
	TaskKind   Kind
	TaskType   string
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
	// one is known to be gone, GoneGraceMS takes the place of a longer WaitMS.
	LostWorker string
	// SinceMS is the record time at which the task became runnable, for
	// metrics; 0 when it is not known.
	SinceMS int64
}

// RunID returns the run that the action is about.
func (a Action) RunID() RunID { return RunID{a.Collection, a.Run} }

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
// runs, in the order of their ids. holding reports whether this process still
// holds an attempt: its handler runs, or its outcome or TaskDeferred has not
// been read back. Without a current claim of worker there is nothing to do.
func (p *Partition) Next(queue, worker string, holding func(attemptID int64) bool) []Action {
	var actions []Action
	for _, r := range p.runs() {
		if a, ok := p.next(r, queue, worker, holding); ok {
			actions = append(actions, a)
		}
	}
	return actions
}

// NextFor is [Partition.Next] for one run.
func (p *Partition) NextFor(id RunID, queue, worker string, holding func(attemptID int64) bool) (Action, bool) {
	r := p.find(id)
	if r == nil {
		return Action{}, false
	}
	return p.next(r, queue, worker, holding)
}

// Queue returns the queue of a run's next task. ok is false when the run is not
// remembered.
func (p *Partition) Queue(id RunID) (queue string, ok bool) {
	r := p.find(id)
	if r == nil {
		return "", false
	}
	return r.task().Queue, true
}

// runs returns all runs in A and P in the order of their ids.
func (p *Partition) runs() []*run {
	list := make([]*run, 0, len(p.active)+len(p.ending))
	for _, r := range p.active {
		list = append(list, r)
	}
	for _, runs := range p.ending {
		list = append(list, runs...)
	}
	slices.SortFunc(list, func(a, b *run) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.number, b.number))
	})
	return list
}

func (p *Partition) next(r *run, queue, worker string, holding func(attemptID int64) bool) (Action, bool) {
	t := r.task()
	claim, ok := p.claims[queue]
	if !ok || claim.Worker != worker || claim.Released || t.Queue != queue {
		return Action{}, false
	}
	a := Action{
		Collection: r.id, Tenant: r.tenant, Run: r.number, TaskID: t.ID, TaskKind: r.kind, TaskType: t.Type,
		Claim: claim.Offset, Worker: worker, AttemptID: -1,
	}
	switch {
	case !r.isOpen() && !p.isHead(r):
		return Action{}, false
	case !r.isOpen():
		r.nextStart(&a)
	case r.open.deferred:
		r.nextDeferred(&a)
	case holding(r.open.id):
		return Action{}, false
	default:
		r.nextTakeover(&a)
	}
	return a, true
}

// nextStart proposes the next attempt of a task without an open one. A
// canceled run without an open attempt has ended, so it isn't asked.
func (r *run) nextStart(a *Action) {
	a.Kind, a.Attempt, a.SinceMS = ActionStart, r.task().Attempts+1, r.sinceMS
	if r.waiting {
		a.BaseMS, a.WaitMS = r.failure.timeMS, r.backoffMS()
		a.SinceMS = a.BaseMS + a.WaitMS
	}
}

// nextDeferred ends an attempt whose outcome does not come from outside: when
// its time is over, or at once when the run was canceled. A canceled run's
// finally tasks are not canceled.
func (r *run) nextDeferred(a *Action) {
	a.Kind, a.AttemptID = ActionFail, r.open.id
	if r.canceled {
		a.Error = TaskError{Code: CodeCanceled, Message: "the run was canceled", Audience: AudienceUser}
		return
	}
	a.BaseMS, a.WaitMS = r.open.deferredMS, r.task().TimeoutMS
	a.Error = TaskError{Code: CodeTimeout, Message: "no outcome came from outside in time", Audience: AudienceOperator, Retryable: true}
}

// nextTakeover decides about an open attempt that no handler of this process
// holds: it is lost, at once when it was this worker's, else after a grace.
func (r *run) nextTakeover(a *Action) {
	t := r.task()
	a.Kind, a.AttemptID = ActionFail, r.open.id
	own := r.open.worker == a.Worker
	if !own {
		a.WaitMS, a.LostWorker = r.takeoverMS(), r.open.worker
	}
	a.Error = TaskError{Code: CodeLost, Message: "the worker was lost", Detail: "worker " + r.open.worker, Audience: AudienceOperator}
	switch {
	case r.canceled || t.OnInterrupt == OnInterruptFail:
		a.Error.Code, a.Error.Message = CodeInterrupted, "the worker was lost and the task may not be started again"
	case r.lost >= MaxLostAttempts-1:
		a.Error.Message = "the worker was lost 10 times in this run" // a task that kills its process must not kill the fleet
	case own || r.open.claim == a.Claim:
		a.Error.Retryable = true
	default:
		a.Kind, a.Attempt, a.Error = ActionStart, t.Attempts+1, TaskError{}
	}
}

// takeoverMS is how long the attempt of another worker is left alone: one that
// was released still runs, for as long as it may.
func (r *run) takeoverMS() int64 {
	switch {
	case !r.open.draining:
		return TakeoverGraceMS
	case r.open.graceMS > 0:
		return min(r.task().TimeoutMS, r.open.graceMS)
	}
	return r.task().TimeoutMS
}

// backoffMS is initial × multiplier^(failures-1), at most max, of which the
// second half is jitter derived from the attempt's id: the same everywhere.
func (r *run) backoffMS() int64 {
	if r.failure.retryAfterMS > 0 {
		return r.failure.retryAfterMS
	}
	b := r.task().Backoff
	wait := b.InitialMS
	for i := 1; i < r.failures && wait < b.MaxMS; i++ {
		wait *= b.Multiplier // at most 24 h × 100: no overflow
		if b.Multiplier == 1 {
			break
		}
	}
	wait = min(wait, b.MaxMS)
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(r.failure.attemptID)) //nolint:gosec // offsets are not negative
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
	Number     int // from 1, over all runs; of a finally task in this one
	Claim      int64
	Worker     string
	StartedMS  int64
	Task       Task
	TaskKind   Kind
	Input      json.RawMessage // the previous task's result, of a finally task a [FinallyInput]; nil for the first task and for an immutable one
	Canceled   bool
	Deferred   bool  // the outcome comes from outside; no process holds it
	DeferredMS int64 // record time of its TaskDeferred
	Draining   bool  // its worker has given back the claim and still runs the handler
}

// OpenAttempt returns the open attempt of a run.
func (p *Partition) OpenAttempt(id RunID) (Attempt, bool) {
	r := p.find(id)
	if r == nil || !r.isOpen() {
		return Attempt{}, false
	}
	t := r.task()
	return Attempt{
		ID: r.open.id, Collection: r.id, Tenant: r.tenant, Name: r.name, Run: r.number, Number: t.Attempts,
		Claim: r.open.claim, Worker: r.open.worker, StartedMS: r.open.startedMS,
		Task: *t, TaskKind: r.kind, Input: r.handed(), Canceled: r.canceled,
		Deferred: r.open.deferred, DeferredMS: r.open.deferredMS, Draining: r.open.draining,
	}, true
}

// StartAfter returns the start of the task behind the open attempt, as it will
// be right if that attempt now succeeds: the two records are appended back to
// back, so that a task costs one awaited round trip. ok is false when there is
// no such task, it is of another queue, the run is canceled, or worker does not
// hold the claim.
func (p *Partition) StartAfter(id RunID, queue, worker string) (a Action, ok bool) {
	r := p.find(id)
	claim, claimed := p.claims[queue]
	if r == nil || !r.isOpen() || r.canceled || !claimed || claim.Worker != worker || claim.Released || r.next+1 >= len(r.tasks) {
		return Action{}, false
	}
	t := &r.tasks[r.next+1]
	if t.Queue != queue {
		return Action{}, false
	}
	return Action{
		Kind: ActionStart, Collection: r.id, Tenant: r.tenant, Run: r.number, TaskID: t.ID, TaskKind: r.kind, TaskType: t.Type,
		Attempt: t.Attempts + 1, Claim: claim.Offset, Worker: worker, AttemptID: -1,
	}, true
}
