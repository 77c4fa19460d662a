package executor

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// claims is what an owner knows about the right to its queue beside the fold.
type claims struct {
	assignedAt time.Time
	// standing is since when work has stood untouched, seen while fenced.
	standing map[actionID]time.Time
	checkAt  time.Time     // of the next look at standing work
	patience time.Duration // the lease with jitter
}

type actionID struct {
	run    ledger.RunID
	action actionKey
}

// progress notes that the holder of the claim is at work.
func (c *claims) progress() { clear(c.standing) }

// checksPerLease is how often a fenced owner looks for untouched work.
const checksPerLease = 5

// freshness is how recent an owner's knowledge of the log is: it was folded to
// a log end that a broker gave at that time. A process that was paused, or lost
// its brokers, finds its knowledge old and starts nothing until it caught up.
type freshness struct {
	at    time.Time
	ahead []logEnd // log ends beyond the fold, oldest first
}

type logEnd struct {
	offset int64
	at     time.Time // when it was asked for
}

// mostEnds bounds the log ends that are remembered. The oldest are kept, since
// they are reached first.
const mostEnds = 16

func (f *freshness) ended(e logEnd, position int64) {
	if len(f.ahead) < mostEnds {
		f.ahead = append(f.ahead, e)
	}
	f.reach(position)
}

func (f *freshness) reach(position int64) {
	n := 0
	for n < len(f.ahead) && f.ahead[n].offset <= position {
		f.at = f.ahead[n].at
		n++
	}
	f.ahead = append(f.ahead[:0], f.ahead[n:]...)
}

func (f *freshness) within(lease time.Duration, now time.Time) bool {
	return !f.at.IsZero() && now.Sub(f.at) < lease
}

// A membership is who was in the consumer group at a time.
type membership struct {
	workers map[string]bool
	at      time.Time
}

// gone reports whether a worker is known to have left the group after a time.
func (m *membership) gone(worker string, since time.Time) bool {
	return m.workers != nil && !m.at.Before(since) && !m.workers[worker]
}

// assigned is the group's suggestion to own the partition.
func (o *owner) assigned(ctx context.Context, now time.Time) {
	if o.phase != parked {
		return
	}
	if o.stopDrain != nil {
		o.stopDrain()
		o.stopDrain = nil
	}
	o.claims = claims{assignedAt: now, standing: make(map[actionID]time.Time)}
	o.fresh = freshness{}
	o.enter(restoring)
	o.logger.DebugContext(ctx, "partition assigned", slog.Int64("position", o.fold.Position()))
}

// revoked ends it: handlers finish and report, and nothing more is started.
func (o *owner) revoked(ctx context.Context, now time.Time) {
	if o.phase == stopped || o.phase == parked {
		return
	}
	o.enter(parked)
	o.deactivate()
	o.parkedAt = now
	o.logger.DebugContext(ctx, "partition revoked", slog.Int("held_attempts", len(o.held)))
}

// advanceClaim takes the next step towards the claim.
func (o *owner) advanceClaim(ctx context.Context, now time.Time) {
	switch o.phase {
	case restoring:
		// Folded to a log end learnt after the assignment. A claim that is still
		// ours needs no new one: whoever took it since would be in the log.
		if o.fresh.at.Before(o.claims.assignedAt) || o.stopping {
			return
		}
		if c, ok := o.fold.Claim(o.queue); ok && c.Worker == o.x.worker && !c.Released {
			o.enter(active)
			return
		}
		o.claim(ctx)
	case fenced:
		if o.workStands(now) {
			o.claim(ctx)
		}
	case parked, claiming, active, stopped:
	}
}

func (o *owner) claim(ctx context.Context) {
	prev := int64(-1)
	if c, ok := o.fold.Claim(o.queue); ok {
		prev = c.Offset
	}
	msg, err := o.x.encode(o.partition, ledger.PartitionClaimed{Queue: o.queue, Prev: prev, Worker: o.x.worker})
	if err != nil {
		o.stop(ctx, err)
		return
	}
	o.enter(claiming)
	o.send(&sent{kind: sentClaim, msg: msg})
}

// claimRead follows an accepted claim of the queue.
func (o *owner) claimRead(worker string) {
	own := worker == o.x.worker
	switch {
	case o.phase == parked || o.phase == restoring || o.phase == stopped:
	case own && o.phase != active && !o.stopping:
		o.enter(active)
	case own:
		o.scan = true // a second claim of ours: what was sent under the first is refused
	case !own && o.phase == active:
		o.fence()
	}
}

