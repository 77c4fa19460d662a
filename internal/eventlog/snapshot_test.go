package eventlog_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

func TestSnapshotDue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		newest         eventlog.SnapshotRef
		records, bytes int64
		due            bool
	}{
		{eventlog.SnapshotRef{}, 0, 0, false},
		{eventlog.SnapshotRef{}, 4_999, 1 << 40, false},
		{eventlog.SnapshotRef{}, 5_000, 0, true},
		{eventlog.SnapshotRef{Position: 70, Bytes: 1000}, 5_000, 999, false},
		{eventlog.SnapshotRef{Position: 70, Bytes: 1000}, 5_000, 1000, true},
		{eventlog.SnapshotRef{Position: 70, Bytes: 1000}, 1 << 40, 999, false},
		{eventlog.SnapshotRef{Position: 70, Bytes: 1000}, 4_999, 1000, false},
	} {
		require.Equal(t, c.due, eventlog.SnapshotDue(c.newest, c.records, c.bytes), c)
	}
}

// A writer that dies between two chunks leaves what nobody uses.
func TestWriterDiesBetweenChunks(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	l := open(t, cluster.ListenAddrs(), "dies")
	appendOne(t, l, 0)
	first := foldUpTo(t, l, 2)
	write(t, l, first)
	for range 7 {
		appendLarge(t, l)
	}
	left := 1
	for k := range 3 {
		fold := foldUpTo(t, l, int64(6+k))
		require.Greater(t, len(fold.Snapshot()), 2*512<<10, "three chunks at least")
		away := refuseProduce(cluster, "dies.snapshots", k)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, written, err := l.WriteSnapshot(ctx, snapshot(fold))
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, written)
		left += k
		require.Len(t, keys(t, cluster, "dies.snapshots"), left)
		requireSnapshot(t, l, first)
		away.Remove() // so late that what was on its way is refused, too
	}
	require.Len(t, keys(t, cluster, "dies.snapshots"), left, "nobody goes on with what was given up")
	last := foldUpTo(t, l, 9)
	write(t, l, last)
	requireSnapshot(t, l, last)
}

// refuseProduce lets so many produce requests to a topic pass, and no more.
func refuseProduce(cluster *kfake.Cluster, topic string, pass int) *kfake.FaultHandle {
	var last kmsg.Request
	return cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1,
		When: func(req kmsg.Request) bool {
			if req != last { // one request is asked about more than once
				last = req
				pass--
			}
			return pass < 0
		},
	})
}

// What compaction leaves is what counted before.
func TestSnapshotsSurviveCompaction(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	l := open(t, cluster.ListenAddrs(), "compact")
	ids := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Count: -1, Observe: true})
	for position := int64(2); position < 12; position++ {
		appendLarge(t, l)
		write(t, l, foldUpTo(t, l, position))
	}
	before := len(keys(t, cluster, "compact.snapshots"))
	cluster.Compact()
	require.Less(t, len(keys(t, cluster, "compact.snapshots")), before)
	requireSnapshot(t, l, foldUpTo(t, l, 11))
	appendLarge(t, l)
	write(t, l, foldUpTo(t, l, 12))
	cluster.Compact()
	requireSnapshot(t, l, foldUpTo(t, l, 12))
	require.LessOrEqual(t, ids.Hits(), 1, "brokers remember the producer id of each writer for a day")

	// An operator may cut the topic, too.
	admin := kadm.NewClient(plainClient(t, cluster))
	ends, err := admin.ListEndOffsets(t.Context(), "compact.snapshots")
	require.NoError(t, err)
	var cut kadm.Offsets
	cut.AddOffset("compact.snapshots", 0, ends["compact.snapshots"][0].Offset-1, -1)
	_, err = admin.DeleteRecords(t.Context(), cut)
	require.NoError(t, err)
	_, found, err := l.ReadSnapshot(within(t), 0)
	require.NoError(t, err)
	require.False(t, found)
}

