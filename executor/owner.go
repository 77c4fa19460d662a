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

// A phase says what an owner may do.
type phase int

const (
	// parked: the partition is not assigned to this process. Attempts that it
	// still holds are brought to their end.
	parked phase = iota
	// restoring: folding to the log end, without acting.
	restoring
	// claiming: a PartitionClaimed is under way.
	claiming
	// active: the claim is ours, read back.
	active
	// fenced: assigned, but the claim is someone else's, or was given back.
	fenced
	// stopped by an error, until the process ends.
	stopped
)

// fetchesQueued bounds how many fetches wait for an owner before the poll loop
// waits too.
const fetchesQueued = 8

// An owner folds one partition and appends what the fold asks for. Its goroutine
// never waits for a handler, an append or the broker. It lives as long as the
// Executor, so that a partition that leaves and comes back finds its running
// attempts.
type owner struct {
	x         *Executor
	partition int32
	queue     string
	logger    *slog.Logger

	fetches chan eventlog.Fetched
	mail    mailbox
	// resume is where the fold stands: a reader that starts there misses
	// nothing.
	resume atomic.Pointer[eventlog.Start]
	// wantsMembers asks the watch for the members of the group.
	wantsMembers atomic.Bool
	inLine       bool // owned by slots

	// All below belongs to the owner's goroutine.
	fold     *ledger.Partition
	clock    recordClock
	phase    phase
	stopping bool // a shutdown began: nothing is started any more
	claims   claims
	fresh    freshness

	// held attempts: the handler runs, or its outcome has not been read back.
	held map[int64]*attempt
	// handlers that run, by task: the same task never runs twice in a process,
	// even when its earlier attempt was closed by someone else.
	handlers map[taskRef]*attempt
	// toRun are own accepted starts whose handler was not started yet, by
	// attempt id. Each has a slot.
	toRun map[int64]ledger.RunID

	// sent records have not been read back, by event id; failing of them wait
	// to be appended again.
	sent    map[uuid.UUID]*sent
	failing int
	seq     uint64
	// pending is the start or takeover that is under way for a run.
	pending map[ledger.RunID]*sent
	refused map[ledger.RunID]refusal

	touched   []ledger.RunID // runs of which the fold may now say something else
	scan      bool           // ask about all runs: the claim is new
	ready     readyQueue
	granted   int // slots got by waiting, not used yet
	timers    timers
	takeovers map[ledger.RunID]takeover
	members   membership
	unserved  unserved

	parkedAt  time.Time
	stopDrain context.CancelFunc // nil while no drain runs
	warnedAt  time.Time          // of the last failed append that was logged
}

func newOwner(x *Executor, partition int32) *owner {
	o := &owner{
		x: x, partition: partition, queue: x.queue,
		logger:    x.logger.With(slog.Int("partition", int(partition))),
		fetches:   make(chan eventlog.Fetched, fetchesQueued),
		mail:      newMailbox(),
		fold:      ledger.NewPartition(partition),
		held:      make(map[int64]*attempt),
		handlers:  make(map[taskRef]*attempt),
		toRun:     make(map[int64]ledger.RunID),
		sent:      make(map[uuid.UUID]*sent),
		pending:   make(map[ledger.RunID]*sent),
		refused:   make(map[ledger.RunID]refusal),
		ready:     newReadyQueue(),
		timers:    newTimers(),
		takeovers: make(map[ledger.RunID]takeover),
		unserved:  newUnserved(x.metrics),
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
		select {
		case <-ctx.Done():
			return
		case f := <-o.fetches:
			o.foldFetched(ctx, f, time.Now())
		case <-o.mail.wake:
		case <-timer.C:
		}
		now := time.Now()
		letters = o.mail.take(letters)
		for i, l := range letters {
			l(now)
			letters[i] = nil
		}
		o.act(ctx, now)
		timer.Reset(max(o.nextTime(now).Sub(now), 0))
	}
}

