package executor

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// A standing says where an owner stands with one queue of its partition.
type standing int

const (
	// idle: the partition is not assigned, or not folded to its end yet.
	idle standing = iota
	// claiming: a PartitionClaimed is under way.
	claiming
	// active: the claim is ours, read back.
	active
	// fenced: assigned, but the claim is someone else's, or was given back by
	// somebody else.
	fenced
)

// A tenure is an owner's right to one queue of its partition: how it comes by
// the claim, and how it loses it.
type tenure struct {
	queue    string
	standing standing
	// claim is the own claim that is acted under, -1 for none.
	claim int64
	// releasing is the own claim whose release was decided and has not been read
	// back, -1 for none. Nothing is ever started under it again.
	releasing int64
	scan      bool // ask about all runs: the claim is new

	// While fenced: since when work has stood untouched.
	fencedAt  time.Time
	untouched map[actionID]time.Time
	checkAt   time.Time       // of the next look at it
	patience  time.Duration   // the lease with jitter
	sets      map[string]bool // whose members are of interest
}

type actionID struct {
	run    ledger.RunID
	action actionKey
}

func newTenure(queue string) *tenure {
	return &tenure{queue: queue, claim: -1, releasing: -1, sets: make(map[string]bool)}
}

// checksPerLease is how often a fenced owner looks for untouched work.
const checksPerLease = 5

// advanceClaim takes the next step towards the claim. Nothing is claimed while
// the release of an earlier claim is under way: that one is never acted under
// again, and the fold would not tell the two apart.
func (o *owner) advanceClaim(ctx context.Context, t *tenure, now time.Time) {
	if o.phase != present || o.stopping || t.releasing >= 0 {
		return
	}
	switch t.standing {
	case idle:
		// A queue that a worker of another set serves is left to it: taking it
		// would interrupt what runs.
		if c, ok := o.fold.Claim(t.queue); ok && !c.Released && setOf(c.Worker) != o.x.set {
			o.fence(t, now)
			return
		}
		o.takeClaim(ctx, t)
	case fenced:
		if o.mayReclaim(t, now) {
			o.takeClaim(ctx, t)
		}
	case claiming, active:
	}
}

// takeClaim appends a claim that names the one it replaces.
func (o *owner) takeClaim(ctx context.Context, t *tenure) {
	prev := int64(-1)
	if c, ok := o.fold.Claim(t.queue); ok {
		prev = c.Offset
	}
	msg, err := o.x.encode(o.partition, ledger.PartitionClaimed{Queue: t.queue, Prev: prev, Worker: o.x.worker})
	if err != nil {
		o.stop(ctx, err)
		return
	}
	o.enter(t, claiming)
	o.send(&sent{kind: sentClaim, tenure: t, msg: msg})
}

// giveBack appends a release of the claim, if it is held. It is the decision to
// start nothing more under it: also what is read back accepted later gets no
// handler. The release names the attempts whose handler was ever started, and
// the fold closes the others as never started.
func (o *owner) giveBack(ctx context.Context, t *tenure, grace time.Duration) {
	o.dropToRun(t.queue)
	if t.claim < 0 {
		return
	}
	e := ledger.PartitionReleased{
		Queue: t.queue, Claim: t.claim, Worker: o.x.worker, Running: []int64{}, GraceMS: grace.Milliseconds(),
	}
	for id, a := range o.held {
		if a.def.Task.Queue == t.queue {
			e.Running = append(e.Running, id)
		}
	}
	slices.Sort(e.Running)
	t.claim, t.releasing = -1, t.claim
	msg, err := o.x.encode(o.partition, e)
	if err != nil {
		o.stop(ctx, err)
		return
	}
	o.logger.DebugContext(ctx, "claim given back", slog.String("queue", t.queue), slog.Int64("claim", e.Claim), slog.Int("attempts", len(e.Running)))
	o.send(&sent{kind: sentRelease, tenure: t, msg: msg})
}

// claimRead follows an accepted claim of the queue.
func (o *owner) claimRead(ctx context.Context, t *tenure, offset int64, worker string, now time.Time) {
	own := worker == o.x.worker
	switch {
	case own && (o.phase != present || o.stopping):
		t.claim = offset // it came too late: nobody wants it any more
		o.giveBack(ctx, t, 0)
	case own:
		o.deactivate(t) // what was sent under an earlier claim is refused
		t.claim = offset
		o.enter(t, active)
		t.scan = true
		o.logger.DebugContext(ctx, "queue claimed", slog.String("queue", t.queue), slog.Int64("claim", offset))
	case t.claim >= 0:
		o.giveBack(ctx, t, 0)
		o.fence(t, now)
	}
}

// releaseRead follows an accepted release, whose touched runs have attempts that
// drain, or that were closed because no handler of theirs was ever started. One
// of our claim that is not ours is somebody's mistake: whatever it closed is
// closed, and the claim is taken again when it has stood free for the lease.
func (o *owner) releaseRead(ctx context.Context, e ledger.PartitionReleased, touched []ledger.RunID, now time.Time) {
	for _, id := range touched {
		o.endTakeover(id) // what drains is waited for from here on
	}
	t := o.tenures[e.Queue]
	if t == nil || e.Worker != o.x.worker || e.Claim != t.claim {
		return
	}
	o.logger.WarnContext(ctx, "the claim was given back by somebody else; no task is started until it is taken again",
		slog.String("queue", t.queue), slog.Int64("claim", t.claim))
	t.claim = -1
	o.dropToRun(t.queue)
	o.fence(t, now)
}

