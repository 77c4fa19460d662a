package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	buildLimit = 10 * time.Minute // of one test binary, on a busy machine
	// leastTestLimit and testLimitFactor, of the time without a mutant, bound one
	// run of tests: a mutant that makes them hang is noticed by that.
	leastTestLimit  = 20 * time.Second
	testLimitFactor = 10
	// killGrace is how long a test binary has to say where it hangs.
	killGrace = 15 * time.Second
)

// environment names the mutant of a run by its number; none is the code as it
// is.
const environment = "KETEN_MUTANT"

// A suite is the tests of one package, as they are run for each mutant.
type suite struct {
	dir  string // of the package, from the root
	args func(*mutant) []string
	// last are for another run, when nothing failed in the first: of the golden
	// vectors, which fail for whatever changes.
	last []string
	// watches tells whether the package knows a file at all.
	watches func(file string) bool
	// caught reads the names of what failed from the output of a failed run.
	caught func(output string) []string
}

func suites(o *options) []suite {
	rapid := []string{"-rapid.seed=1", "-rapid.checks=" + strconv.Itoa(o.checks), "-rapid.nofailfile", "-rapid.shrinktime=1ms"}
	return []suite{
		{
			dir: "ledger",
			args: func(*mutant) []string {
				return append([]string{"-test.run=^(Test|Fuzz)", "-test.skip=Golden"}, rapid...)
			},
			last:    append([]string{"-test.run=Golden"}, rapid...),
			watches: func(file string) bool { return strings.HasPrefix(file, "ledger/") },
			caught:  failedTests,
		},
		{
			dir: "internal/simtest",
			args: func(m *mutant) []string {
				seeds := max(o.seeds, m.seeds)
				if readsBytes(m.file) {
					seeds = max(1, seeds/fewerSeeds)
				}
				return []string{"-test.run=^TestSimulation$", "-seed=1", "-seeds=" + strconv.Itoa(seeds)}
			},
			watches: func(string) bool { return true },
			caught:  failedSeeds,
		},
	}
}

// fewerSeeds divides the histories for mutants of what reads bytes: those in the
// simulator are well-formed but for a few.
const fewerSeeds = 10

func readsBytes(file string) bool {
	switch filepath.Base(file) {
	case "hot.go", "scan.go", "payload.go", "record.go", "strict.go", "validate.go", "limits.go", "coder.go":
		return true
	}
	return false
}

// gate runs mutants.
type gate struct {
	root, scratch string
	options       *options
	suites        []suite
	limit         time.Duration // of one run of tests
	stderr        io.Writer

	mu   sync.Mutex // guards stderr and done
	done int
}

// newGate makes the folder for overlays and binaries.
func newGate(root string, o *options, stderr io.Writer) (g *gate, remove func(), err error) {
	g = &gate{root: root, options: o, suites: suites(o), limit: buildLimit, stderr: stderr}
	if o.keep != "" {
		if g.scratch, err = filepath.Abs(o.keep); err == nil {
			err = os.MkdirAll(g.scratch, 0o755) //nolint:gosec // sources, no secrets
		}
		return g, func() {}, err
	}
	g.scratch, err = os.MkdirTemp("", "keten-mutants-")
	return g, func() { _ = os.RemoveAll(g.scratch) }, err
}

// A result is what came of one mutant.
type result struct {
	*mutant

	caught [][]string // per suite: what failed
	ran    []bool     // per suite
	err    error
	took   time.Duration
}

// runAll builds the tests and runs the mutants side by side. The tests must pass
// without any first.
func (g *gate) runAll(ctx context.Context, list []mutant) ([]result, error) {
	start := time.Now()
	if err := g.build(ctx, list); err != nil {
		return nil, err
	}
	g.say("built in %.0f s\n", time.Since(start).Seconds())
	base := g.runOne(ctx, &mutant{name: "none"})
	switch {
	case base.err != nil:
		return nil, fmt.Errorf("without a mutant: %w", base.err)
	case base.noticed():
		return nil, fmt.Errorf("the tests fail without a mutant: %v", base.caught)
	}
	g.limit = leastTestLimit + testLimitFactor*base.took
	g.say("without a mutant the tests pass, in %.1f s\n", base.took.Seconds())
	results := make([]result, len(list))
	next := make(chan int)
	var wg sync.WaitGroup
	for range g.options.workers {
		wg.Go(func() {
			for i := range next {
				results[i] = g.runOne(ctx, &list[i])
				g.progress(&results[i], len(list))
			}
		})
	}
	for i := 0; i < len(list) && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return results, nil
}

func (g *gate) say(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = fmt.Fprintf(g.stderr, format, args...)
}

