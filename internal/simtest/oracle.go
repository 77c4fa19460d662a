package simtest

import (
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// oracle is a second opinion about the log. It shares no code with the fold and
// is built the other way round: it never forgets anything, keeps what was
// accepted as facts, and derives from the facts whether the next record may be
// accepted and what it must change.
type oracle struct {
	w        *world
	opened   bool
	window   int64
	position int64 // next offset
	claims   map[string]*claimFact
	lives    map[uuid.UUID]*life
	order    []*life // as first met
	attempts map[int64]*attemptFact
	open     []*attemptFact // attempts without an end, by id
	lanes    map[lane][]*runFact
	counts   counts
}

// counts is what quiescence and bounds are about.
type counts struct {
	active  int // runs that have not ended
	pending int // ended runs with finally tasks under way
}

type lane struct{ tenant, key string }

type claimFact struct {
	offset   int64
	queue    string
	worker   string
	released bool
}

// life is all that ever happened to one collection.
type life struct {
	id        uuid.UUID
	runs      []*runFact              // in log order
	active    *runFact                // the run that has not ended, if any
	creations int                     // accepted CollectionCreated
	starts    map[int]int             // accepted starts of each chain task, over all runs
	results   map[int]json.RawMessage // of each chain task that ever succeeded, the last one
	lastEnd   int64                   // offset at which a run ended last, -1 for never
}

// runFact is one accepted CollectionCreated or RetryRequested and what followed.
type runFact struct {
	id         ledger.RunID
	life       *life
	tenant     string
	name       string
	lane       lane
	opened     int64
	bytes      int // of the record that opened it
	first      int // index of its first task in the chain
	count      int // tasks of the whole chain
	input      json.RawMessage
	canceled   int64 // offset of the accepted cancel, -1 for none
	ended      int64 // -1 while it runs
	endedMS    int64
	status     ledger.Status
	failed     *taskFact // the task that failed the run
	failure    ledger.TaskError
	chain      []*taskFact
	after      []*taskFact // finally tasks
	afterStart bool        // ended with finally tasks: they may start
}

// taskFact is one task within one run.
type taskFact struct {
	run      *runFact
	kind     ledger.Kind
	def      ledger.Task
	starts   int // accepted in this run
	failures int
	lost     int
	success  int64 // offset, -1 for none
	gaveUp   bool  // failed for good
	result   json.RawMessage
	open     *attemptFact
	handlers int // handlers started, in this run
	// waits: its last attempt has failed and the next one comes by itself, so
	// long after a time.
	waits        bool
	failedMS     int64
	retryAfterMS int64
}

type attemptFact struct {
	id       int64
	task     *taskFact
	number   int
	claim    int64
	worker   string
	deferred int64 // offset of its accepted TaskDeferred, -1 for none
	deferMS  int64 // and its record time
	draining bool  // its worker gave the claim back and named it
	graceMS  int64
	closed   int64 // -1 while open
	closedMS int64 // when the record landed, by nobody's clock
	status   ledger.Status
	handlers int // handlers started for it
}

func newOracle(w *world) *oracle {
	return &oracle{
		w: w, claims: map[string]*claimFact{}, lives: map[uuid.UUID]*life{},
		attempts: map[int64]*attemptFact{}, lanes: map[lane][]*runFact{},
	}
}

// record compares the oracle's opinion of a record with the fold's outcome.
func (o *oracle) record(e *entry) {
	offset := e.record.Offset
	accepted := e.saved.verdict == ledger.Accepted
	switch e.saved.verdict {
	case ledger.Accepted, ledger.Duplicate, ledger.Stale, ledger.Invalid, ledger.Foreign:
	default:
		o.w.violated("VERDICT", "offset %d got the verdict %q", offset, e.saved.verdict)
	}
	if !accepted && !e.saved.empty() {
		o.w.violated("NOEFFECT", "the refused record at offset %d changed something", offset)
	}
	if e.parsed.Event == nil {
		if accepted {
			o.w.violated("VERDICT", "a record without an event was accepted at offset %d", offset)
		}
		o.position = offset + 1
		return
	}
	if o.w.honest && e.saved.reason == ledger.ReasonAhead {
		o.w.violated("G13", "an honest author knew at offset %d of records that there are not", offset)
	}
	broken := o.judge(e.parsed.Event, offset)
	switch {
	case accepted && broken != (clause{}):
		o.w.violated(broken.invariant, "%s at offset %d was accepted: %s", e.parsed.Event.EventName(), offset, broken.text)
	case !accepted && broken == (clause{}):
		o.w.violated("REFUSED", "%s at offset %d was refused as %s(%s), and nothing speaks against it", e.parsed.Event.EventName(),
			offset, e.saved.verdict, e.saved.reason)
	case accepted:
		d := draft{o: o, offset: offset, timeMS: e.record.TimeMS, bytes: len(e.record.Value)}
		d.apply(e.parsed.Event)
		d.compare(&e.saved)
	}
	o.position = offset + 1
}

// A clause is a condition that a record breaks: the invariant it is part of,
// and how. The zero value means none.
type clause struct{ invariant, text string }

// judge tells what speaks against accepting an event at an offset.
func (o *oracle) judge(e ledger.Event, offset int64) clause {
	if e, ok := e.(ledger.LedgerOpened); ok {
		if o.opened {
			return clause{"R1", "the partition is open already"}
		}
		_ = e
		return clause{}
	}
	if !o.opened {
		return clause{"R1", "the partition is not open yet"}
	}
	switch e := e.(type) {
	case ledger.CollectionCreated:
		return o.judgeCreated(e, offset)
	case ledger.RetryRequested:
		return o.judgeRetry(e, offset)
	case ledger.CancelRequested:
		return o.judgeCancel(e)
	case ledger.PartitionClaimed:
		return o.judgeClaimed(e)
	case ledger.PartitionReleased:
		return o.judgeReleased(e)
	case ledger.TaskStarted:
		return o.judgeStarted(e)
	case ledger.TaskSucceeded:
		return o.judgeOutcome(ledger.RunID{Collection: e.CollectionID, Run: e.Run}, e.Tenant, e.TaskID, e.AttemptID, e.Worker)
	case ledger.TaskFailed:
		return o.judgeFailed(e)
	case ledger.TaskDeferred:
		return o.judgeDeferred(e)
	default:
		return clause{"R1", "this build knows no other rules"}
	}
}

// find returns the run of a collection that is active or has finally tasks
// under way.
func (o *oracle) find(id ledger.RunID) *runFact {
	l := o.lives[id.Collection]
	if l == nil {
		return nil
	}
	// Careless authors number runs as they like: several may bear one number,
	// of which at most one is alive.
	for _, r := range slices.Backward(l.runs) {
		if r.id == id && (r.ended < 0 || r.pending()) {
			return r
		}
	}
	return nil
}

// current returns the task of a run that runs or comes next, nil when the run
// has nothing left.
func (r *runFact) current() *taskFact {
	list := r.chain
	if r.ended >= 0 {
		list = r.after
	}
	for _, t := range list {
		if t.success < 0 && !t.gaveUp {
			return t
		}
	}
	return nil
}

// pending reports whether an ended run has finally tasks under way.
func (r *runFact) pending() bool { return r.ended >= 0 && r.afterStart && r.current() != nil }

// bound is how many bytes a snapshot may need: what is active, what is pending,
// the window and the claims, each with room for its state. Nothing else may be
// remembered.
func (o *oracle) bound() int {
	const perRun, perEnd, perClaim, rest = 1500, 64, 400, 600
	n := rest + perClaim*len(o.claims)
	for _, l := range o.order {
		for _, r := range l.runs {
			if r.ended < 0 || r.pending() {
				n += perRun + 2*r.bytes
			}
			if r.ended >= o.position-o.window {
				n += perEnd
			}
		}
	}
	return n
}
