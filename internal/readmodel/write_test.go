package readmodel_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel/history"
)

// It does not matter where a history is cut into batches: one record per
// transaction gives the rows of any other cut, whatever the records were.
func TestWriteIsTheSameForEveryCut(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			logs := f.history(t, history.Options{Seed: seed, Partitions: 3, Chains: 60, Tasks: 5, Concurrent: 5, Trouble: true})
			one := f.open(t, fmt.Sprintf("one_%d", seed))
			newWriter(t, one, f.ledgerID, logs).all(t, always(1))
			want := dump(t, one)
			for _, verdict := range []string{"accepted", "duplicate", "stale", "invalid", "foreign"} {
				require.True(t, strings.Contains(want, `"verdict": "`+verdict+`"`), "the history has no %s record", verdict)
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			for _, most := range []int{3, 40, 1_000_000} {
				some := f.open(t, fmt.Sprintf("cut_%d_%d", seed, most))
				newWriter(t, some, f.ledgerID, logs).all(t, upTo(rng, most))
				equalDumps(t, want, dump(t, some), fmt.Sprintf("seed %d, batches of up to %d records", seed, most))
			}
		})
	}
}
