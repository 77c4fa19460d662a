package eventlogtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// From a snapshot and the records behind it comes what comes from all records.
func (s *suite) snapshotComesBack(t *testing.T) {
	l, cfg := s.open(t)
	fold, from, err := l.Resume(within(t, patience), 1)
	require.NoError(t, err)
	require.Zero(t, fold.Position(), "without a snapshot one begins at the beginning")
	require.Equal(t, eventlog.Start{LeaderEpoch: -1}, from)
	_, found, err := l.ReadSnapshot(within(t, patience), 1)
	require.NoError(t, err)
	require.False(t, found)

	appendAll(t, l, collections(t, 1, 3)...)
	taken := snapshot(foldAll(t, l, 1))
	require.Greater(t, len(taken.State), 512<<10, "or it is one chunk only")
	write(t, l, taken)
	n := len(s.chunkKeys(t, cfg, 1))
	require.Greater(t, n, 1)
	// Other builds cut a snapshot in the same places, so each may replace any
	// chunk of the other.
	s.produceChunks(t, s.chunks(t, l, cfg, taken, n)[1:]...)
	appendAll(t, l, message(t, 1, 1), message(t, 1, 2))

	other := reopen(t, cfg)
	restored, found, err := other.ReadSnapshot(within(t, patience), 1)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, eventlog.SnapshotRef{Position: taken.Position, Bytes: int64(len(taken.State))}, restored.SnapshotRef)
	require.Equal(t, sha256.Sum256(taken.State), restored.Fold.StateHash())

	fold, from, err = other.Resume(within(t, patience), 1)
	require.NoError(t, err)
	require.Equal(t, taken.Position, from.Offset)
	require.Equal(t, fold.LeaderEpoch(), from.LeaderEpoch)
	apply(t, fold, read(t, reader(t, other, map[int32]eventlog.Start{1: from}), 2)[1])
	require.Equal(t, foldAll(t, l, 1).StateHash(), fold.StateHash())

	_, _, err = l.Resume(within(t, patience), partitions)
	require.ErrorContains(t, err, "the ledger has 3 partitions")
	_, _, err = l.WriteSnapshot(within(t, patience), eventlog.Snapshot{Partition: 1})
	require.Error(t, err)
}

// A process that starts resumes all its partitions at once.
func (s *suite) manyResumeAtOnce(t *testing.T) {
	cfg := s.config(t)
	const n = 16
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: n})
	require.NoError(t, err)
	l := reopen(t, cfg)
	want := make([]int64, n)
	for p := range int32(n) {
		for i := range int(p) {
			appendAll(t, l, message(t, p, i))
		}
		if p%2 == 1 {
			want[p] = int64(p) + 1
			write(t, l, snapshot(foldAll(t, l, p)))
		}
	}
	got, errs := make([]int64, n), make([]error, n)
	var wg sync.WaitGroup
	fresh := reopen(t, cfg)
	for p := range int32(n) {
		wg.Go(func() {
			var fold *ledger.Partition
			if fold, _, errs[p] = fresh.Resume(within(t, patience), p); errs[p] == nil {
				got[p] = fold.Position()
			}
		})
	}
	wg.Wait()
	require.Equal(t, make([]error, n), errs)
	require.Equal(t, want, got)
}

