package executor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
)

const (
	// snapshotPause is how long after a failure no other snapshot is tried.
	snapshotPause = 30 * time.Second
	// snapshotReadWait bounds one try to read a snapshot, and snapshotTries how
	// many fail before the partition is folded without.
	snapshotReadWait = 10 * time.Second
	snapshotTries    = 2
	// finalSnapshotWait bounds how long a shutdown writes snapshots.
	finalSnapshotWait = 5 * time.Second
)

// snapshots is what an owner knows of its partition's snapshots.
type snapshots struct {
	newest  eventlog.SnapshotRef
	since   int64 // bytes counts from this offset
	bytes   int64 // of the records folded since
	writing bool
	notYet  time.Time // after a failure
	final   bool      // one is to be written at the end
}

// takeSnapshot lets a snapshot be written when one is due. Only who owns a queue
// does so: others read the same records and would write the same.
func (o *owner) takeSnapshot(ctx context.Context) {
	s := &o.snapshots
	if s.writing || o.phase != present || !eventlog.SnapshotDue(s.newest, o.fold.Position()-s.newest.Position, s.bytes) ||
		!o.ownsAny() || time.Now().Before(s.notYet) {
		return
	}
	s.writing = true
	snapshot := o.snapshot()
	o.x.loops.Go(func() {
		newest, _, err := o.x.log.WriteSnapshot(ctx, snapshot)
		o.mail.put(func(now time.Time) { o.snapshotWritten(ctx, &snapshot, newest, err, now) })
	})
}

func (o *owner) ownsAny() bool {
	for _, t := range o.tenures {
		if t.standing == active {
			return true
		}
	}
	return false
}

func (o *owner) snapshot() eventlog.Snapshot {
	return eventlog.Snapshot{
		Partition: o.partition, Position: o.fold.Position(), State: o.fold.Snapshot(),
		Since: o.snapshots.since, LogBytes: o.snapshots.bytes,
	}
}

func (o *owner) snapshotWritten(ctx context.Context, written *eventlog.Snapshot, newest eventlog.SnapshotRef, err error, now time.Time) {
	s := &o.snapshots
	s.writing = false
	switch {
	case errors.Is(err, eventlog.ErrDataLoss):
		o.stop(ctx, err)
	case err != nil:
		s.notYet = now.Add(snapshotPause)
		if ctx.Err() == nil {
			o.logger.WarnContext(ctx, "snapshot was not written; the next start takes longer", slog.Any("error", err))
		}
	default:
		if newest.Position > s.newest.Position {
			s.newest = newest
		}
		if written.Position > s.since { // no snapshot took the place of the fold meanwhile
			s.bytes -= written.LogBytes
			s.since = written.Position
		}
	}
}

// resumeAt is where reading of a partition starts: where its owner stands, when
// it was here before and still holds attempts, else at the newest snapshot
// beyond that.
func (x *Executor) resumeAt(ctx context.Context, partition int32) (eventlog.Start, error) {
	o := x.owner(partition)
	if o == nil { // cannot be: Assigned was called before
		return eventlog.Start{LeaderEpoch: -1}, nil
	}
	// Nothing is started while the partition is restored, so an owner that holds
	// nothing now holds nothing when the snapshot takes the place of its fold.
	holds := make(chan bool, 1)
	o.mail.put(func(time.Time) { holds <- o.holdsAny() })
	select {
	case h := <-holds:
		if h {
			return *o.resume.Load(), nil
		}
	case <-ctx.Done():
		return eventlog.Start{}, context.Cause(ctx)
	}
	s, found, err := x.readSnapshot(ctx, partition)
	switch {
	case err != nil:
		return eventlog.Start{}, err
	case !found || s.Position <= o.resume.Load().Offset:
		return *o.resume.Load(), nil
	}
	start := eventlog.Start{Offset: s.Position, LeaderEpoch: s.Fold.LeaderEpoch()}
	o.mail.put(func(now time.Time) { o.restored(&s, now) })
	return start, nil
}

// readSnapshot reads a partition's newest snapshot. One that cannot be read while
// the ledger can is done without: it is a shortcut, and would hold up all
// partitions that were assigned with this one.
func (x *Executor) readSnapshot(ctx context.Context, partition int32) (s eventlog.RestoredSnapshot, found bool, err error) {
	for tries := 0; tries < snapshotTries; {
		s, found, err = x.tryReadSnapshot(ctx, partition)
		if err == nil || ctx.Err() != nil || errors.Is(err, eventlog.ErrDataLoss) || errors.Is(err, eventlog.ErrCorrupt) {
			return s, found, err
		}
		if _, endErr := x.log.End(ctx, partition); endErr == nil {
			tries++
		}
	}
	x.logger.ErrorContext(ctx, "snapshots of a partition cannot be read; it is folded without them, which takes longer",
		slog.Int64("partition", int64(partition)), slog.Any("error", err))
	return s, false, nil
}

func (x *Executor) tryReadSnapshot(ctx context.Context, partition int32) (eventlog.RestoredSnapshot, bool, error) {
	ctx, stop := context.WithTimeout(ctx, snapshotReadWait)
	defer stop()
	return x.log.ReadSnapshot(ctx, partition)
}

// holdsAny reports whether the fold must go on record by record: what was sent
// is to be read back.
func (o *owner) holdsAny() bool {
	for _, s := range o.sent {
		if s.kind == sentOutcome {
			return true
		}
	}
	return len(o.held) > 0 || len(o.toRun) > 0
}

// restored takes a snapshot in the place of the fold. A release of ours that
// lies before it is not read back any more.
func (o *owner) restored(s *eventlog.RestoredSnapshot, now time.Time) {
	if s.Position <= o.fold.Position() || o.phase == stopped {
		return
	}
	o.fold = s.Fold
	if o.clock.readAt.IsZero() {
		o.clock.observe(now.UnixMilli(), now) // until a record tells the brokers' time
	}
	o.snapshots = snapshots{newest: s.SnapshotRef, since: s.Position, writing: o.snapshots.writing}
	for _, t := range o.tenures {
		if c, ok := o.fold.Claim(t.queue); t.releasing >= 0 && ok && (c.Offset != t.releasing || c.Released) {
			t.releasing = -1
		}
	}
	for _, sent := range o.sent {
		if sent.kind == sentRelease && sent.tenure.releasing < 0 {
			o.forget(sent)
		}
	}
	o.reached()
}

// writeFinalSnapshots writes snapshots of what this process owned, so that the
// next start is quick.
func (x *Executor) writeFinalSnapshots(ctx context.Context) {
	if x.brokersAway() {
		return
	}
	ctx, stop := context.WithTimeout(ctx, finalSnapshotWait)
	defer stop()
	var writing sync.WaitGroup
	x.eachOwner(func(o *owner) {
		if o.phase == stopped || !o.snapshots.final || o.fold.Position() <= o.snapshots.newest.Position {
			return
		}
		snapshot := o.snapshot()
		snapshot.Final = true
		writing.Go(func() {
			if _, _, err := x.log.WriteSnapshot(ctx, snapshot); err != nil {
				o.logger.WarnContext(ctx, "snapshot was not written; the next start takes longer", slog.Any("error", err))
			}
		})
	})
	writing.Wait()
}
