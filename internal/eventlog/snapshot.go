package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/keten-ledger/keten/ledger"
)

const (
	// snapshotRecords is how many records lie at least between two snapshots.
	snapshotRecords = 5_000
	// snapshotsAtOnce bounds how many snapshots one Log reads at the same time,
	// and how many it writes: the memory for their bytes and folds.
	snapshotsAtOnce = 4
	// lastRecordBytes is what is fetched to see one record. Its batch comes
	// whole, however large.
	lastRecordBytes = 1
)

// A Snapshot is the state of one partition's fold, taken to be written. The fold
// may go on meanwhile.
type Snapshot struct {
	Partition int32
	// Position is that of the fold when State was taken.
	Position int64
	// State is [ledger.Partition.Snapshot]. It must not be changed until the
	// snapshot is written.
	State []byte
	// LogBytes is how many bytes of records, keys and values, the caller has
	// folded between offset Since and Position.
	Since, LogBytes int64
	// Final is the snapshot of an owner that stops: it is written unless one at
	// this position or beyond is there, however recent the newest is.
	Final bool
}

// A SnapshotRef says which snapshot of a partition is meant; the zero value is
// none.
type SnapshotRef struct {
	Position int64
	Bytes    int64
}

// A RestoredSnapshot is a snapshot that was read back and checked.
type RestoredSnapshot struct {
	SnapshotRef
	// Fold is the state at Position.
	Fold *ledger.Partition
}

// SnapshotDue reports whether another snapshot is worth writing: when both 5,000
// records and as many bytes of log as the newest one has have passed since. So
// snapshots cost no more writing than the log does, and behind a snapshot lie
// 5,000 records, or as many bytes as it has, and what came while it was written.
func SnapshotDue(newest SnapshotRef, recordsSince, bytesSince int64) bool {
	return recordsSince >= snapshotRecords && bytesSince >= newest.Bytes
}

// Resume returns the fold from which a reader of a partition goes on, and where
// it has to start reading: at the newest snapshot, or at the beginning when
// there is none. It may be called for many partitions at once. The errors are
// those of [Log.ReadSnapshot].
func (l *Log) Resume(ctx context.Context, partition int32) (*ledger.Partition, Start, error) {
	s, found, err := l.ReadSnapshot(ctx, partition)
	switch {
	case err != nil:
		return nil, Start{}, err
	case !found:
		return ledger.NewPartition(partition), Start{LeaderEpoch: -1}, nil
	}
	return s.Fold, Start{Offset: s.Fold.Position(), LeaderEpoch: s.Fold.LeaderEpoch()}, nil
}

// ReadSnapshot returns the newest snapshot of a partition that is whole and that
// this build can use, checked against the log. found is false when there is
// none: then the partition is folded from offset 0. Brokers that are away are
// waited for as long as ctx lets.
//
// [ErrDataLoss] says that the log is not the one a snapshot was taken of: the
// partition must stop. An older snapshot, or folding from offset 0, would only
// hide it. [ErrCorrupt] says that the log itself cannot be read.
func (l *Log) ReadSnapshot(ctx context.Context, partition int32) (s RestoredSnapshot, found bool, err error) {
	if partition < 0 || partition >= l.info.Partitions {
		return s, false, fmt.Errorf("read snapshot of partition %d: the ledger has %d partitions", partition, l.info.Partitions)
	}
	err = l.patiently(ctx, partition, func() error {
		s, err = l.readSnapshot(ctx, partition)
		return err
	})
	fetch, ok := errors.AsType[*fetchError](err)
	switch {
	case ok && errors.Is(err, ErrCorrupt) && fetch.topic == l.snapshotsTopic:
		// Nothing but a shortcut is damaged.
		l.metrics.snapshots.unusable.Inc()
		l.cfg.Logger.ErrorContext(ctx, "snapshots cannot be read, delete their topic to have it made again",
			slog.String("topic", l.snapshotsTopic), slog.Int64("partition", int64(partition)), slog.Any("error", err))
		return RestoredSnapshot{}, false, nil
	case errors.Is(err, ErrDataLoss):
		l.metrics.snapshots.refused.Inc()
		l.metrics.lost(partition, "snapshot")
		fallthrough
	case err != nil:
		return RestoredSnapshot{}, false, fmt.Errorf("read snapshot of partition %d: %w", partition, err)
	case s.Fold == nil:
		return s, false, nil
	}
	l.metrics.snapshots.restored.Inc()
	l.metrics.snapshots.bytesRestored.Add(float64(s.Bytes))
	return s, true, nil
}

