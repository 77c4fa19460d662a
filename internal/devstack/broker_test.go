//go:build unix

package devstack_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/devstack"
)

func startBroker(t *testing.T, cfg devstack.BrokerConfig) *devstack.Broker {
	t.Helper()
	cfg.Logger = testLogger(t)
	b, err := devstack.StartBroker(cfg)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func kafkaClient(t *testing.T, b *devstack.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addrs()...))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// A restart is what a developer does all day: records and their offsets stay.
func TestBrokerKeepsRecordsOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, devstack.BrokerConfig{Dir: dir})
	cl := kafkaClient(t, b, kgo.DefaultProduceTopic("events"))
	_, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "events")
	require.NoError(t, err)
	for _, v := range []string{"one", "two"} {
		require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord(v)).FirstErr())
	}
	cl.Close()
	b.Close()

	b = startBroker(t, devstack.BrokerConfig{Dir: dir})
	cl = kafkaClient(t, b, kgo.ConsumeTopics("events"))
	var got []string
	for len(got) < 2 {
		fetches := cl.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			require.Equal(t, int64(len(got)), r.Offset)
			got = append(got, string(r.Value))
		})
	}
	require.Equal(t, []string{"one", "two"}, got)
}

// One topic with a retention of its own wakes the broker's janitor for all
// topics; a ledger must not lose its beginning to a default.
func TestBrokerLetsNothingExpire(t *testing.T) {
	t.Parallel()
	b := startBroker(t, devstack.BrokerConfig{Dir: t.TempDir()})
	cl := kafkaClient(t, b)
	_, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "events")
	require.NoError(t, err)
	old := &kgo.Record{Topic: "events", Value: []byte("old"), Timestamp: time.Now().Add(-30 * 24 * time.Hour)}
	require.NoError(t, cl.ProduceSync(t.Context(), old).FirstErr())
	b.ApplyRetention()
	starts, err := kadm.NewClient(cl).ListStartOffsets(t.Context(), "events")
	require.NoError(t, err)
	start, ok := starts.Lookup("events", 0)
	require.True(t, ok)
	require.Zero(t, start.Offset)
}

func TestBrokerFolderHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startBroker(t, devstack.BrokerConfig{Dir: dir})
	_, err := devstack.StartBroker(devstack.BrokerConfig{Dir: dir, Logger: testLogger(t)})
	require.ErrorIs(t, err, devstack.ErrFolderInUse)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "another keten dev")
	first.Close()
	startBroker(t, devstack.BrokerConfig{Dir: dir})
}

func TestBrokerListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:9092", "example.com:9092"} {
		_, err := devstack.StartBroker(devstack.BrokerConfig{Dir: t.TempDir(), Addr: addr, Logger: testLogger(t)})
		require.Error(t, err, addr)
	}
	b := startBroker(t, devstack.BrokerConfig{Dir: t.TempDir(), Addr: "localhost:0"})
	host, _, err := net.SplitHostPort(b.Addr())
	require.NoError(t, err)
	require.True(t, net.ParseIP(host).IsLoopback())
}

func TestBrokerNamesATakenPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	_, err = devstack.StartBroker(devstack.BrokerConfig{Dir: dir, Addr: ln.Addr().String(), Logger: testLogger(t)})
	_, port, splitErr := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, splitErr)
	require.ErrorContains(t, err, "port "+port+" is taken")

	// The refused start has given the folder back.
	startBroker(t, devstack.BrokerConfig{Dir: dir})
}
