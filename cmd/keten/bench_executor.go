package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// executorBenchLimit ends a benchmark that is stuck. Ten million records of
	// history take minutes to write and to fold.
	executorBenchLimit = 30 * time.Minute
	// benchWait bounds the wait for anything that a healthy executor does.
	benchWait = 2 * time.Minute
	// nobodysQueue is served by no executor.
	nobodysQueue = "nobody"
)

type executorBenchConfig struct {
	serverConfig
	scenarios                    []string
	chains, rounds, warmup, idle int
	takeover, memory, restarts   int
	history                      []int
	cpuProfile                   string
}

func newBenchExecutor(std stdio) *cobra.Command {
	var cfg executorBenchConfig
	cmd := &cobra.Command{
		Use:   "executor",
		Short: "Measure executors alone, without API and projector",
		Long: `Measure executors on the broker, without API, projector and PostgreSQL. Chains of 5
no-op tasks with results are created directly in the ledger. One JSON line per
scenario on standard output:

  throughput  chains in bulk, beside a bare loop that produces and consumes the
              same records without looking at them
  idle        one chain at a time: the time from one task to the next
  takeover    kill -9 of the owner of many running tasks, until all run again in
              another process
  restart     from the start of a process to its first task, for growing histories
  memory      of collections that wait, and of tasks that run

Without --kafka-brokers an embedded broker is used.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(std, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			if err := cfg.check(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), executorBenchLimit)
			defer cancel()
			cfg.own = !cmd.Flags().Changed("kafka-brokers")
			return profiled(cfg.cpuProfile, func() error { return runExecutorBench(ctx, std, cfg, logger) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&cfg.brokers, "kafka-brokers", nil, "Kafka brokers, host:port")
	cfg.addLogFlags(f)
	f.StringSliceVar(&cfg.scenarios, "scenarios", executorScenarios(), "what to measure")
	f.IntVar(&cfg.chains, "chains", 10_000, "throughput: chains of a round")
	f.IntVar(&cfg.rounds, "rounds", 3, "throughput: rounds; the median counts")
	f.IntVar(&cfg.warmup, "warmup", 4_000, "throughput: chains before, not measured")
	f.IntVar(&cfg.idle, "idle", 500, "idle: chains one at a time")
	f.IntVar(&cfg.slots, "slots", 1_024, "throughput, idle: tasks that run at once")
	f.IntVar(&cfg.takeover, "takeover", 1_000, "takeover: running tasks of the process that is killed")
	f.IntSliceVar(&cfg.history, "history", []int{10_000, 1_000_000}, "restart: records of history, growing; 10000000 take minutes")
	f.IntVar(&cfg.restarts, "restarts", 5, "restart: starts per size; the median counts")
	f.IntVar(&cfg.memory, "memory", 10_000, "memory: collections that wait, and as many that run")
	f.StringVar(&cfg.cpuProfile, "cpu-profile", "", "write a CPU profile of this process to a file, for go tool pprof")
	_ = f.Set("log-level", "error") // known flag, known value
	cmd.AddCommand(newBenchProcess(std))
	return cmd
}

func executorScenarios() []string {
	return []string{"throughput", "idle", "takeover", "restart", "memory"}
}

// check returns all that is wrong, each with its flag's name.
func (c *executorBenchConfig) check() error {
	var errs []error
	for _, s := range c.scenarios {
		if !slices.Contains(executorScenarios(), s) {
			errs = append(errs, fmt.Errorf("--scenarios: unknown scenario %q, want %s", s, strings.Join(executorScenarios(), ", ")))
		}
	}
	for flag, n := range map[string]int{
		"chains": c.chains, "rounds": c.rounds, "warmup": c.warmup, "idle": c.idle,
		"slots": c.slots, "takeover": c.takeover, "memory": c.memory, "restarts": c.restarts,
	} {
		// Creations wait in the producer's buffer, and must be judged within the window.
		if n < 1 || n > 50_000 {
			errs = append(errs, fmt.Errorf("--%s: is %d, want 1 to 50000", flag, n))
		}
	}
	if !slices.IsSorted(c.history) || len(c.history) == 0 || c.history[0] < 1 || c.history[len(c.history)-1] > 100_000_000 {
		errs = append(errs, errors.New("--history: want growing numbers from 1 to 100000000"))
	}
	if err := errors.Join(errs...); err != nil {
		return exitWith(exitUsage, err)
	}
	return nil
}

// executorBench is what the scenarios share.
type executorBench struct {
	std    stdio
	cfg    executorBenchConfig
	logger *slog.Logger
	broker string
}

func runExecutorBench(ctx context.Context, std stdio, cfg executorBenchConfig, logger *slog.Logger) error {
	b := &executorBench{std: std, cfg: cfg, logger: logger, broker: "kafka"}
	if cfg.own {
		dir, remove, err := devstack.Scratch("keten-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = remove() }() // a folder of its own in the place for temporary files
		broker, err := devstack.StartBroker(devstack.BrokerConfig{Dir: filepath.Join(dir, "broker"), Logger: logger})
		if err != nil {
			return err
		}
		defer broker.Close()
		b.broker, b.cfg.brokers = "embedded", broker.Addrs()
	}
	for _, s := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"throughput", b.throughput}, {"idle", b.idleHops}, {"takeover", b.takeover}, {"restart", b.restart}, {"memory", b.memory},
	} {
		if !slices.Contains(cfg.scenarios, s.name) {
			continue
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// report prints the line of a scenario.
func (b *executorBench) report(scenario string, config, results map[string]any) error {
	config["broker"], config["partitions"] = b.broker, defaultPartitions
	if load, ok := machineLoad(); ok {
		config["load_1m"] = load
	}
	line := map[string]any{"scenario": "executor_" + scenario, "config": config}
	maps.Copy(line, results)
	return printJSON(b.std, line)
}

// machineLoad is how many threads wanted to run in the last minute, on average:
// figures of a busy machine mean little.
func machineLoad() (string, bool) {
	b, err := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(b), " ")
	return load, err == nil && load != ""
}

// A benchLedger is a ledger of a scenario's own.
type benchLedger struct {
	bench  *executorBench
	prefix string
	log    *eventlog.Log // creates collections
}

func (b *executorBench) newLedger(ctx context.Context) (*benchLedger, error) {
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	l := &benchLedger{bench: b, prefix: "keten-bench-" + hex.EncodeToString(suffix)}
	cfg := l.config("keten-bench")
	_, err := eventlog.Init(ctx, eventlog.InitConfig{Config: cfg, Partitions: defaultPartitions, Window: ledger.DefaultWindow, ReplicationFactor: 1})
	if err != nil {
		return nil, err
	}
	l.log, err = eventlog.Open(ctx, cfg)
	return l, err
}

func (l *benchLedger) config(clientID string) eventlog.Config {
	return eventlog.Config{Brokers: l.bench.cfg.brokers, Prefix: l.prefix, ClientID: clientID, Logger: l.bench.logger, AllowSingleReplica: true}
}

// drop removes what the scenario made on a broker that others use too.
func (l *benchLedger) drop(ctx context.Context) {
	l.log.Close() //nolint:contextcheck // closing is bounded by itself
	if err := dropTopics(ctx, l.bench.cfg.brokers, l.prefix+".ledger", l.prefix+".snapshots", l.prefix+".output"); err != nil {
		l.bench.logger.WarnContext(ctx, "topics of the benchmark are left behind", slog.String("prefix", l.prefix), slog.Any("error", err))
	}
}

func dropTopics(ctx context.Context, brokers []string, topics ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).DeleteTopics(ctx, topics...)
	return err
}

// run runs an executor in this process; stop ends it and waits, and
// may be called again.
func (l *benchLedger) run(ctx context.Context, registry *executor.Registry, metrics prometheus.Registerer) (stop func() error, err error) {
	worker := executor.NewWorkerID()
	log, err := eventlog.Open(ctx, l.config(worker))
	if err != nil {
		return nil, err
	}
	x, err := executor.New(executor.Config{
		Log: log, Registry: registry, Worker: worker, Slots: l.bench.cfg.slots, Logger: l.bench.logger, Registerer: metrics,
	})
	if err != nil {
		log.Close() //nolint:contextcheck // closing is bounded by itself
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	return sync.OnceValue(func() error { //nolint:contextcheck // closing is bounded by itself
		cancel()
		err := <-ended
		log.Close()
		return err
	}), nil
}

// A chainOf says what chains look like.
type chainOf struct {
	taskType, queue string
	tasks           int
}

// creations makes the records that create n chains, taking turns in the
// partitions. They must be appended before the window passes.
func (l *benchLedger) creations(ctx context.Context, n int, kind chainOf, partitions ...int32) ([]ledger.Message, error) {
	if len(partitions) == 0 {
		for p := range int32(defaultPartitions) {
			partitions = append(partitions, p)
		}
	}
	ends, err := l.log.Ends(ctx)
	if err != nil {
		return nil, err
	}
	source := ledger.Source(l.log.Info().LedgerID, "bench")
	msgs := make([]ledger.Message, n)
	for i := range msgs {
		partition := partitions[i%len(partitions)]
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails
		event := creation(ledger.NewCollectionID(partition, time.Now(), random), kind, ends[partition])
		msgs[i], err = ledger.Encode(partition, ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: source, Time: time.Now()}, event)
		if err != nil {
			return nil, err
		}
	}
	return msgs, nil
}

func creation(id uuid.UUID, kind chainOf, asOf int64) ledger.CollectionCreated {
	e := ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "bench", RequestHash: strings.Repeat("0", 64), AsOf: asOf}
	for i := range kind.tasks {
		args, _ := json.Marshal(noopArgs{Step: i}) //nolint:errchkjson // a struct with a number
		e.Tasks = append(e.Tasks, ledger.Task{
			ID: ledger.TaskID(id, ledger.KindTask, i), Index: i, Name: fmt.Sprintf("t%d", i), Type: kind.taskType, Queue: kind.queue, Args: args,
			OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts, TimeoutMS: ledger.DefaultTimeoutMS,
			Backoff: ledger.Backoff{InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS},
		})
	}
	return e
}

// append appends records as fast as the broker takes them; wait returns when all
// are acknowledged.
func (l *benchLedger) append(msgs []ledger.Message) (wait func() error) {
	var all sync.WaitGroup
	var failed error
	var once sync.Once
	all.Add(len(msgs))
	for _, m := range msgs {
		l.log.Append(m, func(_ int64, err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
			all.Done()
		})
	}
	return func() error {
		all.Wait()
		return failed
	}
}

func (l *benchLedger) create(ctx context.Context, n int, kind chainOf, partitions ...int32) error {
	msgs, err := l.creations(ctx, n, kind, partitions...)
	if err != nil {
		return err
	}
	return l.append(msgs)() //nolint:contextcheck // a record under way cannot be called back
}

func defaultChain(taskType string) chainOf {
	return chainOf{taskType: taskType, queue: ledger.DefaultQueue, tasks: benchTasks}
}

// median of at least one value.
func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