// The newest snapshot may be deleted while it is read, because two newer ones
// were written meanwhile.
func TestSnapshotIsDeletedWhileItIsRead(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	l := open(t, cluster.ListenAddrs(), "gone")
	other := open(t, cluster.ListenAddrs(), "gone")
	for range 6 {
		appendOne(t, l, 0)
	}
	// Compaction is to leave a hole, not to cut the beginning.
	stranger := &kgo.Record{Topic: "gone.snapshots", Key: []byte("kept"), Value: []byte("!")}
	require.NoError(t, plainClient(t, cluster, kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(within(t), stranger).FirstErr())
	write(t, other, foldUpTo(t, l, 2))
	newest := foldUpTo(t, l, 6)
	fetches := 0
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if fetch, ok := req.(*kmsg.FetchRequest); !ok || fetch.MaxWaitMillis > 0 { // a reader's
			return nil, nil, false
		}
		if fetches++; fetches == 2 { // the first chunk, after the partition was looked through
			cluster.SleepControl(func() {
				write(t, other, foldUpTo(t, other, 4))
				write(t, other, foldUpTo(t, other, 5))
				write(t, other, newest)
				cluster.Compact()
			})
		}
		return nil, nil, false
	})
	requireSnapshot(t, l, newest)
	require.Greater(t, fetches, 2)
}

// A process that may not create the topic says what is to be done.
func TestSnapshotsTopicMayNotBeCreated(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	cfg := eventlog.Config{
		Brokers: cluster.ListenAddrs(), AllowSingleReplica: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	_, err = kadm.NewClient(plainClient(t, cluster)).DeleteTopic(t.Context(), "keten.snapshots")
	require.NoError(t, err)
	denied := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	_, err = eventlog.Open(t.Context(), cfg)
	var refused *eventlog.PreflightError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "topic keten.snapshots", refused.Setting)
	require.ErrorContains(t, err, "topic keten.snapshots is missing, but must be there; creating it failed: create topic keten.snapshots: TOPIC_AUTHORIZATION_FAILED")
	denied.Remove()
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	l.Close()
}

// Where the snapshots cannot be read for good, the ledger can: one folds from
// the beginning. Where the ledger cannot be read, nothing helps.
func TestBrokerThatCallsItsSnapshotsCorrupt(t *testing.T) {
	t.Parallel()
	snapshots, records := embedded(t, 1), embedded(t, 1)
	logs := make(map[*kfake.Cluster]*eventlog.Log)
	for cluster, topic := range map[*kfake.Cluster]string{snapshots: "bad.snapshots", records: "bad.ledger"} {
		l := open(t, cluster.ListenAddrs(), "bad")
		write(t, l, foldUpTo(t, l, 1))
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.CorruptMessage, Count: -1})
		logs[cluster] = l
	}
	failed := make(chan error, 2)
	go func() {
		_, _, err := logs[snapshots].WriteSnapshot(within(t), eventlog.Snapshot{Position: 9, State: []byte("any"), Final: true})
		failed <- err
	}()
	go func() {
		_, _, err := logs[records].Resume(within(t), 0)
		failed <- err
	}()
	fold, from, err := logs[snapshots].Resume(within(t), 0)
	require.NoError(t, err)
	require.Zero(t, fold.Position())
	require.Equal(t, eventlog.Start{LeaderEpoch: -1}, from)
	for range cap(failed) {
		err := <-failed
		require.ErrorIs(t, err, eventlog.ErrCorrupt)
		require.NotErrorIs(t, err, eventlog.ErrDataLoss)
	}
}

func TestSnapshotsAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	cluster := embedded(t, 1)
	cfg := eventlog.Config{
		Brokers: cluster.ListenAddrs(), AllowSingleReplica: true, Registerer: registry,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 1})
	require.NoError(t, err)
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	fold := foldUpTo(t, l, 1)
	write(t, l, fold)
	_, _, err = l.WriteSnapshot(within(t), snapshot(fold))
	require.NoError(t, err)
	requireSnapshot(t, l, fold)
	appendOne(t, l, 0)
	useless := snapshot(foldUpTo(t, l, 2))
	useless.State = append([]byte("another codec"), useless.State...) // met by a reader and by the next writer
	_, _, err = l.WriteSnapshot(within(t), useless)
	require.NoError(t, err)
	requireSnapshot(t, l, fold)
	beyond := snapshot(fold)
	beyond.Position = 9
	_, _, err = l.WriteSnapshot(within(t), beyond)
	require.NoError(t, err)
	_, _, err = l.ReadSnapshot(within(t), 0)
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = l.WriteSnapshot(ended, snapshot(fold))
	require.ErrorIs(t, err, context.Canceled)

	n := float64(len(fold.Snapshot()))
	require.Equal(t, map[string]float64{
		"written": 3, "skipped": 1, "failed": 1, "restored": 2, "unusable": 2, "refused": 1,
	}, counts(t, registry, "keten_snapshots_total"))
	require.Equal(t, map[string]float64{
		"written": 2*n + float64(len(useless.State)), "restored": 2 * n,
	}, counts(t, registry, "keten_snapshot_bytes_total"))
	require.Equal(t, map[string]float64{"snapshot 0": 1}, counts(t, registry, "keten_data_loss_total"))
}

