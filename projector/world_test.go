package projector_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/projector"
)

const (
	partitions = 3
	patience   = time.Minute // on a machine that does much else
	pollEvery  = 5 * time.Millisecond
)

// world is a ledger and an empty database.
type world struct {
	config eventlog.Config
	log    *eventlog.Log
	url    string
}

// newWorld makes one on a broker in memory.
func newWorld(t testing.TB) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return newWorldOn(t, cluster.ListenAddrs())
}

func newWorldOn(t testing.TB, brokers []string) *world {
	t.Helper()
	w := &world{url: pgtest.URL(t), config: eventlog.Config{
		Brokers: brokers, Prefix: "projector-" + uuid.NewString(), AllowSingleReplica: true, Logger: quiet(),
	}}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: w.config, Partitions: partitions, ReplicationFactor: 1})
	require.NoError(t, err)
	w.log, err = eventlog.Open(t.Context(), w.config)
	require.NoError(t, err)
	t.Cleanup(w.log.Close)
	return w
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// history makes records for this ledger; the genesis is in the log already.
func (w *world) history(t testing.TB, o history.Options) [][]ledger.Record {
	t.Helper()
	o.LedgerID, o.Partitions = w.log.Info().LedgerID, partitions
	logs, err := history.Make(o)
	require.NoError(t, err)
	for i := range logs {
		logs[i] = logs[i][1:]
	}
	return logs
}

// append writes records, in their order, and waits for them all.
func (w *world) append(t testing.TB, logs [][]ledger.Record) {
	t.Helper()
	var waiting sync.WaitGroup
	for _, log := range logs {
		for _, r := range log {
			waiting.Add(1)
			m := ledger.Message{Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}
			w.log.Append(m, func(offset int64, err error) {
				defer waiting.Done()
				if err != nil || offset != r.Offset {
					t.Errorf("record %d landed at %d: %v", r.Offset, offset, err)
				}
			})
		}
	}
	waiting.Wait()
}

// open returns a migrated store of a schema.
func (w *world) open(t testing.TB, url, schema string) *readmodel.Store {
	t.Helper()
	s, err := readmodel.Open(t.Context(), readmodel.Config{URL: url, Schema: schema, Logger: quiet()})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// running is a projector at work.
type running struct {
	*projector.Projector

	metrics *prometheus.Registry
	log     *syncBuffer
	cancel  context.CancelFunc
	done    chan error
}

func (w *world) start(t testing.TB, s *readmodel.Store, change func(*projector.Config)) *running {
	t.Helper()
	r := &running{metrics: prometheus.NewRegistry(), log: &syncBuffer{}, done: make(chan error, 1)}
	cfg := projector.Config{
		Log: w.log, Store: s, Logger: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: r.metrics,
		Takeover: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	r.Projector, err = projector.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends a projector in the middle of what it does.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	select {
	case err, ok := <-r.done:
		if ok {
			require.NoError(t, err)
			close(r.done)
		}
	case <-time.After(patience):
		require.FailNow(t, "the projector does not stop")
	}
}

// awaitEnd waits until the tables hold all of the log.
func (w *world) awaitEnd(t testing.TB, s *readmodel.Store) {
	t.Helper()
	ends, err := w.log.Ends(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return stands(t, s, ends) }, patience, pollEvery)
}

func stands(t testing.TB, s *readmodel.Store, at map[int32]int64) bool {
	t.Helper()
	positions, err := s.Positions(t.Context())
	require.NoError(t, err)
	reached := 0
	for _, p := range positions {
		if p.Offset >= at[p.Partition] {
			reached++
		}
	}
	return reached == len(at)
}

// read returns the log as the broker has it.
func (w *world) read(t testing.TB) [][]ledger.Record {
	t.Helper()
	ends, err := w.log.Ends(t.Context())
	require.NoError(t, err)
	from, left := make(map[int32]eventlog.Start), int64(0)
	for p, end := range ends {
		from[p] = eventlog.Start{LeaderEpoch: -1}
		left += end
	}
	reader, err := w.log.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(t, err)
	defer reader.Close()
	logs := make([][]ledger.Record, len(ends))
	for left > 0 {
		fetched, err := reader.Poll(t.Context(), 1000)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			logs[f.Partition] = append(logs[f.Partition], f.Records...)
			left -= int64(len(f.Records))
		}
	}
	return logs
}

// want is the dump of the log, projected record by record without a projector.
func (w *world) want(t testing.TB) string {
	t.Helper()
	s := w.open(t, w.url, "want")
	id := w.log.Info().LedgerID
	_, err := s.Checkpoints(t.Context(), id, partitions)
	require.NoError(t, err)
	for i, log := range w.read(t) {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			c := readmodel.NewChanges(readmodel.CheckpointOf(id, fold))
			o, err := fold.Apply(r)
			require.NoError(t, err)
			c.Add(r, o)
			c.To = readmodel.CheckpointOf(id, fold)
			require.NoError(t, s.Write(t.Context(), []*readmodel.Changes{c}))
		}
	}
	return dump(t, s)
}

func dump(t testing.TB, s *readmodel.Store) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, s.Dump(t.Context(), &b))
	return b.String()
}

// equalDumps fails with the first line that differs, not with all of them.
func equalDumps(t testing.TB, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			require.FailNow(t, "rows differ", "line %d:\nwant %.2000s\ngot  %.2000s", i+1, w[i], g[i])
		}
	}
	require.FailNow(t, "rows differ", "want %d lines, got %d", len(w), len(g))
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// metric returns the sum of a metric over all of its labels that fit.
func (r *running) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			fits := true
			for i := 0; i < len(labels); i += 2 {
				for _, l := range m.GetLabel() {
					fits = fits && (l.GetName() != labels[i] || l.GetValue() == labels[i+1])
				}
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