func (s *suite) snapshotIsSkippedWhenRecent(t *testing.T) {
	l, _ := s.open(t)
	appendMany(t, l, 2_500)
	first := snapshot(foldAll(t, l, 0))
	write(t, l, first)
	skip(t, l, first, first.Position)

	appendMany(t, l, 4_999)
	next := snapshot(foldAll(t, l, 0))
	next.Final, next.Since, next.LogBytes = false, first.Position, 1<<30
	skip(t, l, next, first.Position) // one record less than needed
	appendMany(t, l, 1)
	next = snapshot(foldAll(t, l, 0))
	next.Final, next.Since, next.LogBytes = false, first.Position, int64(len(first.State))-1
	skip(t, l, next, first.Position) // one byte less
	// Who has counted from before the snapshot of somebody else counts a share.
	next.Since, next.LogBytes = 0, int64(len(first.State))
	skip(t, l, next, first.Position)
	next.LogBytes = 2 * int64(len(first.State))
	write(t, l, next)

	early := first
	early.Position--
	skip(t, l, early, next.Position)
	appendMany(t, l, 1)
	last := snapshot(foldAll(t, l, 0))
	last.Final = false
	skip(t, l, last, next.Position)
	last.Final = true
	write(t, l, last)
}

// skip checks that a snapshot is not written because there is another.
func skip(t *testing.T, l *eventlog.Log, s eventlog.Snapshot, because int64) {
	t.Helper()
	newest, written, err := l.WriteSnapshot(within(t, patience), s)
	require.NoError(t, err)
	require.False(t, written)
	require.Equal(t, because, newest.Position)
}

// Whatever a writer leaves behind when it dies, the snapshot before is used.
func (s *suite) tornSnapshotsAreNotUsed(t *testing.T) {
	l, cfg := s.open(t)
	const n = 5
	for i := range n + 1 {
		appendAll(t, l, message(t, 0, i), message(t, 1, i), message(t, 2, i))
	}
	folds := foldEach(t, l, 0)
	for k := range n {
		s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[2+k]), n)[:k]...)
	}
	_, found, err := l.ReadSnapshot(within(t, patience), 0)
	require.NoError(t, err)
	require.False(t, found, "five torn ones are none")
	require.Len(t, s.chunkKeys(t, cfg, 0), 0+1+2+3+4)

	folds = foldEach(t, l, 1)
	write(t, l, snapshot(folds[1]))
	for k := range n {
		s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[2+k]), n)[:k]...)
		requireNewest(t, l, folds[1])
	}
	// The order in which chunks come does not matter, nor which of them is
	// missing, nor that a record of another key may be in its place.
	folds = foldEach(t, l, 2)
	write(t, l, snapshot(folds[1]))
	for k := range n {
		torn := s.chunks(t, l, cfg, snapshot(folds[2+k]), n)
		slices.Reverse(torn)
		torn[k].Key = append(torn[k].Key, '0') // of 50
		s.produceChunks(t, torn...)
		requireNewest(t, l, folds[1])
	}
	// What is missing may come late.
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[3]), n)...)
	requireNewest(t, l, folds[3])
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[2+n-1]), n)...)
	requireNewest(t, l, folds[2+n-1])
}

// Two owners of one partition, of different queues, may write at once.
func (s *suite) chunksOfTwoWritersDoNotMix(t *testing.T) {
	l, cfg := s.open(t)
	for i := range 6 {
		appendAll(t, l, message(t, 0, i), message(t, 1, i), message(t, 2, i))
	}
	interleave := func(a, b []*kgo.Record) (all []*kgo.Record) {
		for i := range a {
			all = append(all, a[i], b[i])
		}
		return all
	}
	folds := foldEach(t, l, 0)
	a, b := s.chunks(t, l, cfg, snapshot(folds[4]), 4), s.chunks(t, l, cfg, snapshot(folds[5]), 4)
	s.produceChunks(t, interleave(b, a)...)
	requireNewest(t, l, folds[5])

	// The same snapshot, written by both, and by a third in other pieces.
	folds = foldEach(t, l, 1)
	a = s.chunks(t, l, cfg, snapshot(folds[4]), 4)
	s.produceChunks(t, interleave(a, s.chunks(t, l, cfg, snapshot(folds[4]), 4))...)
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[4]), 3)[1:]...)
	requireNewest(t, l, folds[4])

	// Snapshots of one position and two histories: every chunk is there once.
	folds = foldEach(t, l, 2)
	a, b = s.chunks(t, l, cfg, snapshot(folds[5]), 4), s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 2, 5)), 4)
	s.produceChunks(t, a[0], b[1], a[2], b[3])
	_, found, err := l.ReadSnapshot(within(t, patience), 2)
	require.NoError(t, err)
	require.False(t, found)
	s.produceChunks(t, a[1], a[3])
	requireNewest(t, l, folds[5])
}

