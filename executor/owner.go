package executor

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// A phase says where an owner stands with its partition.
type phase int

const (
	// parked: the partition is not assigned to this process. Attempts that it
	// still holds are brought to their end.
	parked phase = iota
	// restoring: folding to the log end, without acting.
	restoring
	// present: folded to a log end learned after the assignment. What may be
	// done is up to the claims of the queues.
	present
	// stopped by an error, until the process ends.
	stopped
)

// fetchesQueued bounds how many fetches wait for an owner before the poll loop
// waits too.
const fetchesQueued = 8

// An owner folds one partition and appends what the fold asks for. Its goroutine
// never waits for a handler, an append, the disk or the broker. It lives as long
// as the Executor, so that a partition that leaves and comes back finds its
// running attempts.
type owner struct {
	x         *Executor
	partition int32
	logger    *slog.Logger

	fetches chan eventlog.Fetched
	mail    mailbox
	// resume is where the fold stands: a reader that starts there misses
	// nothing.
	resume   atomic.Pointer[eventlog.Start]
	interest *interest

	// All below belongs to the owner's goroutine.
	fold       *ledger.Partition
	clock      recordClock
	phase      phase
	assignedAt time.Time
	stopping   bool // a shutdown began: nothing is started any more
	tenures    map[string]*tenure
	fresh      freshness
	doubts     int  // log ends in a row that lie before what was read
	doubting   bool // it is being looked into

	// held attempts: the handler runs, or its outcome has not been read back.
	held map[int64]*attempt
	// handlers that run, by task: the same task never runs twice in a process,
	// even when its earlier attempt was closed by someone else.
	handlers map[taskRef]*attempt
	// toRun are own accepted starts whose handler was not started yet, by
	// attempt id. Each has a slot.
	toRun map[int64]toRun

	// sent records have not been read back, by event id; failing of them wait
	// to be appended again.
	sent    map[uuid.UUID]*sent
	failing int
	seq     uint64
	// pending is the start or takeover that is under way for a run.
	pending map[ledger.RunID]*sent
	refused map[ledger.RunID]refusal
	keeping keeping

	touched   []ledger.RunID        // runs of which the fold may now say something else
	ready     map[string]*readyRuns // by class of slots
	granted   map[string]int        // slots got by waiting, not used yet; by class
	timers    timers
	takeovers map[ledger.RunID]takeover
	members   memberships
	unserved  unserved
	snapshots snapshots

	parkedAt  time.Time
	stopDrain context.CancelFunc // nil while no drain runs
	warnedAt  time.Time          // of the last failed append that was logged
}

func newOwner(x *Executor, partition int32) *owner {
	o := &owner{
		x: x, partition: partition,
		logger:    x.logger.With(slog.Int("partition", int(partition))),
		fetches:   make(chan eventlog.Fetched, fetchesQueued),
		mail:      newMailbox(),
		interest:  newInterest(),
		fold:      ledger.NewPartition(partition),
		tenures:   make(map[string]*tenure, len(x.queues)),
		held:      make(map[int64]*attempt),
		handlers:  make(map[taskRef]*attempt),
		toRun:     make(map[int64]toRun),
		sent:      make(map[uuid.UUID]*sent),
		pending:   make(map[ledger.RunID]*sent),
		refused:   make(map[ledger.RunID]refusal),
		ready:     make(map[string]*readyRuns),
		granted:   make(map[string]int),
		timers:    newTimers(),
		takeovers: make(map[ledger.RunID]takeover),
		members:   make(memberships),
		unserved:  newUnserved(x.metrics),
	}
	for _, q := range x.queues {
		o.tenures[q] = newTenure(q)
	}
	o.resume.Store(&eventlog.Start{Offset: 0, LeaderEpoch: -1})
	return o
}

// run is the owner's goroutine. It ends with ctx.
func (o *owner) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var letters []letter
	for {
		var fetched eventlog.Fetched
		select {
		case <-ctx.Done():
			return
		case fetched = <-o.fetches:
		case <-o.mail.wake:
		case <-timer.C:
		}
		// Letters first: where the fold begins was put there before the first
		// fetch from there came.
		now := time.Now()
		letters = o.mail.take(letters)
		for i, l := range letters {
			l(now)
			letters[i] = nil
		}
		o.foldFetched(ctx, fetched, now)
		o.act(ctx, now)
		timer.Reset(max(o.nextTime(now).Sub(now), 0))
	}
}

