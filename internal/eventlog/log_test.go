package eventlog_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

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
}

// The library asks brokers with one fetch at a time, so a partition that is
// assigned while an idle fetch waits is late by as much.
func TestIdleGroupTakesOverSoon(t *testing.T) {
	t.Parallel()
	brokers := embedded(t, 1).ListenAddrs()
	first, second := open(t, brokers, "idle"), open(t, brokers, "idle")
	cfg := eventlog.GroupConfig{Group: "idle", From: func(int32) eventlog.Start { return eventlog.Start{LeaderEpoch: -1} }}
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
