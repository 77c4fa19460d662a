package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// leastScore is the share of mutants that must be noticed, in percent.
const leastScore = 96

//nolint:forbidigo // this is a main, although below internal
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	pick    *regexp.Regexp // nil for all
	seeds   int
	checks  int
	workers int
	list    bool
	check   bool
	verbose bool
	keep    string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("run", "only the mutants whose name matches `regexp`", func(s string) (err error) {
		o.pick, err = regexp.Compile(s)
		return err
	})
	flags.IntVar(&o.seeds, "seeds", 1000, "histories of the simulator for each mutant, from seed 1")
	flags.IntVar(&o.checks, "checks", 100, "histories of each property test of the ledger, from seed 1")
	flags.IntVar(&o.workers, "workers", runtime.GOMAXPROCS(0), "mutants at once, each on one core")
	flags.BoolVar(&o.list, "list", false, "list the mutants and what they break")
	flags.BoolVar(&o.check, "check", false, "only see whether every mutant can be made")
	flags.BoolVar(&o.verbose, "v", false, "print what the tests say, and how to repeat it")
	flags.StringVar(&o.keep, "keep", "", "leave the overlays in `folder`, to repeat a test with go test -overlay")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.seeds < 1 || o.checks < 1 || o.workers < 1 {
		flags.Usage()
		return o, errors.New("usage")
	}
	return o, nil
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if err != nil {
		return 2
	}
	list, err := pick(o.pick)
	if err == nil && o.list {
		printList(stdout, list)
		return 0
	}
	var root string
	if err == nil {
		root, err = findRoot(ctx)
	}
	if err == nil {
		err = checkAll(root, list)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	if o.check {
		_, _ = fmt.Fprintf(stdout, "%d mutants can be made\n", len(list))
		return 0
	}
	return gateCode(ctx, root, &o, list, stdout, stderr)
}

func gateCode(ctx context.Context, root string, o *options, list []mutant, stdout, stderr io.Writer) int {
	g, remove, err := newGate(root, o, stderr)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	defer remove()
	results, err := g.runAll(ctx, list)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	r := report{results: results, whole: o.pick == nil}
	r.print(stdout)
	if len(r.faults()) > 0 {
		return 1
	}
	return 0
}

func pick(re *regexp.Regexp) ([]mutant, error) {
	var list []mutant
	for i, m := range table() {
		m.number = i + 1
		if re == nil || re.MatchString(m.name) {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no mutant has a name that matches %s", re)
	}
	return list, nil
}

func printList(w io.Writer, list []mutant) {
	for i := range list {
		_, _ = fmt.Fprintf(w, "%-36s %s\n", list[i].name, list[i].breaks)
	}
}

// findRoot is the folder of go.mod.
func findRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("not within a module")
	}
	return filepath.Dir(mod), nil
}

// readSources reads the files of mutants.
func readSources(root string, list []mutant) (map[string]*source, error) {
	files := map[string]*source{}
	for i := range list {
		name := list[i].file
		if files[name] != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		if files[name], err = parseSource(name, text); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func mutantsOf(list []mutant, file string) []*mutant {
	var of []*mutant
	for i := range list {
		if list[i].file == file {
			of = append(of, &list[i])
		}
	}
	return of
}

// checkAll makes every mutant once, and names all that cannot be made.
func checkAll(root string, list []mutant) error {
	files, err := readSources(root, list)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var errs []error
	for i := range list {
		m := &list[i]
		if seen[m.name] || m.breaks == "" {
			errs = append(errs, fmt.Errorf("%s: is there twice, or breaks nothing", m.name))
		}
		seen[m.name] = true
		if _, err := files[m.file].variant(m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}