// patiently calls f, which looks at snapshots, again as long as time may heal
// what is wrong. Only while f runs the caller holds one of the slots: partitions
// that cannot be read at the moment do not hold up the others.
func (l *Log) patiently(ctx context.Context, partition int32, f func() error) error {
	began, logged := time.Now(), false
	for n := 1; ; n++ {
		err := inSlot(ctx, l.readSlots, f)
		lasted := time.Since(began)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w, last: %w", context.Cause(ctx), err)
		case errors.Is(err, kerr.CorruptMessage) && lasted >= faultPatience:
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		case !passes(err):
			return err
		}
		if !logged && lasted >= faultLogAfter {
			logged = true
			l.cfg.Logger.WarnContext(ctx, "snapshots of a partition cannot be read at the moment",
				slog.Int64("partition", int64(partition)), slog.Any("error", err))
		}
		if sleep(ctx, backoff(n)) != nil {
			return fmt.Errorf("%w, last: %w", context.Cause(ctx), err)
		}
	}
}

// passes reports whether time may heal an error.
func passes(err error) bool {
	var shards *kadm.ShardErrors
	return errors.Is(err, errChunkGone) || errors.Is(err, errNoAnswer) || kerr.IsRetriable(err) || isNetwork(err) || errors.As(err, &shards)
}

