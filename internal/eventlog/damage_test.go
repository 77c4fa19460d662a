package eventlog_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

// patience bounds every wait for a broker, which is a young JVM on a machine
// that does other things.
const patience = 60 * time.Second

// Both kinds of damage are done to one Kafka: starting it takes the time.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := kafkatest.New(t, kafkatest.Config{Dir: dir, HeapMB: 256})
	lostTailIsNoticed(t, k, dir)
	corruptBatchEndsItsPartition(t, k, dir)
	snapshotOutlivesTheTail(t, k, dir)
}

// A broker may lose its last records in a crash, and be given new ones. What
// was read before is another history then: a reader that runs, one that resumes
// and the producer must all notice.
func lostTailIsNoticed(t *testing.T, k *kafkatest.Kafka, dir string) {
	t.Helper()
	l := open(t, k.Brokers(), "tail")
	for range 10 {
		appendOne(t, l, 0)
	}
	running := reader(t, l, eventlog.Start{LeaderEpoch: -1})
	last := readUpTo(t, running, 10)
	resumeAt := eventlog.Start{Offset: last.Offset + 1, LeaderEpoch: last.LeaderEpoch}

	require.NoError(t, k.Kill())
	log := segment(dir, "tail")
	require.NoError(t, os.Truncate(log, batchAt(t, log, 6)))
	require.NoError(t, k.Restart(t.Context()))

	after := open(t, k.Brokers(), "tail")
	for range 20 { // beyond the offset that was read before
		appendOne(t, after, 0)
	}
	for name, r := range map[string]*eventlog.Reader{"running": running, "resuming": reader(t, after, resumeAt)} {
		require.ErrorIs(t, pollError(t, r), eventlog.ErrDataLoss, name)
	}
	// From the start there is nothing to miss, and the epochs tell what is new.
	newest := readUpTo(t, reader(t, after, eventlog.Start{LeaderEpoch: -1}), 25)
	require.Greater(t, newest.LeaderEpoch, last.LeaderEpoch)

	// The producer that lived on learns it from the sequence numbers.
	appendOne(t, l, 0)
	require.ErrorIs(t, l.Ready(within(t)), eventlog.ErrDataLoss)
	require.NoError(t, after.Ready(within(t)))
}

// A damaged batch ends its partition, and no other.
func corruptBatchEndsItsPartition(t *testing.T, k *kafkatest.Kafka, dir string) {
	t.Helper()
	l := open(t, k.Brokers(), "corrupt")
	for range 5 {
		appendOne(t, l, 0)
		appendOne(t, l, 1)
	}
	flip(t, segment(dir, "corrupt"), 3)

	r, err := l.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{0: {LeaderEpoch: -1}, 1: {LeaderEpoch: -1}}})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	ctx := within(t)
	got, over := make(map[int32]int), error(nil)
	for over == nil || got[1] < 6 {
		fetched, err := r.Poll(ctx, 100)
		require.NoError(t, err)
		for _, f := range fetched {
			got[f.Partition] += len(f.Records)
			if f.Err != nil {
				require.Zero(t, f.Partition)
				require.NoError(t, over, "a partition that is over is not mentioned again")
				over = f.Err
			}
		}
	}
	require.ErrorIs(t, over, eventlog.ErrCorrupt)
	require.LessOrEqual(t, got[0], 3, "nothing beyond the damage is handed out")
	appendOne(t, l, 1)
	fetched, err := r.Poll(ctx, 100)
	require.NoError(t, err)
	require.Len(t, fetched, 1)
	require.Equal(t, int32(1), fetched[0].Partition)
}

