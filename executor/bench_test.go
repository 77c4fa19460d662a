package executor_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

const benchTasks = 5

// A benchWorld is an executor on loopback connections to a broker: one in this
// process that does not sync to disk, which shows what the executor itself
// costs, or a real Kafka.
type benchWorld struct {
	world

	ended  atomic.Int64
	target atomic.Int64
	done   chan struct{}

	mu    sync.Mutex
	begun map[uuid.UUID][]time.Time
}

// onBrokers runs a benchmark on both kinds of broker.
func onBrokers(b *testing.B, bench func(b *testing.B, brokers []string)) {
	b.Helper()
	b.Run("memory", func(b *testing.B) {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		require.NoError(b, err)
		defer cluster.Close()
		bench(b, cluster.ListenAddrs())
	})
	b.Run("kafka", func(b *testing.B) { bench(b, kafkatest.Brokers(b)) })
}

func newBenchWorld(b *testing.B, brokers []string, slots int) *benchWorld {
	b.Helper()
	cfg := eventlog.Config{
		Brokers: brokers, AllowSingleReplica: true, Logger: logger(),
		Prefix: "bench-" + uuid.NewString(),
	}
	_, err := eventlog.Init(b.Context(), eventlog.InitConfig{Config: cfg, Partitions: 12, ReplicationFactor: 1})
	require.NoError(b, err)
	w := &benchWorld{done: make(chan struct{}, 1), begun: make(map[uuid.UUID][]time.Time)}
	w.log, err = eventlog.Open(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(w.log.Close)
	cfg.ClientID = executor.NewWorkerID("default")
	log, err := eventlog.Open(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(log.Close)
	x, err := executor.New(executor.Config{
		Log: log, Registry: w.registry(), Worker: cfg.ClientID, Logger: logger(), Slots: slots,
	})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
	})
	return w
}

// registry counts the ends of chains and notes when tasks begin.
func (w *benchWorld) registry() *executor.Registry {
	reg := executor.NewRegistry()
	executor.Handle(reg, "noop", func(_ context.Context, t executor.Task[addArgs]) (sum, error) {
		if t.Args.N == 1 {
			w.mu.Lock()
			w.begun[t.Collection] = append(w.begun[t.Collection], time.Now())
			w.mu.Unlock()
		}
		if t.TaskID == ledger.TaskID(t.Collection, ledger.KindTask, benchTasks-1) && w.ended.Add(1) == w.target.Load() {
			w.done <- struct{}{}
		}
		return sum{1}, nil
	})
	return reg
}

func (w *benchWorld) chain(text string) []ledger.Task {
	return slices.Repeat([]ledger.Task{task("noop", args(text))}, benchTasks)
}

// run starts n chains as fast as the broker takes them and waits for the start
// of the last task of the last one.
func (w *benchWorld) run(b *testing.B, n int) {
	b.Helper()
	w.target.Store(w.ended.Load() + int64(n))
	for i := range n {
		w.submit(b, int32(i%12))
	}
	<-w.done
}

func (w *benchWorld) submit(b *testing.B, partition int32) {
	b.Helper()
	asOf, err := w.log.End(b.Context(), partition)
	require.NoError(b, err)
	id := newID(partition)
	msg, err := ledger.Encode(partition, ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: "/keten/test", Time: time.Now()},
		ledger.CollectionCreated{
			CollectionID: id, Tenant: "default", Name: "bench", RequestHash: hash, AsOf: asOf, Tasks: number(id, 0, w.chain(`{}`)),
		})
	require.NoError(b, err)
	w.log.Append(msg, func(_ int64, err error) {
		if err != nil {
			panic(err)
		}
	})
}

// Chains of five no-op tasks with results, 2,000 at a time.
func BenchmarkChains(b *testing.B) {
	const batch = 2_000
	onBrokers(b, func(b *testing.B, brokers []string) {
		w := newBenchWorld(b, brokers, 1024)
		w.run(b, batch) // warm
		for b.Loop() {
			w.run(b, batch)
		}
		b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "chains/s")
	})
}

// The time from the start of one task to the start of the next, one chain at a
// time.
func BenchmarkTaskToTask(b *testing.B) {
	onBrokers(b, func(b *testing.B, brokers []string) {
		w := newBenchWorld(b, brokers, 16)
		w.run(b, 2_000) // warm
		var hops []time.Duration
		for b.Loop() {
			hops = append(hops, w.hops(b)...)
		}
		slices.Sort(hops)
		b.ReportMetric(float64(hops[len(hops)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(hops[len(hops)*99/100].Microseconds()), "p99-µs")
	})
}

// hops runs one chain and returns the times between the starts of its tasks.
func (w *benchWorld) hops(b *testing.B) []time.Duration {
	b.Helper()
	w.target.Store(w.ended.Load() + 1)
	id := w.create(b, 3, w.chain(`{"n":1}`)...)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	var hops []time.Duration
	for i := 1; i < len(w.begun[id]); i++ {
		hops = append(hops, w.begun[id][i].Sub(w.begun[id][i-1]))
	}
	return hops
}