// claimReadBack follows the verdict of an own claim.
func (o *owner) claimReadBack(ctx context.Context, t *tenure, out *ledger.Outcome, now time.Time) {
	switch {
	case out.Verdict == ledger.Invalid:
		o.stop(ctx, &refusedError{what: "the claim of queue " + t.queue, reason: out.Reason})
	case out.Verdict != ledger.Accepted && t.standing == claiming:
		o.fence(t, now)
	}
}

// fence waits until the claim of another process turns out to be idle. Two
// owners that both believe in their assignment would otherwise take the claim,
// and each other's attempts, from one another for as long as they overlap.
func (o *owner) fence(t *tenure, now time.Time) {
	o.enter(t, fenced)
	t.fencedAt, t.checkAt = now, time.Time{}
	t.untouched = make(map[actionID]time.Time)
	t.patience = o.x.lease + rand.N(o.x.lease/2+1)
	if c, ok := o.fold.Claim(t.queue); ok {
		o.watchSet(t, c.Worker)
	}
}

// watchSet makes the members of a worker's set known to a fenced tenure.
func (o *owner) watchSet(t *tenure, worker string) {
	if set := setOf(worker); !t.sets[set] {
		t.sets[set] = true
		o.interest.add(set)
	}
}

// mayReclaim reports whether the claim of another worker may be taken: because
// work has stood untouched for the lease, the claim has stood free for so long,
// or its holder belongs to another set and is gone, having given it back or not.
// While that one lives, another of its set is to go on.
func (o *owner) mayReclaim(t *tenure, now time.Time) bool {
	if now.Before(t.checkAt) {
		return false
	}
	t.checkAt = now.Add(o.x.lease / checksPerLease)
	if !o.fresh.within(o.x.lease, now) {
		return false
	}
	holder, ok := o.fold.Claim(t.queue)
	if !ok {
		return true
	}
	if setOf(holder.Worker) != o.x.set && o.members.gone(holder.Worker, t.fencedAt) {
		return true
	}
	work := o.idleWork(t, &holder, now)
	before := t.untouched
	t.untouched = make(map[actionID]time.Time, len(work))
	stands := false
	for _, id := range work {
		since, seen := before[id]
		if !seen {
			since = now
		}
		t.untouched[id] = since
		stands = stands || now.Sub(since) >= t.patience
	}
	return stands
}

// idleWork is what the holder of the claim leaves undone. A claim that was given
// back is idle as such: nobody holds it.
func (o *owner) idleWork(t *tenure, holder *ledger.Claim, now time.Time) []actionID {
	if holder.Released {
		return []actionID{{action: actionKey{claim: holder.Offset}}}
	}
	var work []actionID
	// The holder's view, as if it held no handler: what it should have started,
	// and all open attempts.
	for _, a := range o.fold.Next(t.queue, holder.Worker, func(int64) bool { return false }) {
		if o.isIdleWork(t, &a, now) {
			work = append(work, actionID{run: a.RunID(), action: keyOf(&a)})
		}
	}
	return work
}

// isIdleWork reports whether the holder of the claim leaves work undone: a start
// that is due, the end of a deferred attempt that is, or an attempt whose worker
// is gone. The attempt of a worker that lives, or of this one, is not idle.
func (o *owner) isIdleWork(t *tenure, a *ledger.Action, now time.Time) bool {
	open, ok := o.fold.OpenAttempt(a.RunID())
	switch {
	case a.BaseMS > 0 && o.clock.when(a.BaseMS+a.WaitMS).After(now):
		return false
	case !ok:
		// What nobody here could start either is left where it is, be it for want
		// of a handler or of a slot: the claim would go to and fro.
		return o.x.handlers[a.TaskType] != nil && o.x.slots.hasRoom(o.x.slots.class(a.TaskType))
	case open.Deferred:
		return true
	case o.holds(open.ID):
		return false
	}
	o.watchSet(t, open.Worker)
	// A worker that lives may still have no handler for it: its start was read
	// back when the partition had just been taken from it. Nobody else can know
	// before the time that the task may take is over.
	overdue := o.clock.when(open.StartedMS + open.Task.TimeoutMS).Add(o.x.lease).Before(now)
	return overdue || open.Worker == o.x.worker || o.members.gone(open.Worker, o.assignedAt)
}

// progress notes that the holder of a claim is at work.
func (t *tenure) progress() { clear(t.untouched) }

// enter changes where a tenure stands.
func (o *owner) enter(t *tenure, s standing) {
	if t.standing == active {
		o.deactivate(t)
		o.x.metrics.partitions.WithLabelValues("active").Dec()
	}
	if t.standing == fenced {
		for set := range t.sets {
			o.interest.remove(set)
		}
		clear(t.sets)
		t.untouched = nil
	}
	if s == active {
		o.x.metrics.partitions.WithLabelValues("active").Inc()
	}
	t.standing = s
}

// deactivate gives up what only the holder of the claim may do, and the starts
// whose fate is not known: the fold will tell the next owner. What belongs to
// other queues is found again.
func (o *owner) deactivate(t *tenure) {
	for _, s := range o.sent {
		if s.tenure != t || s.kind != sentStart && s.kind != sentTakeover && s.kind != sentClaim {
			continue
		}
		o.forget(s)
		if s.kind == sentStart {
			o.x.slots.release(s.class)
		}
	}
	for id, w := range o.takeovers {
		if w.queue == t.queue {
			o.endTakeover(id)
		}
	}
	clear(o.ready)
	o.timers.clear()
	clear(o.refused)
	o.unserved.nobodyWaits()
	for _, other := range o.tenures {
		other.scan = other.scan || other != t && other.standing == active
	}
}
