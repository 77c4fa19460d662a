package simtest_test

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/simtest"
)

var (
	seeds = flag.Int("seeds", 300, "how many histories TestSimulation runs")
	seed  = flag.Uint64("seed", 1, "the seed of the first one")
)

// Coverage is expected of this many seeds and more.
const enough = 10_000

// linesShown is how much of a failed history is printed.
const linesShown = 60

// TestSimulation runs many histories, each from its seed:
//
//	go test ./internal/simtest -run Simulation -args -seeds=100000 -seed=1
//
// With -seeds=1 and -v it tells the whole history of the seed.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *seeds == 1 && testing.Verbose() {
		r := simtest.Run(*seed, true)
		t.Log("\n" + strings.Join(r.Lines, "\n"))
		require.NoError(t, r.Err, "seed %d", *seed)
		return
	}
	// Worlds are small and many: with the default the collector would run most
	// of the time.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	start := time.Now()
	report := simtest.Campaign(*seed, *seeds, runtime.GOMAXPROCS(0), progress(start))
	took := time.Since(start)
	for i := range report.Failed {
		t.Error(simtest.Explain(&report.Failed[i], linesShown))
	}
	t.Logf("%d seeds, %d steps, %d records in %.1f s: %.0f seeds/s", report.Seeds, report.Steps, report.Records,
		took.Seconds(), float64(report.Seeds)/took.Seconds())
	if *seeds < enough || t.Failed() {
		return
	}
	var table strings.Builder
	report.Coverage.Print(&table)
	t.Log("\n" + table.String())
	for _, s := range report.Coverage.Missing() {
		t.Errorf("never met in %d seeds: %s: %s", report.Seeds, s.Group, s.Name)
	}
}

// progress writes a line every few seconds of a long campaign.
func progress(start time.Time) func(done int) {
	var mu sync.Mutex
	last := start
	return func(done int) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= 5*time.Second {
			last = now
			line := "simulation: " + strconv.Itoa(done) + " seeds, " + strconv.Itoa(int(float64(done)/now.Sub(start).Seconds())) + " per second\n"
			_, _ = os.Stderr.WriteString(line)
		}
	}
}

// The same seed lives through the same history, to the last byte.
func TestSeedsAreDeterministic(t *testing.T) {
	t.Parallel()
	for s := uint64(1); s <= 20; s++ {
		a, b := simtest.Run(s, false), simtest.Run(s, true)
		require.Equal(t, a.Trace, b.Trace, "seed %d has two histories", s)
		require.Equal(t, a.Records, b.Records)
	}
}
