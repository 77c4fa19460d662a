package ledger_test

import (
	"math"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// Whatever the broker's clock says, a finally task gets its input.
func TestFinallyInputWithAnyTime(t *testing.T) {
	t.Parallel()
	for _, ms := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
		id := collectionID("A")
		p := ledger.NewPartition(0)
		for i, e := range []ledger.Event{
			ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: 10},
			ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "w1"},
			ledger.CollectionCreated{CollectionID: id, Tenant: "t", Name: "n", RequestHash: created(id).RequestHash, Tasks: tasks(id, nil), Finally: finally(id, map[string]string{"finally": "1"})},
			ledger.CancelRequested{CollectionID: id, Tenant: "t", Run: 1, RequestHash: created(id).RequestHash},
			ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 1, TaskID: ledger.TaskID(id, ledger.KindFinally, 0), Attempt: 1, Claim: 1, Worker: "w1"},
		} {
			r := record(t, 0, int64(i), e, nil)
			r.TimeMS = ms
			out, err := p.Apply(r)
			require.NoError(t, err)
			require.Equal(t, ledger.Accepted, out.Verdict, out.Reason)
		}
		a, ok := p.OpenAttempt(ledger.RunID{Collection: id, Run: 1})
		require.True(t, ok)
		require.Contains(t, string(a.Input), `"status":"canceled"`)
	}
}
