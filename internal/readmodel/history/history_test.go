package history_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

func make2(t *testing.T, o history.Options) [][]ledger.Record {
	t.Helper()
	o.LedgerID = uuid.MustParse("0197a1b2-0000-7000-8000-00000000c0de")
	logs, err := history.Make(o)
	require.NoError(t, err)
	return logs
}

// Without trouble every record is accepted and every chain succeeds, in eleven
// records where it has five tasks.
func TestMakeHonest(t *testing.T) {
	t.Parallel()
	logs := make2(t, history.Options{Seed: 1, Partitions: 3, Chains: 20, Tasks: 5})
	ended, records := 0, 0
	for i, log := range logs {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			o, err := fold.Apply(r)
			require.NoError(t, err)
			require.Equal(t, ledger.Accepted, o.Verdict, o.Reason)
			for _, c := range o.Collections {
				if c.Status == ledger.StatusSucceeded {
					ended++
				}
			}
		}
		require.Zero(t, fold.Active())
		records += len(log)
	}
	require.Equal(t, 20, ended)
	require.Equal(t, 20*11+3*2, records, "with a genesis and a claim in each partition")
}

// With trouble every verdict and every way a run can end is there.
func TestMakeTrouble(t *testing.T) {
	t.Parallel()
	o := history.Options{Seed: 1, Partitions: 2, Chains: 100, Tasks: 5, Trouble: true}
	seen := map[string]bool{}
	for i, log := range make2(t, o) {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			o, err := fold.Apply(r)
			require.NoError(t, err)
			seen[string(o.Verdict)] = true
			for _, c := range o.Collections {
				seen["run "+string(c.Status)] = true
				seen["again"] = seen["again"] || c.Run > 1
			}
			for _, a := range o.Attempts {
				seen["attempt "+string(a.Status)] = true
			}
		}
		require.Zero(t, fold.Active())
	}
	for _, want := range []string{
		"accepted", "duplicate", "stale", "invalid", "foreign", "run succeeded", "run failed", "run canceled", "again",
		"attempt succeeded", "attempt failed", "attempt superseded",
	} {
		require.True(t, seen[want], want)
	}
	one, two := make2(t, o), make2(t, o)
	require.Equal(t, one, two, "the same options give the same records")
}
