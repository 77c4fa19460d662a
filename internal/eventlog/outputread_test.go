package eventlog_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
)

// One partition of the output that stays broken is reported, however much the
// others deliver meanwhile; one that heals, or is only now and then in trouble,
// is not.
func TestOutputOfOnePartitionStaysBroken(t *testing.T) {
	t.Parallel()
	fetched := func(partitions ...kgo.FetchPartition) kgo.Fetches {
		return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "t", Partitions: partitions}}}}
	}
	broken := kgo.FetchPartition{Partition: 1, Err: kerr.NotLeaderForPartition}
	well := kgo.FetchPartition{Partition: 1, Records: []*kgo.Record{{Topic: "t", Partition: 1}}}
	other := kgo.FetchPartition{Partition: 0, HighWatermark: 1, Records: []*kgo.Record{{Topic: "t"}}}
	// polls sorts what comes each second.
	polls := func(n int, comes func(second int) kgo.Fetches) error {
		sort := eventlog.SortOutput("t")
		for i := range n {
			if _, err := sort(comes(i)); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := polls(100, func(i int) kgo.Fetches {
			if i%2 == 0 {
				return fetched(other)
			}
			return fetched(broken)
		})
		require.ErrorIs(t, err, kerr.NotLeaderForPartition)
		require.ErrorContains(t, err, "partition 1")
		require.Less(t, time.Since(began), 30*time.Second)

		require.NoError(t, polls(100, func(i int) kgo.Fetches {
			if i%10 == 0 {
				return fetched(well)
			}
			return fetched(broken, other)
		}), "it delivers now and then")
		require.NoError(t, polls(100, func(i int) kgo.Fetches {
			if i%20 == 0 {
				return fetched(broken)
			}
			return fetched(other)
		}), "it has nothing to deliver, and its leader moves now and then")
	})
}
