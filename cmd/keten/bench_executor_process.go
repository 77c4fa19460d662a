package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// noteType ends at once, holdType when its context does.
	noteType = "bench.note"
	holdType = "bench.hold"
	// processLines are buffered, so that a process never waits for the reader.
	processLines = 1 << 17
	// holdGrace is how long tasks that would never end get.
	holdGrace = 100 * time.Millisecond
)

// A processLine is what the process of a benchmark says: that a handler was
// started, or how much memory it takes.
type processLine struct {
	Type        string  `json:"type,omitempty"`
	Collection  string  `json:"collection,omitempty"`
	Partition   int32   `json:"partition"`
	HeapMiB     float64 `json:"heap_mib,omitempty"`
	ResidentMiB float64 `json:"resident_mib,omitempty"`

	at   time.Time // when the benchmark read it
	from *benchProcess
}

func newBenchProcess(std stdio) *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:    "process",
		Short:  "An executor of the benchmark, in a process of its own",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(std, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			worker := executor.NewWorkerID()
			log, err := eventlog.Open(cmd.Context(), eventlog.Config{
				Brokers: cfg.brokers, Prefix: cfg.prefix, ClientID: worker, Logger: logger, AllowSingleReplica: true,
			})
			if err != nil {
				return err
			}
			defer log.Close() //nolint:contextcheck // closing is bounded by itself
			p := &processHandlers{out: json.NewEncoder(std.out)}
			x, err := executor.New(executor.Config{
				Log: log, Registry: p.registry(), Worker: worker, Slots: cfg.slots, ShutdownGrace: holdGrace, Logger: logger,
			})
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(cmd.Context())
			go p.obey(std.in, stop)
			return x.Run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&cfg.brokers, "kafka-brokers", nil, "Kafka brokers")
	f.StringVar(&cfg.prefix, "prefix", "", "of the ledger")
	f.IntVar(&cfg.slots, "slots", 0, "tasks that run at once")
	cfg.addLogFlags(f)
	return cmd
}

// processHandlers says what it does, one JSON line each.
type processHandlers struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (p *processHandlers) say(l processLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(l) //nolint:errchkjson // no memory is NaN; else nobody listens any more: the benchmark is gone
}

func (p *processHandlers) registry() *executor.Registry {
	r := executor.NewRegistry()
	r.HandleRaw(noteType, func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
		p.say(processLine{Type: t.Type, Collection: t.Collection.String(), Partition: ledger.PartitionOf(t.Collection)})
		return nil, nil
	})
	r.HandleRaw(holdType, func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
		p.say(processLine{Type: t.Type, Collection: t.Collection.String(), Partition: ledger.PartitionOf(t.Collection)})
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	return r
}

// obey answers each line with the memory in use, and stops with the benchmark.
func (p *processHandlers) obey(in io.Reader, stop func()) {
	defer stop()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		debug.FreeOSMemory() // collects garbage first
		heap := heapMiB()
		resident, err := residentMiB()
		if err != nil {
			return
		}
		p.say(processLine{HeapMiB: heap, ResidentMiB: resident})
	}
}

// A benchProcess is an executor in a process of its own.
type benchProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan<- processLine
	read  sync.WaitGroup
}

// startProcess starts a process that serves the ledger. What it says goes to
// lines, which several may share.
func (l *benchLedger) startProcess(ctx context.Context, slots int, lines chan<- processLine) (*benchProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := l.bench
	p := &benchProcess{lines: lines}
	p.cmd = exec.CommandContext(ctx, self, "bench", "executor", "process", "--kafka-brokers", strings.Join(b.cfg.brokers, ","),
		"--prefix", l.prefix, "--slots", strconv.Itoa(slots), "--log-level", b.cfg.logLevel)
	p.cmd.Stderr = b.std.err
	p.cmd.WaitDelay = time.Second
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.read.Go(func() { p.listen(out) })
	return p, nil
}

func (p *benchProcess) listen(out io.Reader) {
	for texts := bufio.NewScanner(out); texts.Scan(); {
		line := processLine{at: time.Now(), from: p}
		if json.Unmarshal(texts.Bytes(), &line) == nil {
			p.lines <- line
		}
	}
}

// kill is kill -9.
func (p *benchProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.read.Wait()
	_ = p.cmd.Wait() // it was killed
}

// stop asks it to end, as a deployment does, and waits.
func (p *benchProcess) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process: %w", err)
	}
	p.read.Wait()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("process ended: %w", err)
	}
	return nil
}

// nextLine waits for what a process says.
func nextLine(ctx context.Context, lines <-chan processLine) (processLine, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, benchWait, errors.New("the executors say nothing more"))
	defer cancel()
	select {
	case line := <-lines:
		return line, nil
	case <-ctx.Done():
		return processLine{}, context.Cause(ctx)
	}
}

// started waits until so many collections were started by one of the processes,
// and returns when each was.
func started(ctx context.Context, lines <-chan processLine, by *benchProcess, taskType string, collections int) (map[string]time.Time, error) {
	at := make(map[string]time.Time, collections)
	for len(at) < collections {
		line, err := nextLine(ctx, lines)
		if err != nil {
			return at, fmt.Errorf("%w: %d of %d tasks run", err, len(at), collections)
		}
		if _, again := at[line.Collection]; line.Type == taskType && line.from == by && !again {
			at[line.Collection] = line.at
		}
	}
	return at, nil
}

// probes creates a task in every partition and returns who ran each.
func (l *benchLedger) probes(ctx context.Context, lines <-chan processLine) (map[int32]*benchProcess, error) {
	if err := l.create(ctx, defaultPartitions, chainOf{noteType, "default", 1}); err != nil {
		return nil, err
	}
	owners := make(map[int32]*benchProcess)
	for len(owners) < defaultPartitions {
		line, err := nextLine(ctx, lines)
		if err != nil {
			return nil, err
		}
		if line.Type == noteType {
			owners[line.Partition] = line.from
		}
	}
	return owners, nil
}
