package ledger

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
)

// A RunID names one run of a collection.
type RunID struct {
	Collection uuid.UUID
	Run        int
}

// A lane is the active collections of a tenant with one ordering key, which run
// one after another.
type lane struct{ tenant, orderingKey string }

// run is one run of a collection: an active one in A, or one that has ended and
// whose finally tasks are under way in P. kind says which, and of which tasks
// the chain is.
type run struct {
	chain

	id     uuid.UUID
	number int
	kind   Kind
	tenant string
	name   string // of the collection

	// Of active ones only.
	opened      int64 // offset of the record that opened the run: its place in the lane
	orderingKey string
	started     bool // an attempt was started in this run
	canceled    bool
	finally     []Task

	// Of ended ones only.
	status  Status
	failed  *FailedTask
	endedMS int64 // record time, for the finally tasks' input
}

// chain is a list of tasks that are done strictly in order, and how far it is.
type chain struct {
	tasks    []Task // Attempts counts their accepted starts
	next     int    // index into tasks of the one that runs or comes next
	waiting  bool   // the next task has failed and waits for its next attempt
	input    json.RawMessage
	failures int // of the next task in this run
	lost     int // lost attempts of the next task in this run
	open     openAttempt
	failure  lastFailure
	sinceMS  int64 // record time at which the next task became runnable; for Next only
}

// openAttempt is the zero value when there is none: a worker has a name.
type openAttempt struct {
	id        int64
	claim     int64
	worker    string
	startedMS int64 // record time, for Next only
	// draining: the worker has released its claim and still runs the handler.
	// Advice to Next; no rule looks at it.
	draining bool
	graceMS  int64 // what is left of its shutdown grace; 0: the process lives on
	// deferred: no process holds the attempt, its outcome comes from outside.
	deferred   bool
	deferredMS int64 // record time, for Next only
}

// lastFailure is what Next needs of the failure before a waiting attempt.
type lastFailure struct {
	attemptID    int64
	timeMS       int64
	retryAfterMS int64
}

func (c *chain) task() *Task  { return &c.tasks[c.next] }
func (c *chain) isOpen() bool { return c.open.worker != "" }

// step goes on to the next task and returns false when there is none.
func (c *chain) step(input json.RawMessage, nowMS int64) bool {
	c.next++
	c.waiting, c.input, c.sinceMS = false, input, nowMS
	c.failures, c.lost, c.failure = 0, 0, lastFailure{}
	return c.next < len(c.tasks)
}

func (r *run) runID() RunID { return RunID{Collection: r.id, Run: r.number} }

func (r *run) lane() lane { return lane{r.tenant, r.orderingKey} }

// A FailedTask is the task at which a run failed.
type FailedTask struct {
	ID    uuid.UUID   `json:"id"`
	Type  string      `json:"type"`
	Error FailedError `json:"error"`
}

// A FailedError is the part of a [TaskError] that is for everybody.
type FailedError struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

// FinallyInput is what finally tasks get as their input, in JSON.
type FinallyInput struct {
	Run        int         `json:"run"`
	Status     Status      `json:"status"` // succeeded, failed or canceled
	FailedTask *FailedTask `json:"failed_task,omitempty"`
	Name       string      `json:"name"`
	FinishedAt time.Time   `json:"finished_at"` // record time of the run's end
}

// handed returns what the handler of the next task gets beside its args.
func (r *run) handed() json.RawMessage {
	switch {
	case r.task().Immutable:
		return nil
	case r.kind == KindTask:
		return r.input
	}
	// A broker's clock may say anything; RFC 3339 has four digits for the year.
	endedMS := min(max(r.endedMS, 0), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli())
	b, err := marshal(FinallyInput{
		Run: r.number, Status: r.status, FailedTask: r.failed, Name: r.name, FinishedAt: time.UnixMilli(endedMS).UTC(),
	})
	if err != nil {
		panic("ledger: encode the input of finally tasks: " + err.Error()) // plain text and numbers, checked before
	}
	return b
}

