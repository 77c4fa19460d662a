package eventlog_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/internal/eventlog"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	_, err := eventlog.Open(t.Context(), eventlog.Config{Logger: logger})
	require.ErrorContains(t, err, "brokers and logger are required")
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: eventlog.Config{Brokers: []string{"127.0.0.1:1"}}})
	require.ErrorContains(t, err, "brokers and logger are required")
	for _, bad := range []eventlog.InitConfig{{Partitions: -1}, {Partitions: 4097}, {Window: -1}, {ReplicationFactor: -1}} {
		bad.Config = eventlog.Config{Brokers: []string{"127.0.0.1:1"}, Logger: logger}
		_, err = eventlog.Init(t.Context(), bad)
		require.ErrorContains(t, err, "partitions must be 1 to 4096")
	}
}

// A production ledger has three copies and is not called a single replica.
func TestThreeBrokersNeedNoPermission(t *testing.T) {
	t.Parallel()
	cfg := eventlog.Config{Brokers: embedded(t, 3).ListenAddrs(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	info, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	require.False(t, info.SingleReplica)
	require.Equal(t, int32(eventlog.DefaultPartitions), info.Partitions)
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	l.Close()
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, ReplicationFactor: 1})
	require.NoError(t, err, "the topic is there")

	cfg.Prefix = "few"
	for _, factor := range []int16{1, 2, 4} {
		_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, ReplicationFactor: factor})
		var refused *eventlog.PreflightError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "replication factor", refused.Setting)
	}
	cfg.AllowSingleReplica = true
	info, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	require.False(t, info.SingleReplica, "allowed, but not the case")
	cfg.Prefix = "one"
	info, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, ReplicationFactor: 1})
	require.NoError(t, err)
	require.True(t, info.SingleReplica)
}

// The library asks brokers with one fetch at a time, so a partition that is
// assigned while an idle fetch waits is late by as much.
func TestIdleGroupTakesOverSoon(t *testing.T) {
	t.Parallel()
	brokers := embedded(t, 1).ListenAddrs()
	first, second := open(t, brokers, "idle"), open(t, brokers, "idle")
	cfg := eventlog.GroupConfig{Group: "idle", From: fromBeginning}
	a, err := first.NewGroupReader(cfg)
	require.NoError(t, err)
	pollRecords(t, a, 2)
	b, err := second.NewGroupReader(cfg)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	moved := make(chan error, 1)
	go func() {
		_, err := b.Poll(t.Context(), 10)
		moved <- err
	}()
	// a must poll on, or it would not let go.
	ctx := within(t)
	go func() {
		for {
			if _, err := a.Poll(ctx, 10); err != nil {
				return
			}
		}
	}()
	require.NoError(t, <-moved)
	began := time.Now()
	a.Close()
	pollRecords(t, b, 1)
	require.Less(t, time.Since(began), 4*time.Second)
}

// Were a partition taken away and given back between a Poll and the use of what
// it brought, its owner would take records of the middle for its beginning.
func TestCallbacksRunWhilePollingOnly(t *testing.T) {
	t.Parallel()
	brokers := embedded(t, 1).ListenAddrs()
	first, second := open(t, brokers, "calls"), open(t, brokers, "calls")
	revoked := make(chan []int32, 10)
	a, err := first.NewGroupReader(eventlog.GroupConfig{Group: "calls", From: fromBeginning, Revoked: func(p []int32) { revoked <- p }})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	pollRecords(t, a, 2)

	b, err := second.NewGroupReader(eventlog.GroupConfig{Group: "calls", From: fromBeginning})
	require.NoError(t, err)
	t.Cleanup(b.Close)
	ctx := within(t)
	moved := make(chan error, 1)
	go func() {
		_, err := b.Poll(ctx, 10)
		moved <- err
	}()
	select {
	case <-revoked:
		require.Fail(t, "revoked behind the owner's back")
	case <-time.After(2 * time.Second): // four heartbeats
	}
	polling, stop := context.WithCancel(ctx)
	defer stop()
	polled := make(chan error, 1)
	go func() {
		_, err := a.Poll(polling, 10)
		polled <- err
	}()
	require.Len(t, <-revoked, 1)
	require.NoError(t, <-moved)
	stop()
	require.ErrorIs(t, <-polled, context.Canceled)
}

