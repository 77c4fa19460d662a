package projector_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/projector"
)

// When little happens a transaction begins at once; under load there are fewer
// and larger ones; afterwards it is as before.
func TestPace(t *testing.T) {
	t.Parallel()
	var p projector.Pace
	now := time.UnixMilli(1_750_000_000_000)
	require.LessOrEqual(t, projector.PaceWait(&p, now), time.Duration(0), "the first")

	// One chain after another, a record at a time.
	for range 200 {
		projector.PaceWrote(&p, 1, now)
		require.LessOrEqual(t, projector.PaceWait(&p, now), 2*time.Millisecond)
		now = now.Add(2 * time.Millisecond)
		require.LessOrEqual(t, projector.PaceWait(&p, now), time.Duration(0))
	}

	// 11,000 records a second, written as soon as they may be.
	transactions, pending := 0, 0
	for range 2000 {
		now = now.Add(time.Millisecond)
		pending += 11
		if projector.PaceWait(&p, now) <= 0 {
			projector.PaceWrote(&p, pending, now)
			transactions, pending = transactions+1, 0
		}
	}
	require.Less(t, transactions, 200, "of 2,000 that were possible")
	require.Greater(t, transactions, 90, "a row is at most 20 ms late")

	now = now.Add(time.Second)
	projector.PaceWrote(&p, 1, now)
	require.LessOrEqual(t, projector.PaceWait(&p, now), time.Millisecond, "all is quiet again")
}
