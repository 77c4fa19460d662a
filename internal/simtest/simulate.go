package simtest

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
)

// A Result is what came of one seed.
type Result struct {
	Seed     uint64
	Steps    int
	Records  int
	Trace    uint64 // hash of everything that happened
	Coverage Coverage
	Err      error    // a *[ViolationError], or nil
	Lines    []string // the trace in words, when it was asked for
}

// Run lives through the history of one seed. With loud it tells all of it in
// words.
func Run(seed uint64, loud bool) Result {
	w := newWorld(seed, loud)
	w.runGuarded()
	return Result{
		Seed: seed, Steps: w.tick, Records: len(w.log), Trace: w.trace.hash, Coverage: w.coverage, Err: w.failure, Lines: w.trace.lines,
	}
}

// runGuarded turns a panic into a violation: the fold must not panic on any
// bytes.
func (w *world) runGuarded() {
	defer func() {
		if r := recover(); r != nil && w.failure == nil {
			w.violated("TOTAL", "panic: %v\n%s", r, debug.Stack())
		}
	}()
	w.run()
}

// A Report is what came of many seeds.
type Report struct {
	Seeds    int
	Steps    int
	Records  int
	Coverage Coverage
	Failed   []Result // the first few, by seed
}

// mostFailures is how many failed seeds a report keeps: the first ones tell
// enough.
const mostFailures = 3

// Campaign runs the seeds [first, first+n) on as many goroutines as workers
// says, each world on one of them, and stops soon after a failure. progress is
// called now and then with the number of seeds done, and may be nil.
func Campaign(first uint64, n, workers int, progress func(done int)) Report {
	var (
		next, done atomic.Int64
		failed     atomic.Bool
		mu         sync.Mutex
		wg         sync.WaitGroup
		total      = Report{Coverage: Coverage{}}
	)
	for range workers {
		wg.Go(func() {
			mine := Report{Coverage: Coverage{}}
			for i := next.Add(1) - 1; i < int64(n) && !failed.Load(); i = next.Add(1) - 1 {
				r := Run(first+uint64(i), false) //nolint:gosec // not negative
				mine.add(&r)
				if r.Err != nil {
					failed.Store(true)
				}
				if d := done.Add(1); progress != nil && d%64 == 0 {
					progress(int(d))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.merge(&mine)
		})
	}
	wg.Wait()
	return total
}

func (r *Report) add(one *Result) {
	r.Seeds++
	r.Steps += one.Steps
	r.Records += one.Records
	r.Coverage.Add(one.Coverage)
	if one.Err != nil && len(r.Failed) < mostFailures {
		r.Failed = append(r.Failed, *one)
	}
}

func (r *Report) merge(other *Report) {
	r.Seeds += other.Seeds
	r.Steps += other.Steps
	r.Records += other.Records
	r.Coverage.Add(other.Coverage)
	r.Failed = append(r.Failed, other.Failed...)
}

// Explain tells a failed seed's story: the invariant, the last steps, and how
// to see all of them.
func Explain(failed *Result, most int) string {
	again := Run(failed.Seed, true)
	lines := again.Lines
	left := ""
	if len(lines) > most {
		left = fmt.Sprintf("  … %d lines before\n", len(lines)-most)
		lines = lines[len(lines)-most:]
	}
	text := fmt.Sprintf("seed %d: %v\n%s%s\n", failed.Seed, failed.Err, left, strings.Join(lines, "\n"))
	if again.Trace != failed.Trace {
		text += fmt.Sprintf("NOT DETERMINISTIC: run again, the seed ends with: %v\n", again.Err)
	}
	return text + fmt.Sprintf("repeat with: go test ./internal/simtest -run Simulation -v -args -seed=%d -seeds=1\n", failed.Seed)
}