// The snapshot of a tail that is lost must not be used, neither before the log
// has grown beyond it again nor after. Of a partition that lost nothing it is as
// good as before, although another leader was elected.
func snapshotOutlivesTheTail(t *testing.T, k *kafkatest.Kafka, dir string) {
	t.Helper()
	l := open(t, k.Brokers(), "snap")
	for range 10 {
		appendOne(t, l, 0)
		appendOne(t, l, 1)
	}
	folds := map[int32]*ledger.Partition{0: ledger.NewPartition(0), 1: ledger.NewPartition(1)}
	for p, fold := range folds {
		foldTo(t, l, fold, 5)
		write(t, l, fold)
		foldTo(t, l, fold, 10)
		write(t, l, fold)
		require.Equal(t, p, fold.Index())
	}
	require.NoError(t, k.Kill())
	log := segment(dir, "snap")
	require.NoError(t, os.Truncate(log, batchAt(t, log, 7)))
	require.NoError(t, k.Restart(t.Context()))

	after := open(t, k.Brokers(), "snap")
	for range 2 {
		for name, l := range map[string]*eventlog.Log{"running": l, "resuming": after} {
			_, _, err := l.Resume(within(t), 0)
			require.ErrorIs(t, err, eventlog.ErrDataLoss, name)
			fold, from, err := l.Resume(within(t), 1)
			require.NoError(t, err, name)
			require.Equal(t, eventlog.Start{Offset: 10, LeaderEpoch: folds[1].LeaderEpoch()}, from, name)
			require.Equal(t, folds[1].StateHash(), fold.StateHash(), name)
		}
		for range 10 { // beyond the snapshot
			appendOne(t, after, 0)
			appendOne(t, after, 1)
		}
	}

	// What cannot be decoded is no snapshot, and no loss.
	flip(t, partitionFile(dir, "snap.snapshots-1"), 1)
	fold, _, err := after.Resume(within(t), 1)
	require.NoError(t, err)
	require.Zero(t, fold.Position())
	_, _, err = after.WriteSnapshot(within(t), snapshot(folds[1]))
	require.ErrorIs(t, err, eventlog.ErrCorrupt)
}

func open(t *testing.T, brokers []string, prefix string) *eventlog.Log {
	t.Helper()
	cfg := eventlog.Config{
		Brokers: brokers, Prefix: prefix, AllowSingleReplica: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 2})
	require.NoError(t, err)
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func appendOne(t *testing.T, l *eventlog.Log, partition int32) {
	t.Helper()
	_, err := l.AppendWait(within(t), claim(t, partition, strings.Repeat("w", 100)))
	require.NoError(t, err)
}

func claim(t testing.TB, partition int32, worker string) ledger.Message {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	msg, err := ledger.Encode(partition, ledger.Meta{EventID: id, Source: "/keten/test", Time: time.Now()},
		ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: worker})
	require.NoError(t, err)
	return msg
}

func reader(t *testing.T, l *eventlog.Log, from eventlog.Start) *eventlog.Reader {
	t.Helper()
	r, err := l.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{0: from}})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// readUpTo polls until the record at an offset came and returns it.
func readUpTo(t *testing.T, r *eventlog.Reader, offset int64) ledger.Record {
	t.Helper()
	ctx := within(t)
	for {
		fetched, err := r.Poll(ctx, 1)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			if last := f.Records[len(f.Records)-1]; last.Offset >= offset {
				return last
			}
		}
	}
}

// pollError polls until a partition is over. Nothing may come before.
func pollError(t *testing.T, r *eventlog.Reader) error {
	t.Helper()
	fetched, err := r.Poll(within(t), 100)
	require.NoError(t, err)
	require.Len(t, fetched, 1)
	require.Empty(t, fetched[0].Records)
	return fetched[0].Err
}

// flip damages the batch of an offset in a segment.
func flip(t *testing.T, segment string, offset uint64) {
	t.Helper()
	at := batchAt(t, segment, offset) + 80 // behind the header, in the record
	f, err := os.OpenFile(segment, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 0xff}, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// segment is the file in which Kafka keeps partition 0 of a ledger.
func segment(dir, prefix string) string { return partitionFile(dir, prefix+".ledger-0") }

// partitionFile is the file in which Kafka keeps a partition.
func partitionFile(dir, partition string) string {
	return filepath.Join(dir, "data", partition, "00000000000000000000.log")
}

// batchAt returns where the batch of an offset begins in a segment. Every record
// here is a batch of its own.
func batchAt(t *testing.T, path string, offset uint64) int64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	at := 0
	for binary.BigEndian.Uint64(raw[at:]) != offset {
		at += 12 + int(binary.BigEndian.Uint32(raw[at+8:])) // offset and length come before what the length counts
		require.Less(t, at, len(raw))
	}
	return int64(at)
}