// Snapshots that cannot be used are no loss, and those before them count.
func (s *suite) unusableSnapshotsArePassedOver(t *testing.T) {
	l, cfg := s.open(t)
	for i := range 8 {
		appendAll(t, l, message(t, 0, i), message(t, 1, i))
	}
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[2]))
	good := snapshot(folds[3])
	for name, produce := range map[string]func(){
		"a flipped bit": func() {
			damaged := s.chunks(t, l, cfg, good, 3)
			damaged[1].Value = bytes.Clone(damaged[1].Value)
			damaged[1].Value[len(damaged[1].Value)/2] ^= 1
			s.produceChunks(t, damaged...)
		},
		"an unknown codec": func() {
			unknown := good
			unknown.State = bytes.Clone(good.State)
			unknown.State[bytes.IndexByte(good.State, '\n')+1] = 4 // behind what opens every snapshot
			s.produceChunks(t, s.chunks(t, l, cfg, unknown, 2)...)
		},
		"the position of another": func() {
			misplaced := good
			misplaced.Position++
			s.produceChunks(t, s.chunks(t, l, cfg, misplaced, 2)...)
		},
		"the partition of another": func() {
			misplaced := good
			misplaced.State = snapshot(foldEach(t, l, 1)[good.Position]).State
			s.produceChunks(t, s.chunks(t, l, cfg, misplaced, 1)...)
		},
		"nobody's": func() {
			strange := s.chunks(t, l, cfg, good, 1)
			strange[0].Headers = nil
			s.produceChunks(t, strange...)
		},
		"a strange key": func() {
			for _, change := range []func(string) string{
				func(key string) string { return "0" + key }, strings.ToUpper,
				func(key string) string { return strings.Replace(key, "0/", "1/", 1) },
				func(key string) string { return key + "/1" }, func(string) string { return "" },
			} {
				strange := s.chunks(t, l, cfg, good, 1)
				strange[0].Key = []byte(change(string(strange[0].Key)))
				s.produceChunks(t, strange...)
			}
		},
	} {
		produce()
		require.NotPanics(t, func() { requireNewest(t, l, folds[2]) }, name)
	}
	write(t, l, snapshot(folds[6]))
	requireNewest(t, l, folds[6])
}

// A writer leaves the two newest snapshots, and nothing of what is older.
func (s *suite) oldSnapshotsAreDeleted(t *testing.T) {
	l, cfg := s.open(t)
	for i := range 8 {
		appendAll(t, l, message(t, 0, i))
	}
	folds := foldEach(t, l, 0)
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[1]), 3)[:2]...)
	write(t, l, snapshot(folds[2]))
	require.Equal(t, map[int64]int{1: 2, 2: 1}, s.chunkCounts(t, cfg), "the first has none to keep")
	write(t, l, snapshot(folds[3]))
	require.Equal(t, map[int64]int{2: 1, 3: 1}, s.chunkCounts(t, cfg))
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(folds[4]), 3)[1:]...)
	damaged := s.chunks(t, l, cfg, snapshot(folds[5]), 2)
	damaged[0].Value, damaged[1].Value = damaged[1].Value, damaged[0].Value
	s.produceChunks(t, damaged...)
	s.produceChunks(t, &kgo.Record{Topic: snapshotsTopic(cfg), Key: []byte("a stranger"), Value: []byte("!")})

	write(t, l, snapshot(folds[6]))
	require.Equal(t, map[int64]int{3: 1, 4: 2, 5: 2, 6: 1}, s.chunkCounts(t, cfg), "what is damaged does not count as the second newest")
	write(t, l, snapshot(folds[8]))
	require.Equal(t, map[int64]int{6: 1, 8: 1}, s.chunkCounts(t, cfg))
	require.Contains(t, s.liveKeys(t, cfg, 0), "a stranger")
	requireNewest(t, l, folds[8])
}