// find returns the run, active or with finally tasks under way, or nil.
func (p *Partition) find(id RunID) *run {
	if r := p.active[id.Collection]; r != nil && r.number == id.Run {
		return r
	}
	for _, r := range p.ending[id.Collection] {
		if r.number == id.Run {
			return r
		}
	}
	return nil
}

// isHead reports whether a run is the first of its lane, which all runs without
// an ordering key are.
func (p *Partition) isHead(r *run) bool {
	return r.orderingKey == "" || p.lanes[r.lane()][0] == r.id
}

func (p *Partition) joinLane(r *run) {
	if r.orderingKey != "" {
		p.lanes[r.lane()] = append(p.lanes[r.lane()], r.id)
	}
}

// leaveLane takes a run out of its lane, wherever it stands.
func (p *Partition) leaveLane(r *run) {
	if r.orderingKey == "" {
		return
	}
	ids := p.lanes[r.lane()]
	i := slices.Index(ids, r.id)
	if i == 0 {
		ids = ids[1:]
	} else {
		ids = slices.Delete(ids, i, i+1)
	}
	if len(ids) == 0 {
		delete(p.lanes, r.lane())
		return
	}
	p.lanes[r.lane()] = ids
	if i == 0 {
		p.touch(p.active[ids[0]].runID())
	}
}

// open is the effect of R3 and R8: a new run into A, at its lane's tail.
func (p *Partition) open(r *run) {
	p.active[r.id] = r
	p.joinLane(r)
	p.out.Collections = append(p.out.Collections, CollectionChange{ID: r.id, Tenant: r.tenant, Run: r.number, Status: StatusPending})
	p.out.Runs = append(p.out.Runs, RunChange{Collection: r.id, Run: r.number, Status: StatusPending})
}

// end is the effect of a run's end: out of A and its lane, into Win, and into P
// for its finally tasks. What was not done of a canceled run is reported as
// canceled.
func (p *Partition) end(x *Parsed, r *run, s Status, failed *Task, e *TaskError) {
	delete(p.active, r.id)
	p.leaveLane(r)
	p.win.add(r.id, x.Offset)
	change := RunChange{Collection: r.id, Run: r.number, Status: s, Error: e}
	if failed != nil {
		change.FailedTask = failed.ID
	}
	p.out.Collections = append(p.out.Collections, CollectionChange{ID: r.id, Tenant: r.tenant, Run: r.number, Status: s})
	p.out.Runs = append(p.out.Runs, change)
	if s == StatusCanceled {
		p.reportCanceled(r)
	}
	if len(r.finally) == 0 {
		return
	}
	ended := &run{
		id: r.id, number: r.number, kind: KindFinally, tenant: r.tenant, name: r.name, status: s, endedMS: x.TimeMS,
		chain: chain{tasks: slices.Clone(r.finally), sinceMS: x.TimeMS},
	}
	if failed != nil {
		ended.failed = &FailedTask{ID: failed.ID, Type: failed.Type, Error: FailedError{Code: e.Code, Message: e.Message}}
	}
	p.ending[r.id] = append(p.ending[r.id], ended)
}

// finish takes a run whose finally tasks are done out of P.
func (p *Partition) finish(r *run) {
	runs := p.ending[r.id]
	if len(runs) == 1 {
		delete(p.ending, r.id)
		return
	}
	i := slices.Index(runs, r)
	p.ending[r.id] = slices.Delete(runs, i, i+1)
}

func (p *Partition) reportCanceled(r *run) {
	for i := r.next; i < len(r.tasks); i++ {
		t := &r.tasks[i]
		if n := len(p.out.Tasks); n > 0 && p.out.Tasks[n-1].ID == t.ID {
			continue // its last attempt has just failed, which says more
		}
		p.out.Tasks = append(p.out.Tasks, TaskChange{
			Collection: r.id, ID: t.ID, TaskKind: KindTask, Index: t.Index, Run: r.number,
			Status: StatusCanceled, Attempts: t.Attempts, AttemptID: -1,
		})
	}
}