func (g *gate) progress(r *result, all int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done++
	_, _ = fmt.Fprintf(g.stderr, "%3d/%d %5.1f s  %s: %s\n", g.done, all, r.took.Seconds(), r.name, r.verdict())
}

// build weaves the mutants into the sources and builds the tests of all suites.
func (g *gate) build(ctx context.Context, list []mutant) error {
	overlay, err := g.overlay(list)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, buildLimit)
	defer stop()
	for i := range g.suites {
		s := &g.suites[i]
		out, err := g.command(ctx, g.root, nil, "go", "test", "-c", "-vet=off", "-gcflags=-e", "-ldflags=-s -w",
			"-overlay", overlay, "-o", g.binary(s), "./"+s.dir)
		if err != nil {
			return fmt.Errorf("mutants that do not compile: %w\n%s", err, out)
		}
	}
	return nil
}

func (g *gate) binary(s *suite) string {
	return filepath.Join(g.scratch, strings.ReplaceAll(s.dir, "/", "-")+".test")
}

// overlay writes the woven files and the list that puts them in their places,
// with a file for each package that reads the mutant's number.
func (g *gate) overlay(list []mutant) (string, error) {
	replace := map[string]string{}
	put := func(file string, text []byte) error {
		path := filepath.Join(g.scratch, strings.ReplaceAll(file, "/", "-"))
		replace[filepath.Join(g.root, file)] = path
		return os.WriteFile(path, text, 0o600) //nolint:gosec // in the scratch folder
	}
	files, err := readSources(g.root, list)
	if err != nil {
		return "", err
	}
	for name, s := range files {
		woven, err := s.weave(mutantsOf(list, name))
		if err == nil {
			err = put(name, woven)
		}
		if err == nil {
			err = put(filepath.Dir(name)+"/mutant_number.go", fmt.Appendf(nil, numberSource, s.tree.Name.Name, environment))
		}
		if err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(g.scratch, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}

const numberSource = `package %s

import (
	"os"
	"strconv"
)

var mutantNumber, _ = strconv.Atoi(os.Getenv(%q))
`

// runOne runs the tests that could notice a mutant.
func (g *gate) runOne(ctx context.Context, m *mutant) (r result) {
	start := time.Now()
	r = result{mutant: m}
	for i := range g.suites {
		s := &g.suites[i]
		var caught []string
		runs := m.file == "" || s.watches(m.file)
		if runs && r.err == nil {
			caught, r.err = g.runSuite(ctx, m, s, s.args(m))
		}
		if runs && r.err == nil && len(caught) == 0 && s.last != nil {
			caught, r.err = g.runSuite(ctx, m, s, s.last)
		}
		r.caught, r.ran = append(r.caught, caught), append(r.ran, runs)
	}
	r.took = time.Since(start)
	return r
}

func (g *gate) runSuite(ctx context.Context, m *mutant, s *suite, args []string) ([]string, error) {
	// The binary ends itself and says what hangs; the kill is for one that can't.
	limited, stop := context.WithTimeout(ctx, g.limit+killGrace)
	defer stop()
	env := []string{environment + "=" + strconv.Itoa(m.number)}
	out, err := g.command(limited, filepath.Join(g.root, s.dir), env, g.binary(s), slices.Concat([]string{"-test.timeout=" + g.limit.String()}, args)...)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil:
		return nil, nil
	case !errors.As(err, &exit):
		return nil, err
	}
	if g.options.verbose {
		g.explain(m, s, args, out)
	}
	caught := s.caught(out)
	switch {
	case limited.Err() != nil || strings.Contains(out, "panic: test timed out after"):
		caught = append(caught, "timeout")
	case len(caught) == 0:
		caught = []string{"crash of the tests"}
	}
	return caught, nil
}

// mostOutput is how much of a failed run is shown.
const mostOutput = 16 << 10

func (g *gate) explain(m *mutant, s *suite, args []string, out string) {
	if len(out) > mostOutput {
		out = out[:mostOutput] + "\n…"
	}
	again := ""
	if g.options.keep != "" {
		again = fmt.Sprintf("repeat with: %s=%d go test -vet=off -overlay %s ./%s -args %s\n", environment, m.number,
			filepath.Join(g.scratch, "overlay.json"), s.dir, strings.Join(args, " "))
	}
	g.say("--- %s in ./%s\n%s\n%s", m.name, s.dir, out, again)
}

// command runs on one core, so that as many mutants as there are cores do not
// stand in each other's way, and seeds are simulated in order.
func (g *gate) command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the go command, and what it built
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if name == "go" {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = killGrace
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