// act does all that is due.
func (o *owner) act(ctx context.Context, now time.Time) {
	o.advanceClaim(ctx, now)
	o.startHandlers(ctx, now)
	if o.phase == active {
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
	o.drain(ctx, now)
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
	case active:
		if t, ok := o.timers.next(); ok {
			sooner(t)
		}
	case fenced:
		sooner(o.claims.checkAt)
	case parked:
		if len(o.held) > 0 && o.stopDrain == nil {
			sooner(o.parkedAt.Add(drainDelay))
		}
	case restoring, claiming, stopped:
	}
	if o.failing > 0 {
		for _, s := range o.sent {
			sooner(s.retryAt)
		}
	}
	return next
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
		o.noteAccepted(ctx, out, own)
	}
	if own != nil {
		o.readBack(ctx, own, out)
	}
	if o.phase == active {
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
		if _, ok := o.toRun[closed.ID]; ok {
			delete(o.toRun, closed.ID)
			o.x.slots.release()
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
func (o *owner) noteAccepted(ctx context.Context, out *ledger.Outcome, own *sent) {
	switch e := out.Event.(type) {
	case ledger.PartitionClaimed:
		if e.Queue == o.queue {
			o.claimRead(e.Worker)
		}
	case ledger.PartitionReleased:
		o.releaseRead(ctx, e, out.Touched)
	case ledger.CancelRequested:
		if open, ok := o.fold.OpenAttempt(ledger.RunID{Collection: e.CollectionID, Run: e.Run}); ok && o.held[open.ID] != nil {
			o.held[open.ID].cancel(ErrCanceled)
		}
	case ledger.TaskStarted:
		o.startRead(e, out, own)
	default:
	}
}

// startRead takes an accepted start of this process for its handler to be
// started, whether or not this process remembers sending it.
func (o *owner) startRead(e ledger.TaskStarted, out *ledger.Outcome, own *sent) {
	if e.Worker != o.x.worker {
		o.claims.progress()
		return
	}
	if !o.mayRun() {
		if own != nil {
			o.x.slots.release()
		}
		return // the next owner finds the attempt without a handler
	}
	if own == nil {
		o.x.slots.force()
	}
	o.toRun[out.Offset] = ledger.RunID{Collection: e.CollectionID, Run: e.Run}
}

// mayRun reports whether handlers may be started for accepted starts.
func (o *owner) mayRun() bool {
	return !o.stopping && (o.phase == active || o.phase == fenced)
}

// stop ends the owner for good: its partition cannot be judged any further.
// Handlers that run finish, and their outcomes are sent.
func (o *owner) stop(ctx context.Context, err error) {
	o.logger.ErrorContext(ctx, "partition stopped; its tasks wait until the cause is removed and the executor restarted",
		slog.Int64("position", o.fold.Position()), slog.Any("error", err))
	o.enter(stopped)
	o.deactivate()
	for _, s := range o.sent {
		o.forget(s) // what was sent will land, but is not read back
		delete(o.held, s.attempt.def.ID)
	}
	o.x.metrics.partitions.WithLabelValues("stopped").Inc()
	o.x.partitionFailed(o.partition, err)
}

// deactivate gives up what only the holder of the claim may do, and the starts
// whose fate is not known: the fold will tell the next owner.
func (o *owner) deactivate() {
	for _, s := range o.sent {
		if s.kind == sentOutcome {
			continue
		}
		o.forget(s)
		if s.kind == sentStart {
			o.x.slots.release()
		}
	}
	o.ready.clear()
	o.timers.clear()
	clear(o.takeovers)
	clear(o.refused)
	o.unserved.nobodyWaits()
	o.wantsMembers.Store(false)
}

// dropToRun gives up accepted starts whose handler was not started yet.
func (o *owner) dropToRun() {
	for id := range o.toRun {
		delete(o.toRun, id)
		o.x.slots.release()
	}
}

// enter changes the phase.
func (o *owner) enter(p phase) {
	if o.phase == active {
		o.deactivate()
		o.x.metrics.partitions.WithLabelValues("active").Dec()
	}
	if p == active {
		o.x.metrics.partitions.WithLabelValues("active").Inc()
		o.scan = true
		o.wantsMembers.Store(false)
	}
	o.phase = p
	if !o.mayRun() {
		o.dropToRun()
	}
}

// stopStarting is the first step of a shutdown: from here on nothing is started.
func (o *owner) stopStarting() {
	o.stopping = true
	o.deactivate()
	o.dropToRun()
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
