package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/kafkatest"
)

func client(t *testing.T, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func TestBrokersAreSharedAndServe(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Brokers(t)
	require.Equal(t, brokers, kafkatest.Brokers(t))
	cl := client(t, brokers)
	topic := "shared-" + time.Now().Format("150405.000000000")
	_, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, topic)
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
}

// Chaos tests stand on this: what was acknowledged before kill -9 is there
// after a restart on the same address, and a paused broker answers late, not
// never.
func TestKafkaIsKilledPausedAndStartedAgain(t *testing.T) {
	t.Parallel()
	k := kafkatest.New(t, kafkatest.Config{HeapMB: 256})
	brokers := k.Brokers()
	cl := client(t, brokers, kgo.DefaultProduceTopic("events"))
	_, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "events")
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("before")).FirstErr())

	require.NoError(t, k.Kill())
	require.NoError(t, k.Restart(t.Context()))
	require.Equal(t, brokers, k.Brokers())

	require.NoError(t, k.Pause())
	paused, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = kadm.NewClient(client(t, brokers)).BrokerMetadata(paused)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, k.Resume())

	require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("after")).FirstErr())
	reader := client(t, brokers, kgo.ConsumeTopics("events"))
	var got []string
	for len(got) < 2 {
		fetches := reader.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	require.Equal(t, []string{"before", "after"}, got)
}