// act does all that is due.
func (o *owner) act(ctx context.Context, now time.Time) {
	if o.phase == restoring && !o.fresh.at.Before(o.assignedAt) {
		o.phase = present
	}
	for _, t := range o.tenures {
		o.advanceClaim(ctx, t, now)
	}
	o.startHandlers(ctx, now)
	if o.phase == present {
		o.scanAll(ctx, now)
		for _, id := range o.touched {
			o.consider(ctx, id, now)
		}
		for id, ok := o.timers.pop(now); ok; id, ok = o.timers.pop(now) {
			o.consider(ctx, id, now)
		}
		o.startReady(ctx, now)
	}
	o.touched = o.touched[:0]
	o.returnGranted()
	o.appendAgain(now)
	o.keepOutcomes(now)
	o.drain(ctx, now)
	o.takeSnapshot(ctx)
}

// idleTime is how long an owner sleeps when nothing has a time.
const idleTime = time.Minute

// nextTime returns when act has something to do without being woken.
func (o *owner) nextTime(now time.Time) time.Time {
	next := now.Add(idleTime)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	switch o.phase {
	case present:
		if t, ok := o.timers.next(); ok {
			sooner(t)
		}
		for _, t := range o.tenures {
			if t.standing == fenced {
				sooner(t.checkAt)
			}
		}
	case parked:
		if len(o.held) > 0 && o.stopDrain == nil {
			sooner(o.drainAt())
		}
	case restoring, stopped:
	}
	if o.failing > 0 {
		for _, s := range o.sent {
			sooner(s.retryAt)
		}
	}
	sooner(o.keeping.nextTime())
	return next
}

// assigned is the group's suggestion to own the partition.
func (o *owner) assigned(ctx context.Context, now time.Time) {
	if o.phase != parked || o.stopping {
		return
	}
	if o.stopDrain != nil {
		o.stopDrain()
		o.stopDrain = nil
	}
	o.assignedAt = now
	o.fresh = freshness{}
	o.phase = restoring
	o.logger.DebugContext(ctx, "partition assigned", slog.Int64("position", o.fold.Position()))
}

// revoked ends it: handlers finish and report, and nothing more is started.
func (o *owner) revoked(ctx context.Context, now time.Time) {
	if o.phase == stopped || o.phase == parked {
		return
	}
	o.giveAllBack(ctx, 0)
	o.phase = parked
	o.parkedAt = now
	o.logger.DebugContext(ctx, "partition revoked", slog.Int("held_attempts", len(o.held)))
}

func (o *owner) giveAllBack(ctx context.Context, grace time.Duration) {
	for _, t := range o.tenures {
		o.giveBack(ctx, t, grace)
		o.enter(t, idle)
		o.deactivate(t)
	}
}

// stopStarting is the first step of a shutdown: from here on nothing is started,
// and others may own the partition. grace is how long handlers may still run.
func (o *owner) stopStarting(ctx context.Context, grace time.Duration) {
	o.stopping = true
	o.snapshots.final = o.phase == present
	o.giveAllBack(ctx, grace)
}

// foldFetched applies records and notes what they mean for this process.
func (o *owner) foldFetched(ctx context.Context, f eventlog.Fetched, now time.Time) {
	if o.phase == stopped {
		return
	}
	for _, r := range f.Records {
		// Two readers overlap for a moment when a partition changes hands.
		if r.Offset < o.fold.Position() {
			continue
		}
		o.snapshots.bytes += int64(len(r.Key) + len(r.Value))
		out, err := o.fold.Apply(r)
		if err != nil {
			o.stop(ctx, err)
			return
		}
		o.read(ctx, &out, now)
		if o.phase == stopped {
			return
		}
	}
	if f.Err != nil {
		o.stop(ctx, f.Err)
		return
	}
	if len(f.Records) > 0 {
		o.reached()
	}
}

// reached notes a new position of the fold.
func (o *owner) reached() {
	o.resume.Store(&eventlog.Start{Offset: o.fold.Position(), LeaderEpoch: o.fold.LeaderEpoch()})
	o.fresh.reach(o.fold.Position())
}

// read notes what one record means for this process.
func (o *owner) read(ctx context.Context, out *ledger.Outcome, now time.Time) {
	o.clock.observe(out.TimeMS, now)
	own := o.sent[out.EventID]
	if own != nil {
		o.forget(own)
	}
	o.noteClosed(out, own)
	if out.Verdict == ledger.Accepted {
		o.noteAccepted(ctx, out, own, now)
	}
	if own != nil {
		o.readBack(ctx, own, out, now)
	}
	if o.phase == present {
		o.touched = append(o.touched, out.Touched...)
	}
}