// inSlot calls f when less than so many others are called at the same time as
// slots has room for.
func inSlot(ctx context.Context, slots chan struct{}, f func() error) error {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readSnapshot is ReadSnapshot, once. Without a fold there is no snapshot.
func (l *Log) readSnapshot(ctx context.Context, partition int32) (best RestoredSnapshot, err error) {
	index, err := l.indexSnapshots(ctx, partition)
	if err != nil {
		return best, err
	}
	if err := l.checkIndex(ctx, index); err != nil {
		return best, err
	}
	for _, s := range index.complete(l.topicID) {
		// Those of one position are all looked at: if two histories have one
		// there, it must not depend on the order of writing which is believed.
		if best.Fold != nil && s.position < best.Position {
			break
		}
		fold, err := l.restore(ctx, partition, s)
		if err != nil {
			return RestoredSnapshot{}, err
		}
		if fold == nil {
			continue
		}
		if err := l.checkHistory(ctx, fold); err != nil {
			return RestoredSnapshot{}, err
		}
		switch {
		case best.Fold == nil:
			best = RestoredSnapshot{SnapshotRef: s.ref(), Fold: fold}
		case best.Fold.ChainHash() != fold.ChainHash():
			return RestoredSnapshot{}, fmt.Errorf("%w: partition %d has snapshots of two histories at offset %d", ErrDataLoss, partition, s.position)
		default:
			// Their keys differ, so their states do: two builds have judged the
			// same records differently, and one of them must not go on.
			return RestoredSnapshot{}, fmt.Errorf("%w: partition %d has two snapshots at offset %d that disagree about the same records", ErrDataLoss, partition, s.position)
		}
	}
	return best, nil
}

// restore reads a snapshot's bytes and decodes them. The fold is nil when the
// snapshot cannot be used, which is no loss: damaged, or written by a build that
// is newer or older than this one understands.
func (l *Log) restore(ctx context.Context, partition int32, s storedSnapshot) (*ledger.Partition, error) {
	state := make([]byte, 0, s.bytes)
	intact, err := l.readChunks(ctx, partition, s, func(chunk []byte) { state = append(state, chunk...) })
	if err != nil {
		return nil, err
	}
	why := errors.New("its bytes do not have the hash in its key")
	if intact {
		var fold *ledger.Partition
		if fold, why = ledger.Restore(state); why == nil {
			_, _, _, opened := fold.Opened()
			if opened && fold.Index() == partition && fold.Position() == s.position {
				return fold, nil
			}
			why = errors.New("it is of another partition or position than its key says")
		}
	}
	l.metrics.snapshots.unusable.Inc()
	l.cfg.Logger.WarnContext(ctx, "snapshot cannot be used", slog.Int64("partition", int64(partition)),
		slog.Int64("position", s.position), slog.Any("error", why))
	return nil, nil
}

// checkIndex looks for what only another history can have left, also in
// snapshots that are torn or cannot be decoded.
//
// A snapshot of another ledger says that the ledger's topic was deleted and
// created again: executors have no other witness of that, and without it would
// run everything once more, so they stop. A snapshot of the same ledger in
// another topic was brought along when the ledger was copied to another cluster.
// Its leader epochs mean nothing here and its offsets may not either, but
// nothing is lost: it is passed over, and the ledger is folded from offset 0.
func (l *Log) checkIndex(ctx context.Context, index *snapshotIndex) error {
	newest := int64(0)
	for key, chunk := range index.chunks {
		if chunk.ledgerID != l.info.LedgerID && chunk.ledgerID != uuid.Nil {
			return fmt.Errorf("%w: topic %s has snapshots of ledger %s, but this is ledger %s; if its topic was replaced on purpose, delete topic %s",
				ErrDataLoss, l.snapshotsTopic, chunk.ledgerID, l.info.LedgerID, l.snapshotsTopic)
		}
		if chunk.topicID == l.topicID {
			newest = max(newest, key.position)
		}
	}
	if known, ok := l.ends.fresh(index.partition); newest == 0 || ok && known >= newest {
		return nil
	}
	// Whoever wrote a snapshot had read the log up to there, so an end that is
	// learnt now is not before it.
	ends, err := l.Ends(ctx, index.partition)
	if err != nil {
		return err
	}
	if end := ends[index.partition]; newest > end {
		return fmt.Errorf("%w: partition %d has a snapshot at offset %d, but the log ends at offset %d", ErrDataLoss, index.partition, newest, end)
	}
	return nil
}

// checkHistory checks that a fold was made of this log: by the record before its
// position, which has the hash and the leader epoch that the fold remembers.
func (l *Log) checkHistory(ctx context.Context, fold *ledger.Partition) error {
	id, n, window, _ := fold.Opened()
	if id != l.info.LedgerID || n != l.info.Partitions || window != l.info.Window {
		return fmt.Errorf("%w: partition %d has a snapshot of ledger %s with %d partitions and window %d",
			ErrDataLoss, fold.Index(), id, n, window)
	}
	last, err := l.recordAt(ctx, fold.Index(), fold.Position()-1)
	if err != nil {
		return err
	}
	if ledger.RecordHash(last) != fold.LastHash() || last.LeaderEpoch != fold.LeaderEpoch() {
		return fmt.Errorf("%w: partition %d has a snapshot at offset %d, but another record before it, of leader epoch %d instead of %d",
			ErrDataLoss, fold.Index(), fold.Position(), last.LeaderEpoch, fold.LeaderEpoch())
	}
	return nil
}

// recordAt reads one record of the ledger, which must be there: a reader has
// seen it.
func (l *Log) recordAt(ctx context.Context, partition int32, offset int64) (ledger.Record, error) {
	answer, err := l.fetch(ctx, fetchRequest{topic: l.topic, partition: partition, offset: offset, bytes: lastRecordBytes})
	switch {
	case answer.topic != nil && answer.topic.id != l.topicID:
		return ledger.Record{}, fmt.Errorf("%w: the topic was deleted and created again", ErrDataLoss)
	case err != nil && !errors.Is(err, kerr.OffsetOutOfRange):
		return ledger.Record{}, err
	case len(answer.records) > 0 && answer.records[0].Offset == offset:
		return convertRecords(answer.records[:1], len(answer.records[0].Headers))[0], nil
	case len(answer.records) > 0:
		return ledger.Record{}, fmt.Errorf("%w: partition %d has no record at offset %d", ErrDataLoss, partition, offset)
	}
	// The record is lost, or this broker is not the leader any more, or is so
	// new as leader that it does not know yet how far the log goes.
	l.places.set(l.topic, nil)
	bad, err := l.verify(ctx, map[int32]Start{partition: {Offset: offset + 1, LeaderEpoch: -1}})
	switch {
	case err != nil:
		return ledger.Record{}, err
	case bad[partition] != nil:
		return ledger.Record{}, bad[partition]
	}
	return ledger.Record{}, fmt.Errorf("record at offset %d of partition %d: %w", offset, partition, errNoAnswer)
}