// requireNewest checks that the snapshot of a fold is the one that is used.
func requireNewest(t *testing.T, l *eventlog.Log, fold *ledger.Partition) {
	t.Helper()
	s, found, err := l.ReadSnapshot(within(t, patience), fold.Index())
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, fold.Position(), s.Position)
	require.Equal(t, fold.StateHash(), s.Fold.StateHash())
}

// snapshot is one of a fold, to be written however recent the newest is.
func snapshot(fold *ledger.Partition) eventlog.Snapshot {
	return eventlog.Snapshot{Partition: fold.Index(), Position: fold.Position(), State: fold.Snapshot(), Final: true}
}

func write(t *testing.T, l *eventlog.Log, s eventlog.Snapshot) {
	t.Helper()
	newest, written, err := l.WriteSnapshot(within(t, patience), s)
	require.NoError(t, err)
	require.True(t, written)
	require.Equal(t, eventlog.SnapshotRef{Position: s.Position, Bytes: int64(len(s.State))}, newest)
}

// records are all records of a partition.
func records(t *testing.T, l *eventlog.Log, partition int32) []ledger.Record {
	t.Helper()
	ends, err := l.Ends(within(t, patience))
	require.NoError(t, err)
	return read(t, reader(t, l, beginning(partition)), int(ends[partition]))[partition]
}

func apply(t *testing.T, fold *ledger.Partition, records []ledger.Record) {
	t.Helper()
	for _, r := range records {
		_, err := fold.Apply(r)
		require.NoError(t, err)
	}
}

// foldAll folds a partition to its end.
func foldAll(t *testing.T, l *eventlog.Log, partition int32) *ledger.Partition {
	t.Helper()
	fold := ledger.NewPartition(partition)
	apply(t, fold, records(t, l, partition))
	return fold
}

// foldEach returns the folds at all positions of a partition.
func foldEach(t *testing.T, l *eventlog.Log, partition int32) []*ledger.Partition {
	t.Helper()
	all := records(t, l, partition)
	folds := make([]*ledger.Partition, len(all)+1)
	for n := range folds {
		folds[n] = ledger.NewPartition(partition)
		apply(t, folds[n], all[:n])
	}
	return folds
}

// appendMany appends n records to partition 0 without waiting for each.
func appendMany(t *testing.T, l *eventlog.Log, n int) {
	t.Helper()
	results := make(chan error, n)
	for i := range n {
		l.Append(message(t, 0, i), func(_ int64, err error) { results <- err })
	}
	for range n {
		require.NoError(t, <-results)
	}
}

// collections are n that the ledger accepts, of about 200 KiB each.
func collections(t *testing.T, partition int32, n int) []ledger.Message {
	t.Helper()
	args, err := json.Marshal(strings.Repeat("x", 200<<10))
	require.NoError(t, err)
	msgs := make([]ledger.Message, n)
	for i := range msgs {
		id := ledger.NewCollectionID(partition, time.Now(), [8]byte{byte(i)})
		msgs[i] = encode(t, partition, ledger.CollectionCreated{
			CollectionID: id, Tenant: "default", Name: "large", RequestHash: strings.Repeat("0", 64), AsOf: 1,
			Tasks: []ledger.Task{{
				ID: ledger.TaskID(id, ledger.KindTask, 0), Name: "only", Type: "noop", Queue: ledger.DefaultQueue, Args: args,
				OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts, TimeoutMS: ledger.DefaultTimeoutMS,
				Backoff: ledger.Backoff{InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS},
			}},
		})
	}
	return msgs
}