// counts returns the values of a counter by its labels.
func counts(t *testing.T, registry *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	values := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			values[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	return values
}

// snapshot is one of a fold, to be written however recent the newest is.
func snapshot(fold *ledger.Partition) eventlog.Snapshot {
	return eventlog.Snapshot{Partition: fold.Index(), Position: fold.Position(), State: fold.Snapshot(), Final: true}
}

func write(t *testing.T, l *eventlog.Log, fold *ledger.Partition) {
	t.Helper()
	_, written, err := l.WriteSnapshot(within(t), snapshot(fold))
	require.NoError(t, err)
	require.True(t, written)
}

// requireSnapshot checks which snapshot of partition 0 is the newest.
func requireSnapshot(t *testing.T, l *eventlog.Log, fold *ledger.Partition) {
	t.Helper()
	s, found, err := l.ReadSnapshot(within(t), 0)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, fold.Position(), s.Position)
	require.Equal(t, fold.StateHash(), s.Fold.StateHash())
}

// appendLarge appends a collection that makes the state larger by about 300 KiB.
func appendLarge(t *testing.T, l *eventlog.Log) {
	t.Helper()
	id := ledger.NewCollectionID(0, time.Now(), [8]byte{byte(rand.Uint32()), byte(rand.Uint32())})
	tasks := make([]ledger.Task, 2)
	for i := range tasks {
		tasks[i] = ledger.Task{
			ID: ledger.TaskID(id, ledger.KindTask, i), Index: i, Name: strconv.Itoa(i), Type: "noop", Queue: ledger.DefaultQueue,
			Args:        json.RawMessage(`"` + noise(150<<10) + `"`),
			OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts, TimeoutMS: ledger.DefaultTimeoutMS,
			Backoff: ledger.Backoff{InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS},
		}
	}
	eventID, err := uuid.NewV7()
	require.NoError(t, err)
	msg, err := ledger.Encode(0, ledger.Meta{EventID: eventID, Source: "/keten/test", Time: time.Now()}, ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "large", RequestHash: strings.Repeat("0", 64), AsOf: 1, Tasks: tasks,
	})
	require.NoError(t, err)
	_, err = l.AppendWait(within(t), msg)
	require.NoError(t, err)
}

// noise is text that is hard to compress, so that brokers have as much to keep
// as there is.
func noise(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(strconv.FormatUint(rand.Uint64(), 36))
	}
	return b.String()[:n]
}

// foldUpTo folds the first records of partition 0.
func foldUpTo(t *testing.T, l *eventlog.Log, position int64) *ledger.Partition {
	t.Helper()
	fold := ledger.NewPartition(0)
	foldTo(t, l, fold, position)
	return fold
}

// foldTo folds a partition on, up to a position.
func foldTo(t *testing.T, l *eventlog.Log, fold *ledger.Partition, position int64) {
	t.Helper()
	r, err := l.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{
		fold.Index(): {Offset: fold.Position(), LeaderEpoch: fold.LeaderEpoch()},
	}})
	require.NoError(t, err)
	defer r.Close()
	for fold.Position() < position {
		fetched, err := r.Poll(within(t), 1)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			_, err := fold.Apply(f.Records[0])
			require.NoError(t, err)
		}
	}
}

func plainClient(t *testing.T, cluster *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// keys are those of all records in partition 0 of a topic.
func keys(t *testing.T, cluster *kfake.Cluster, topic string) (keys []string) {
	t.Helper()
	client := plainClient(t, cluster, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	ends, err := kadm.NewClient(client).ListEndOffsets(within(t), topic)
	require.NoError(t, err)
	for next := int64(0); next < ends[topic][0].Offset; {
		fetches := client.PollFetches(within(t))
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			keys, next = append(keys, string(r.Key)), r.Offset+1
		})
	}
	return keys
}