// releaseRead follows an accepted release, whose touched runs have attempts that
// drain, or that were closed because no handler of theirs was ever started. This
// process writes no release, so one of its own claim is somebody's mistake; the
// claim is taken again when it has stood free for the lease.
func (o *owner) releaseRead(ctx context.Context, e ledger.PartitionReleased, touched []ledger.RunID) {
	for _, id := range touched {
		o.endTakeover(id) // what drains is waited for from here on
	}
	c, ok := o.fold.Claim(o.queue)
	if !ok || e.Queue != o.queue || e.Claim != c.Offset || o.phase != active {
		return
	}
	o.logger.WarnContext(ctx, "the claim was given back by somebody else; no task is started until it is taken again",
		slog.Int64("claim", c.Offset))
	o.fence()
}

// claimReadBack follows the verdict of an own claim.
func (o *owner) claimReadBack(ctx context.Context, out *ledger.Outcome) {
	switch {
	case out.Verdict == ledger.Accepted:
		o.logger.DebugContext(ctx, "partition claimed", slog.Int64("claim", out.Offset))
	case out.Verdict == ledger.Invalid:
		o.stop(ctx, &refusedError{what: "the claim", reason: out.Reason})
	case o.phase == claiming:
		o.fence()
	}
}

// fence waits until the claim of another process turns out to be idle. Two
// owners that both believe in their assignment would otherwise take the claim,
// and each other's attempts, from one another for as long as they overlap.
func (o *owner) fence() {
	o.enter(fenced)
	o.claims.standing = make(map[actionID]time.Time)
	o.claims.checkAt = time.Time{}
	o.claims.patience = o.x.lease + rand.N(o.x.lease/2+1)
	o.wantsMembers.Store(true)
}

// workStands reports whether work that this owner could do has stood untouched
// for the lease, while another worker holds the claim, or whether the claim has
// stood free for so long.
func (o *owner) workStands(now time.Time) bool {
	if now.Before(o.claims.checkAt) {
		return false
	}
	o.claims.checkAt = now.Add(o.x.lease / checksPerLease)
	if o.stopping || !o.fresh.within(o.x.lease, now) {
		return false
	}
	holder, ok := o.fold.Claim(o.queue)
	if !ok {
		return true
	}
	idle := o.idleWork(&holder, now)
	before := o.claims.standing
	o.claims.standing = make(map[actionID]time.Time, len(idle))
	stands := false
	for _, id := range idle {
		since, seen := before[id]
		if !seen {
			since = now
		}
		o.claims.standing[id] = since
		stands = stands || now.Sub(since) >= o.claims.patience
	}
	return stands
}

// idleWork is what the holder of the claim leaves undone. A claim that was given
// back is idle as such: nobody holds it.
func (o *owner) idleWork(holder *ledger.Claim, now time.Time) []actionID {
	if holder.Released {
		return []actionID{{action: actionKey{claim: holder.Offset}}}
	}
	var idle []actionID
	// The holder's view, as if it held no handler: what it should have started,
	// and all open attempts.
	for _, a := range o.fold.Next(o.queue, holder.Worker, func(int64) bool { return false }) {
		if o.isIdleWork(&a, now) {
			idle = append(idle, actionID{run: a.RunID(), action: keyOf(&a)})
		}
	}
	return idle
}

// isIdleWork reports whether the holder of the claim leaves work undone: a start
// that is due, the end of a deferred attempt that is, or an attempt whose worker
// is gone. The attempt of a worker that lives, or of this one, is not idle.
func (o *owner) isIdleWork(a *ledger.Action, now time.Time) bool {
	open, ok := o.fold.OpenAttempt(a.RunID())
	switch {
	case !ok || open.Deferred:
		return a.BaseMS == 0 || !o.clock.when(a.BaseMS+a.WaitMS).After(now)
	case o.holds(open.ID):
		return false
	}
	// A worker that lives may still have no handler for it: its start was read
	// back when the partition had just been taken from it. Nobody else can know
	// before the time that the task may take is over.
	overdue := o.clock.when(open.StartedMS + open.Task.TimeoutMS).Add(o.x.lease).Before(now)
	return overdue || open.Worker == o.x.worker || o.members.gone(open.Worker, o.claims.assignedAt)
}