// chunks are the records of a snapshot in n pieces, as they stand in the topic.
func (s *suite) chunks(t *testing.T, l *eventlog.Log, cfg eventlog.Config, of eventlog.Snapshot, n int) []*kgo.Record {
	t.Helper()
	size := (len(of.State) + n - 1) / n
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = &kgo.Record{
			Topic: snapshotsTopic(cfg), Partition: of.Partition,
			Key:   fmt.Appendf(nil, "%d/%d/%x/%d/%d", of.Partition, of.Position, sha256.Sum256(of.State), i, n),
			Value: of.State[i*size : min((i+1)*size, len(of.State))],
			Headers: []kgo.RecordHeader{
				{Key: "ledger_id", Value: []byte(l.Info().LedgerID.String())},
				{Key: "topic_id", Value: []byte(s.topicID(t, cfg).String())},
			},
		}
	}
	return all
}

func (s *suite) topicID(t *testing.T, cfg eventlog.Config) uuid.UUID {
	t.Helper()
	topics, err := s.admin(t).ListTopics(within(t, patience), topic(cfg))
	require.NoError(t, err)
	return uuid.UUID(topics[topic(cfg)].ID)
}

func (s *suite) produceChunks(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	require.NoError(t, s.client(t).ProduceSync(within(t, patience), records...).FirstErr())
}

// liveKeys returns the keys in a partition of the snapshots topic that are not
// deleted, as compaction would leave them.
func (s *suite) liveKeys(t *testing.T, cfg eventlog.Config, partition int32) []string {
	t.Helper()
	ctx := within(t, patience)
	ends, err := s.admin(t).ListEndOffsets(ctx, snapshotsTopic(cfg))
	require.NoError(t, err)
	end, ok := ends.Lookup(snapshotsTopic(cfg), partition)
	require.True(t, ok)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		snapshotsTopic(cfg): {partition: kgo.NewOffset().AtStart()},
	}))
	require.NoError(t, err)
	defer client.Close()
	live := make(map[string]bool)
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if r.Value == nil {
				require.Contains(t, live, string(r.Key), "what is deleted is not deleted again")
				delete(live, string(r.Key))
				return
			}
			live[string(r.Key)] = true
		})
	}
	return slices.Sorted(maps.Keys(live))
}

// chunkKeys returns those of the live keys that are chunks'.
func (s *suite) chunkKeys(t *testing.T, cfg eventlog.Config, partition int32) []string {
	t.Helper()
	return slices.DeleteFunc(s.liveKeys(t, cfg, partition), func(key string) bool { return strings.Count(key, "/") != 4 })
}

// chunkCounts counts the chunks of partition 0 by position.
func (s *suite) chunkCounts(t *testing.T, cfg eventlog.Config) map[int64]int {
	t.Helper()
	counts := make(map[int64]int)
	for _, key := range s.chunkKeys(t, cfg, 0) {
		position, err := strconv.ParseInt(strings.Split(key, "/")[1], 10, 64)
		require.NoError(t, err)
		counts[position]++
	}
	return counts
}

// anotherHistory is a fold to a position of records that are not the log's, but
// of the same ledger.
func anotherHistory(t *testing.T, l *eventlog.Log, partition int32, position int64) *ledger.Partition {
	t.Helper()
	all := records(t, l, partition)
	fold := ledger.NewPartition(partition)
	apply(t, fold, all[:1])
	for fold.Position() < position {
		apply(t, fold, []ledger.Record{replaced(t, all[0], fold.Position())})
	}
	return fold
}

// replaced is a record that the log does not have at an offset; first is one
// that it has.
func replaced(t *testing.T, first ledger.Record, offset int64) ledger.Record {
	t.Helper()
	r := recordOf(message(t, first.Partition, int(1000+offset)))
	r.Offset, r.LeaderEpoch, r.TimeMS = offset, first.LeaderEpoch, first.TimeMS
	return r
}
