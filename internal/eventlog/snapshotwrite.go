package eventlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// snapshotWriteTimeout bounds WriteSnapshot when ctx does not. What is not
	// written by then is of little use: the fold has gone on.
	snapshotWriteTimeout = 60 * time.Second
)

// WriteSnapshot writes a snapshot unless it is not due ([SnapshotDue], and see
// Snapshot.Final) or somebody else has written one meanwhile. newest is the
// newest snapshot that is known afterwards, which is what the caller goes by;
// while it was being written, others may have written newer ones, and deleted
// parts of it. When it was written, snapshots before the second newest are deleted.
//
// It takes a minute at most; what is left of an attempt that failed is used by
// nobody, and deleted later. [ErrDataLoss] says that the partition must stop,
// see [Log.ReadSnapshot].
func (l *Log) WriteSnapshot(ctx context.Context, s Snapshot) (newest SnapshotRef, written bool, err error) {
	if s.Partition < 0 || s.Partition >= l.info.Partitions || s.Position <= 0 || len(s.State) == 0 || len(s.State) > maxSnapshotBytes {
		return newest, false, fmt.Errorf("write snapshot of partition %d at offset %d with %d bytes: there can be none",
			s.Partition, s.Position, len(s.State))
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWriteTimeout)
	defer cancel()
	err = inSlot(ctx, l.writeSlots, func() error {
		newest, written, err = l.writeSnapshot(ctx, s)
		return err
	})
	switch {
	case errors.Is(err, ErrDataLoss):
		l.metrics.snapshots.refused.Inc()
		l.metrics.lost(s.Partition, "snapshot")
	case err != nil:
		l.metrics.snapshots.failed.Inc()
	case written:
		l.metrics.snapshots.written.Inc()
		l.metrics.snapshots.bytesWritten.Add(float64(len(s.State)))
	default:
		l.metrics.snapshots.skipped.Inc()
	}
	if err != nil {
		return newest, written, fmt.Errorf("write snapshot of partition %d at offset %d: %w", s.Partition, s.Position, err)
	}
	return newest, written, nil
}

func (l *Log) writeSnapshot(ctx context.Context, s Snapshot) (newest SnapshotRef, written bool, err error) {
	var index *snapshotIndex
	var before SnapshotRef
	err = l.patiently(ctx, s.Partition, func() (err error) {
		if index, err = l.indexSnapshots(ctx, s.Partition); err != nil {
			return err
		}
		if err = l.checkIndex(ctx, index); err != nil {
			return err
		}
		before, err = l.newestIntact(ctx, index)
		return err
	})
	if err != nil {
		return newest, false, err
	}
	if !s.wanted(before) {
		return before, false, nil
	}
	writer, closeWriter, err := l.chunkWriter(ctx)
	if err != nil {
		return before, false, err
	}
	defer closeWriter()
	if err := l.writeChunks(ctx, writer, s); err != nil {
		return before, false, err
	}
	// The one before is now the second newest. A failure leaves to the next
	// writer what should be deleted.
	if err := l.deleteChunks(ctx, writer, s.Partition, index.below(before.Position)); err != nil {
		l.cfg.Logger.WarnContext(ctx, "old snapshots are left behind", slog.Int64("partition", int64(s.Partition)), slog.Any("error", err))
	}
	return SnapshotRef{Position: s.Position, Bytes: int64(len(s.State))}, true, nil
}

// wanted reports whether a snapshot is to be written where newest is the newest.
func (s *Snapshot) wanted(newest SnapshotRef) bool {
	if s.Position <= newest.Position {
		return false
	}
	return s.Final || SnapshotDue(newest, s.Position-newest.Position, s.bytesSince(newest.Position))
}

// bytesSince is how many bytes of log lie between a position and the snapshot's.
// Behind a snapshot that somebody else wrote it is a share of what was counted.
func (s *Snapshot) bytesSince(position int64) int64 {
	if position <= s.Since {
		return s.LogBytes
	}
	share := float64(s.Position-position) / float64(s.Position-s.Since)
	return int64(share * float64(s.LogBytes))
}

// newestIntact returns the newest snapshot of this log whose bytes are what they
// were. Whether this build can decode it does not matter: during an upgrade the
// newer builds' snapshots count, too. One that it can is held to the log: a
// snapshot of another history must stop the partition before a newer one hides it.
func (l *Log) newestIntact(ctx context.Context, index *snapshotIndex) (SnapshotRef, error) {
	for _, s := range index.complete(l.topicID) {
		fold, err := l.restore(ctx, index.partition, s)
		if err != nil {
			return SnapshotRef{}, err
		}
		if fold != nil {
			return s.ref(), l.checkHistory(ctx, fold)
		}
		intact, err := l.readChunks(ctx, index.partition, s, func([]byte) {})
		if err != nil {
			return SnapshotRef{}, err
		}
		if intact {
			return s.ref(), nil
		}
	}
	return SnapshotRef{}, nil
}

// writeChunks writes a snapshot chunk by chunk. Each waits for the one before,
// which bounds what a dead writer leaves behind and the memory for it.
func (l *Log) writeChunks(ctx context.Context, writer *kgo.Client, s Snapshot) error {
	key := chunkKey{position: s.Position, hash: sha256.Sum256(s.State), n: chunkCount(len(s.State))}
	for key.index = range key.n {
		if err := produce(ctx, writer, l.chunkRecord(s.Partition, key, cutChunk(s.State, key.index, key.n))); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) deleteChunks(ctx context.Context, writer *kgo.Client, partition int32, keys []chunkKey) error {
	records := make([]*kgo.Record, len(keys))
	for i, key := range keys {
		records[i] = l.chunkRecord(partition, key, nil)
	}
	return produce(ctx, writer, records...)
}

// produce appends records and waits until all are acknowledged. After an error
// any of them may be there, or come later.
func produce(ctx context.Context, client *kgo.Client, records ...*kgo.Record) error {
	results := make(chan error, len(records))
	for _, r := range records {
		client.Produce(ctx, r, func(_ *kgo.Record, err error) { results <- err })
	}
	for range records {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// chunkWriter returns a client to write one snapshot. Unlike that of the appends
// it gives up when ctx ends, and is not idempotent: a chunk that lands twice or
// late changes nothing, and brokers do not remember every writer. No append waits
// behind its chunks, and nothing of a writer that gave up is left to get in the
// way of the next.
func (l *Log) chunkWriter(ctx context.Context) (client *kgo.Client, done func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	client, err = kgo.NewClient(append(l.cfg.options(l.watch, l.library),
		kgo.WithContext(ctx),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.DisableIdempotentWrite(),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxChunkBatchBytes),
	)...)
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	detach := context.AfterFunc(l.client.Context(), cancel) //nolint:contextcheck // the end of the Log ends its writers, too
	return client, func() {
		detach()
		cancel()
		client.Close()
	}, nil
}