// A broker that finds its own log damaged says so instead of serving it. It is
// given time, as after a start, then the partition is over. Until then it is
// asked with pauses, and other partitions are not held up.
func TestBrokerThatCallsItsLogCorrupt(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	l := open(t, cluster.ListenAddrs(), "self")
	var asked atomic.Int64
	cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{0}, Err: kerr.CorruptMessage, Count: -1,
		When: func(kmsg.Request) bool { asked.Add(1); return true },
	})
	r, err := l.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{0: {LeaderEpoch: -1}, 1: {LeaderEpoch: -1}}})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	pollRecords(t, r, 1)
	began := time.Now()
	appendOne(t, l, 1)
	pollRecords(t, r, 1)
	require.Less(t, time.Since(began), 3*time.Second)
	fetched, err := r.Poll(within(t), 10)
	require.NoError(t, err)
	require.Len(t, fetched, 1)
	require.Zero(t, fetched[0].Partition)
	require.ErrorIs(t, fetched[0].Err, eventlog.ErrCorrupt)
	require.Greater(t, time.Since(began), 5*time.Second)
	require.Less(t, asked.Load(), int64(1000), "no hot loop")
}

// A partition whose leader is away is waited for, and both is logged once.
func TestLeaderlessPartitionIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := embedded(t, 1)
	var out lockedBuffer
	cfg := eventlog.Config{
		Brokers: cluster.ListenAddrs(), AllowSingleReplica: true,
		Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 1})
	require.NoError(t, err)
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	away := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	r := reader(t, l, eventlog.Start{LeaderEpoch: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	_, err = r.Poll(ctx, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	away.Remove()
	pollRecords(t, r, 1)
	require.Equal(t, 1, strings.Count(out.String(), "partition cannot be read at the moment"))
	require.Equal(t, 1, strings.Count(out.String(), "partition is read again"))
}

// Whoever waits for brokers opens the ledger again and again. The error says why
// it cannot be opened; the log of a process that waits for an hour stays short.
func TestOpenLeavesTheLogToItsCaller(t *testing.T) {
	t.Parallel()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, port.Close())
	var out lockedBuffer
	cfg := eventlog.Config{
		Brokers: []string{port.Addr().String()}, AllowSingleReplica: true,
		Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for range 3 {
		_, err = eventlog.Open(t.Context(), cfg)
		require.ErrorIs(t, err, eventlog.ErrUnreachable)
		require.ErrorContains(t, err, cfg.Brokers[0])
	}
	require.Empty(t, out.String())
}

// lockedBuffer takes what several goroutines log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func pollRecords(t *testing.T, r *eventlog.Reader, n int) {
	t.Helper()
	for n > 0 {
		fetched, err := r.Poll(within(t), 10)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			n -= len(f.Records)
		}
	}
}

// Several roles of one process have a Log each and share what they measure.
func TestMetricsAreSharedAndWellNamed(t *testing.T) {
	t.Parallel()
	brokers := embedded(t, 1).ListenAddrs()
	registry := prometheus.NewRegistry()
	cfg := eventlog.Config{
		Brokers: brokers, AllowSingleReplica: true, Registerer: registry,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	before := acknowledged(t, registry)
	for range 2 {
		l, err := eventlog.Open(t.Context(), cfg)
		require.NoError(t, err)
		appendOne(t, l, 0)
		l.Close()
	}
	require.InDelta(t, before+2, acknowledged(t, registry), 0)
	families, err := registry.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

func acknowledged(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "keten_appends_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "acknowledged" {
				return m.GetCounter().GetValue()
			}
		}
	}
	require.Fail(t, "keten_appends_total is missing")
	return 0
}

func fromBeginning(context.Context, int32) (eventlog.Start, error) {
	return eventlog.Start{LeaderEpoch: -1}, nil
}
