package eventlog_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/internal/eventlogtest"
	"github.com/keten-ledger/keten/internal/kafkatest"
)

func TestOnEmbeddedBroker(t *testing.T) {
	t.Parallel()
	eventlogtest.Exercise(t, embedded(t, 1).ListenAddrs())
}

func TestOnThreeEmbeddedBrokers(t *testing.T) {
	t.Parallel()
	eventlogtest.Exercise(t, embedded(t, 3).ListenAddrs())
}

func TestOnApacheKafka(t *testing.T) {
	t.Parallel()
	eventlogtest.Exercise(t, kafkatest.Brokers(t))
}

func embedded(t *testing.T, brokers int) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(brokers))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}
