package simtest

import (
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// A phase says what an owner of a queue may do.
type phase int

const (
	parked    phase = iota // not assigned
	restoring              // assigned: folds to a log end learnt since, without acting
	claiming               // a PartitionClaimed is under way
	active                 // the claim is its own, read back
	fenced                 // assigned, but the claim is someone else's
)

// owner is what a process knows about one queue of the partition.
type owner struct {
	p      *process
	queue  string
	phase  phase
	wanted bool  // assigned, and not revoked since
	from   int64 // a log end learnt after the assignment
	claim  int64 // the own claim it acts under, -1 for none
	// releasing is the claim it has decided to give back and has not read back,
	// -1 for none. Nothing is started under it any more.
	releasing int64
	pending   []*sent // starts and takeovers under way, at most one per run
	takeovers []takeover
	refusals  []refusal
	standing  []standing
	patience  int64 // the lease with jitter
}

// A takeover is the wait for an attempt of another worker, on a clock of its
// own: it begins when this owner first sees the attempt, and again when it sees
// that its worker has released it.
type takeover struct {
	attemptID int64
	waitMS    int64
	sinceMS   int64
}

// A refusal counts how often the fold has refused the same action.
type refusal struct {
	action ledger.Action
	reason ledger.Reason
	times  int
}

// standing is work that the holder of the claim leaves untouched.
type standing struct {
	action  ledger.Action
	sinceMS int64
}

func newOwner(p *process, queue string) *owner {
	return &owner{p: p, queue: queue, claim: -1, releasing: -1}
}

func (o *owner) assigned() {
	o.wanted = true
	if o.phase != parked {
		return
	}
	o.phase, o.from = restoring, o.p.w.end()
}

// revoked: stop starting, give the claim back.
func (o *owner) revoked() {
	o.wanted = false
	o.giveBack(0)
	o.phase = parked
	o.dropPending()
}

// stop is the owner's part of a shutdown.
func (o *owner) stop() {
	o.wanted = false
	o.giveBack(graceMS)
	o.phase = parked
	o.dropPending()
}

// giveBack is the decision to release: from here on no handler is started for
// what is read back later under this claim.
func (o *owner) giveBack(grace int64) {
	p := o.p
	p.toRun = slices.DeleteFunc(p.toRun, func(s starting) bool { return s.owner == o })
	if o.claim < 0 || o.releasing >= 0 {
		return
	}
	e := ledger.PartitionReleased{Queue: o.queue, Claim: o.claim, Worker: p.worker, Running: []int64{}, GraceMS: grace}
	for _, h := range p.held {
		if h.queue == o.queue && !h.foreign {
			e.Running = append(e.Running, h.attempt.ID)
		}
	}
	o.releasing, o.claim = o.claim, -1
	p.w.note(p.worker, "releases", o.releasing)
	if m, ok := p.w.mustEncode("executor", e); ok {
		p.send(&sent{kind: sentRelease, message: m, owner: o})
	}
}

// dropPending forgets starts and takeovers whose fate is unknown: the fold will
// tell.
func (o *owner) dropPending() {
	for _, s := range o.pending {
		o.p.forget(s)
	}
	o.pending, o.takeovers, o.refusals, o.standing = nil, nil, nil, nil
}

// advanceClaim takes the next step towards the claim.
func (o *owner) advanceClaim() bool {
	if !o.wanted || o.releasing >= 0 || o.p.stopping || !o.p.fresh() {
		return false
	}
	switch o.phase {
	case parked:
		o.phase, o.from = restoring, o.p.w.end() // a release was read back meanwhile
		return true
	case restoring:
		return o.restored()
	case fenced:
		if o.workStands() {
			o.p.w.saw("situation", "claimed again because work stood untouched")
			o.takeClaim()
			return true
		}
	case claiming, active:
	}
	return false
}

// restored decides about the claim once the fold is where the log ended at the
// assignment.
func (o *owner) restored() bool {
	if o.p.reader.fold.Position() < o.from {
		return false
	}
	c, ok := o.p.reader.fold.Claim(o.queue)
	if ok && !c.Released && groupOf(c.Worker) != o.p.host.group.name && !o.p.w.memberGone(c.Worker) {
		o.p.w.saw("situation", "claim of a live member of another set left alone")
		o.fence()
		return true
	}
	o.takeClaim()
	return true
}

// takeClaim appends a claim that names the one it replaces.
func (o *owner) takeClaim() {
	prev := int64(-1)
	if c, ok := o.p.reader.fold.Claim(o.queue); ok {
		prev = c.Offset
	}
	o.phase = claiming
	o.p.w.note(o.p.worker, "claims "+o.queue, prev)
	if m, ok := o.p.w.mustEncode("executor", ledger.PartitionClaimed{Queue: o.queue, Prev: prev, Worker: o.p.worker}); ok {
		o.p.send(&sent{kind: sentClaim, message: m, owner: o})
	}
}

// claimRead follows every accepted claim of the queue.
func (o *owner) claimRead(offset int64, worker string) {
	own := worker == o.p.worker
	switch {
	case own && (!o.wanted || o.p.stopping):
		o.claim = offset // it came too late: nobody wants it any more
		o.giveBack(0)
	case own:
		o.sawAdoption(offset)
		o.claim, o.phase = offset, active
		o.dropPending() // what was sent under an earlier claim is refused
	case o.claim >= 0:
		o.p.w.saw("situation", "fenced by another claim")
		o.giveBack(0)
		o.dropPending()
		o.fence()
	}
}

func (o *owner) sawAdoption(claim int64) {
	for _, h := range o.p.held {
		if h.queue == o.queue && h.attempt.Claim != claim {
			o.p.w.saw("situation", "adopted an attempt")
		}
	}
}

// releaseRead follows every accepted release of the queue's claim.
func (o *owner) releaseRead(e ledger.PartitionReleased) {
	if e.Worker != o.p.worker || e.Claim != o.claim {
		return
	}
	// Somebody released in our name. Whatever it closed is closed.
	o.claim = -1
	o.p.toRun = slices.DeleteFunc(o.p.toRun, func(s starting) bool { return s.owner == o })
	o.dropPending()
	o.fence()
}

// fence waits: two owners that both believe in their assignment would otherwise
// take the claim from one another for as long as they overlap.
func (o *owner) fence() {
	if !o.wanted {
		o.phase = parked
		return
	}
	o.phase = fenced
	o.standing = nil
	o.patience = leaseMS + int64(o.p.w.dice.between(0, leaseMS/2))
}

// workStands reports whether the claim is free, or work that Next names for its
// holder has stood untouched for the lease.
func (o *owner) workStands() bool {
	p := o.p
	c, ok := p.reader.fold.Claim(o.queue)
	if !ok || c.Released || c.Worker == p.worker {
		return true
	}
	before := o.standing
	o.standing = nil
	stands := false
	for _, a := range p.reader.fold.Next(o.queue, c.Worker, holdsNothing) {
		if !o.idleWork(&a) {
			continue
		}
		s := standing{action: a, sinceMS: p.w.nowMS}
		if i := slices.IndexFunc(before, func(b standing) bool { return b.action == a }); i >= 0 {
			s.sinceMS = before[i].sinceMS
		}
		o.standing = append(o.standing, s)
		stands = stands || p.w.nowMS-s.sinceMS >= o.patience
	}
	return stands
}

// idleWork reports whether the holder of the claim leaves an action undone: one
// that is due, but no attempt that a live worker may be at.
func (o *owner) idleWork(a *ledger.Action) bool {
	p := o.p
	open, isOpen := p.reader.fold.OpenAttempt(a.RunID())
	if a.AttemptID < 0 || !isOpen || open.Deferred {
		return a.BaseMS == 0 || p.w.nowMS >= a.BaseMS+a.WaitMS
	}
	if p.holds(open.ID) {
		return false
	}
	overdue := p.w.nowMS > open.StartedMS+open.Task.TimeoutMS+leaseMS
	return overdue || open.Worker == p.worker || p.w.memberGone(open.Worker)
}

func holdsNothing(int64) bool { return false }