// noteClosed sees to attempts of this process that ended by a record which is
// not their own outcome. One that was deferred before its handler began gets
// none: no process holds it any more. A handler that runs goes on, because its
// outcome still counts.
func (o *owner) noteClosed(out *ledger.Outcome, own *sent) {
	for i := range out.Attempts {
		closed := &out.Attempts[i]
		if closed.Status == ledger.StatusRunning {
			continue
		}
		if r, ok := o.toRun[closed.ID]; ok {
			delete(o.toRun, closed.ID)
			o.x.slots.release(r.class)
		}
		a := o.held[closed.ID]
		if a == nil || closed.Status == ledger.StatusDeferred || own != nil && own.attempt == a {
			continue
		}
		a.closed = true
		a.cancel(ErrTakenOver)
	}
}

// noteAccepted sees to events that count, whoever wrote them.
func (o *owner) noteAccepted(ctx context.Context, out *ledger.Outcome, own *sent, now time.Time) {
	switch e := out.Event.(type) {
	case ledger.PartitionClaimed:
		if t := o.tenures[e.Queue]; t != nil {
			o.claimRead(ctx, t, out.Offset, e.Worker, now)
		}
	case ledger.PartitionReleased:
		o.releaseRead(ctx, e, out.Touched, now)
	case ledger.CancelRequested:
		if open, ok := o.fold.OpenAttempt(ledger.RunID{Collection: e.CollectionID, Run: e.Run}); ok && o.held[open.ID] != nil {
			o.held[open.ID].cancel(ErrCanceled)
		}
	case ledger.TaskStarted:
		o.startRead(e, out, own)
	default:
	}
}

// toRun is an own accepted start whose handler was not started yet.
type toRun struct {
	run   ledger.RunID
	queue string
	class string
}

// startRead takes an accepted start of this process for its handler to be
// started, whether or not this process remembers sending it. One under a claim
// that is ours no more, or is about to be given back, gets none: the next owner
// finds the attempt without a handler.
func (o *owner) startRead(e ledger.TaskStarted, out *ledger.Outcome, own *sent) {
	id := ledger.RunID{Collection: e.CollectionID, Run: e.Run}
	if e.Worker != o.x.worker {
		if queue, ok := o.fold.Queue(id); ok && o.tenures[queue] != nil {
			o.tenures[queue].progress()
		}
		return
	}
	for _, t := range o.tenures {
		if t.claim == e.Claim && !o.stopping {
			o.toRun[out.Offset] = toRun{id, t.queue, o.slotFor(id, own)}
			return
		}
	}
	if own != nil {
		o.x.slots.release(own.class)
	}
}

// slotFor returns the class of the slot that a start came with. One that is not
// remembered gets a slot even when none is free.
func (o *owner) slotFor(id ledger.RunID, own *sent) string {
	if own != nil {
		return own.class
	}
	open, _ := o.fold.OpenAttempt(id)
	class := o.x.slots.class(open.Task.Type)
	o.x.slots.force(class)
	return class
}

// stop ends the owner for good: its partition cannot be judged any further.
// Handlers that run finish, and their outcomes are sent.
func (o *owner) stop(ctx context.Context, err error) {
	if o.phase == stopped {
		return
	}
	o.logger.ErrorContext(ctx, "partition stopped; its tasks wait until the cause is removed and the executor restarted",
		slog.Int64("position", o.fold.Position()), slog.Any("error", err))
	o.phase = stopped
	for _, t := range o.tenures {
		t.claim, t.releasing = -1, -1
		o.enter(t, idle)
		o.deactivate(t)
	}
	o.dropToRun("")
	for _, s := range o.sent {
		s.kept = s.kept && s.acked.Load() // what may not be in the log stays in the outbox
		o.forget(s)                       // what was sent will land, but is not read back
		if s.attempt != nil {
			delete(o.held, s.attempt.def.ID)
		}
	}
	o.x.metrics.partitions.WithLabelValues("stopped").Inc()
	o.x.partitionFailed(o.partition, err)
}

// dropToRun gives up accepted starts of a queue, "" for all, whose handler was
// not started yet.
func (o *owner) dropToRun(queue string) {
	for id, r := range o.toRun {
		if queue == "" || r.queue == queue {
			delete(o.toRun, id)
			o.x.slots.release(r.class)
		}
	}
}

// deliver queues a fetch. It waits while the queue is full, and returns false
// when ctx ended first.
func (o *owner) deliver(ctx context.Context, f eventlog.Fetched) bool {
	select {
	case o.fetches <- f:
		return true
	case <-ctx.Done():
		return false
	}
}
