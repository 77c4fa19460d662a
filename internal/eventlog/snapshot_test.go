package eventlog_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/internal/eventlog"
)

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

func plainClient(t *testing.T, cluster *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}
