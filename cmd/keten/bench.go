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
	"net/http"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/devstack"
)

const (
	benchTasks       = 5   // no-op tasks of a chain
	benchRecordBytes = 500 // of the raw appends
	benchPause       = 5 * time.Millisecond
	benchLimit       = 9 * time.Minute
)

type benchConfig struct {
	serverConfig
	chains, warmup, idle, clients, records int
	cpuProfile                             string
}

func newBench(std stdio) *cobra.Command {
	var cfg benchConfig
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the broker alone, then Keten end to end on it",
		Long: `Measure, in one run: raw appends to the broker (500-byte records, acks=all), and
Keten end to end: chains of 5 no-op tasks with results, created through HTTP,
until their rows are in PostgreSQL. One JSON line per scenario on standard output.
Without --kafka-brokers an embedded broker and an own PostgreSQL are used.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(std, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), benchLimit)
			defer cancel()
			cfg.own = !cmd.Flags().Changed("kafka-brokers")
			return profiled(cfg.cpuProfile, func() error { return runBench(ctx, std, cfg, logger) })
		},
	}
	cfg.addLedgerFlags(cmd.Flags())
	f := cmd.Flags()
	f.IntVar(&cfg.chains, "chains", 2000, "chains submitted as fast as the API takes them")
	f.IntVar(&cfg.warmup, "warmup", 2000, "chains before, not measured: a young JVM is 3 to 5 times slower")
	f.IntVar(&cfg.idle, "idle", 200, "chains one at a time, for the latencies")
	f.IntVar(&cfg.clients, "clients", 32, "HTTP clients that submit at once")
	f.IntVar(&cfg.records, "records", 200_000, "raw appends")
	f.IntVar(&cfg.slots, "slots", 512, "tasks that run at once")
	f.StringVar(&cfg.cpuProfile, "cpu-profile", "", "write a CPU profile of this process to a file, for go tool pprof")
	_ = f.Set("log-level", "warn") // known flag, known value
	cmd.AddCommand(newBenchFold(std), newBenchExecutor(std))
	return cmd
}

// profiled runs do, with a CPU profile of it in file unless that is empty.
func profiled(file string, do func() error) error {
	if file == "" {
		return do()
	}
	f, err := os.Create(file)
	if err != nil {
		return exitWith(exitUsage, fmt.Errorf("--cpu-profile: %w", err))
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	err = do()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

func runBench(ctx context.Context, std stdio, cfg benchConfig, logger *slog.Logger) error {
	cfg.roles, cfg.httpAddr, cfg.partitions, cfg.allowSingleReplica = allRoles(), "127.0.0.1:0", defaultPartitions, true
	cfg.shutdownGrace = time.Second
	var st *stack
	if cfg.own {
		dir, remove, err := devstack.Scratch("keten-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = remove() }() // a folder of its own in the place for temporary files
		if st, err = startStack(ctx, logger, dir, "127.0.0.1:0"); err != nil {
			return err
		}
		defer st.stop(ctx, logger)
		cfg.brokers, cfg.databaseURL = st.broker.Addrs(), st.postgres.URL()
	}
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	cfg.prefix += "-bench-" + hex.EncodeToString(suffix)
	cfg.schema = "keten_bench_" + hex.EncodeToString(suffix)
	if err := cfg.check(); err != nil {
		return err
	}
	broker := "kafka"
	if cfg.own {
		broker = "embedded"
	}
	if err := benchRaw(ctx, std, cfg, broker); err != nil {
		return err
	}
	return benchKeten(ctx, std, cfg, logger, broker)
}

// benchRaw measures what the broker does without us.
func benchRaw(ctx context.Context, std stdio, cfg benchConfig, broker string) error {
	topic := cfg.prefix + ".raw"
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.brokers...), kgo.ProducerLinger(0), kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(100_000), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(ctx, defaultPartitions, 1, nil, topic); err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	defer func() { _, _ = adm.DeleteTopic(context.WithoutCancel(ctx), topic) }() // left behind at worst
	value := make([]byte, benchRecordBytes)
	_, _ = rand.Read(value) // never fails
	one := func() error { return cl.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr() }
	for range 1000 {
		if err := one(); err != nil {
			return fmt.Errorf("warm up the broker: %w", err)
		}
	}
	var single []time.Duration
	for range 1000 {
		at := time.Now()
		if err := one(); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		single = append(single, time.Since(at))
	}
	took, err := benchBulk(ctx, cl, value, cfg.records)
	if err != nil {
		return err
	}
	return printJSON(std, benchLine{
		Scenario: "raw_append", Config: map[string]any{"broker": broker, "record_bytes": benchRecordBytes, "partitions": defaultPartitions, "acks": "all"},
		Throughput: map[string]any{"records": cfg.records, "records_per_s": perSecond(cfg.records, took)},
		Latency:    map[string]quantiles{"append_one_at_a_time": newQuantiles(single)},
	})
}

func benchBulk(ctx context.Context, cl *kgo.Client, value []byte, n int) (time.Duration, error) {
	var failed error
	var once sync.Once
	at := time.Now()
	for range n {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, fmt.Errorf("append in bulk: %w", err)
	}
	return time.Since(at), failed
}

// chainTimes is what the handlers saw of one chain.
type chainTimes struct {
	started, ended [benchTasks]time.Time
}

// chainClock stamps the starts and ends of the no-op tasks, by collection.
type chainClock struct {
	mu    sync.Mutex
	times map[string]*chainTimes
}

func (c *chainClock) stamp(id string, set func(*chainTimes)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times[id] == nil {
		c.times[id] = &chainTimes{}
	}
	set(c.times[id])
}

type noopArgs struct {
	Step int `json:"step"`
}

type noopResult struct {
	Step int    `json:"step"`
	Text string `json:"text"`
}

func (c *chainClock) register(r *executor.Registry) error {
	executor.Handle(r, "bench.noop", func(_ context.Context, t executor.Task[noopArgs]) (noopResult, error) {
		now := time.Now()
		c.stamp(t.Collection.String(), func(ct *chainTimes) { ct.started[t.Args.Step] = now })
		defer func() {
			now := time.Now()
			c.stamp(t.Collection.String(), func(ct *chainTimes) { ct.ended[t.Args.Step] = now })
		}()
		return noopResult{Step: t.Args.Step, Text: "a result that is passed on and stored"}, nil
	})
	return nil
}

// benchKeten measures chains from HTTP to rows.
func benchKeten(ctx context.Context, std stdio, cfg benchConfig, logger *slog.Logger, broker string) error {
	clock := &chainClock{times: map[string]*chainTimes{}}
	if _, err := initLedger(ctx, cfg.serverConfig, waiter{logger: logger}); err != nil {
		return err
	}
	s, err := newServer(ctx, cfg.serverConfig, logger, clock.register)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return s.run(run) })
	defer dropBench(ctx, cfg, logger)
	g.Go(func() error {
		defer stop()
		b := &bencher{std: std, cfg: cfg, clock: clock, broker: broker, client: &client{base: s.url(), http: &http.Client{
			Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.clients},
		}}}
		return b.run(run)
	})
	return g.Wait()
}

// dropBench removes what the benchmark made on services that others use too.
func dropBench(ctx context.Context, cfg benchConfig, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err := func() error {
		conn, err := pgx.Connect(ctx, cfg.databaseURL)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "drop schema if exists "+pgx.Identifier{cfg.schema}.Sanitize()+", "+pgx.Identifier{cfg.schema + "_output"}.Sanitize()+" cascade")
		err = errors.Join(err, conn.Close(ctx))
		cl, kafkaErr := kgo.NewClient(kgo.SeedBrokers(cfg.brokers...))
		if kafkaErr != nil {
			return errors.Join(err, kafkaErr)
		}
		defer cl.Close()
		_, kafkaErr = kadm.NewClient(cl).DeleteTopics(ctx, cfg.prefix+".ledger", cfg.prefix+".snapshots", cfg.prefix+".output")
		return errors.Join(err, kafkaErr)
	}()
	if err != nil {
		logger.WarnContext(ctx, "the benchmark's schema or topics are left behind", slog.String("schema", cfg.schema), slog.String("prefix", cfg.prefix), slog.Any("error", err))
	}
}

type bencher struct {
	std    stdio
	cfg    benchConfig
	clock  *chainClock
	broker string
	client *client
	done   int64 // chains projected so far
}

func (b *bencher) run(ctx context.Context) error {
	if _, err := b.load(ctx, b.cfg.warmup); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	sent, err := b.load(ctx, b.cfg.chains)
	if err != nil {
		return err
	}
	if err := b.report("load", sent); err != nil {
		return err
	}
	sent, err = b.oneByOne(ctx, b.cfg.idle)
	if err != nil {
		return err
	}
	return b.report("idle", sent)
}

// sentChains is one scenario: when each chain was submitted and done.
type sentChains struct {
	submitted, done map[string]time.Time
	took            time.Duration
}

func chainBody() map[string]any {
	tasks := make([]any, benchTasks)
	for i := range tasks {
		tasks[i] = map[string]any{"name": fmt.Sprintf("t%d", i), "type": "bench.noop", "args": noopArgs{Step: i}}
	}
	return map[string]any{"name": "bench", "tasks": tasks}
}

// load submits n chains as fast as the API takes them and waits until all of
// them have succeeded in the read models.
func (b *bencher) load(ctx context.Context, n int) (sentChains, error) {
	sent := sentChains{submitted: make(map[string]time.Time, n)}
	if n == 0 {
		return sent, nil
	}
	var mu sync.Mutex
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for range b.cfg.clients {
		g.Go(func() error {
			for range work {
				at := time.Now()
				id, err := b.submit(gctx)
				if err != nil {
					return err
				}
				mu.Lock()
				sent.submitted[id] = at
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return sent, err
	}
	b.done += int64(n)
	err := b.awaitSucceeded(ctx)
	sent.took = time.Since(begin)
	return sent, err
}

func (b *bencher) submit(ctx context.Context) (string, error) {
	var col collection
	header := http.Header{"Prefer": {"wait=0"}}
	_, err := b.client.call(ctx, http.MethodPost, "/v1/collections", header, chainBody(), &col)
	b.client.note(&col)
	return col.ID, err
}

// awaitSucceeded polls the counts until all chains so far have succeeded.
func (b *bencher) awaitSucceeded(ctx context.Context) error {
	for {
		var p page
		if _, err := b.client.call(ctx, http.MethodGet, "/v1/collections?limit=1", nil, nil, &p); err != nil {
			return err
		}
		if p.Counts["failed"] > 0 {
			return errors.New("a chain has failed")
		}
		if p.Counts["succeeded"] >= b.done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(benchPause):
		}
	}
}

// oneByOne runs n chains, each when the one before is done.
func (b *bencher) oneByOne(ctx context.Context, n int) (sentChains, error) {
	sent := sentChains{submitted: make(map[string]time.Time, n), done: make(map[string]time.Time, n)}
	begin := time.Now()
	for range n {
		at := time.Now()
		id, err := b.submit(ctx)
		if err != nil {
			return sent, err
		}
		sent.submitted[id] = at
		col, _, err := b.client.collection(ctx, id, "?wait=30s")
		if err != nil {
			return sent, err
		}
		if col.Status != "succeeded" {
			return sent, fmt.Errorf("chain %s is %s", id, col.Status)
		}
		sent.done[id] = time.Now()
		time.Sleep(benchPause)
	}
	b.done += int64(n)
	sent.took = time.Since(begin)
	return sent, nil
}

type benchLine struct {
	Scenario   string               `json:"scenario"`
	Config     map[string]any       `json:"config"`
	Throughput map[string]any       `json:"throughput"`
	Latency    map[string]quantiles `json:"latency_ms"`
}

func (b *bencher) report(scenario string, sent sentChains) error {
	var first, between, done []time.Duration
	b.clock.mu.Lock()
	for id, at := range sent.submitted {
		ct := b.clock.times[id]
		if ct == nil {
			b.clock.mu.Unlock()
			return fmt.Errorf("chain %s never ran", id)
		}
		first = append(first, ct.started[0].Sub(at))
		for i := 1; i < benchTasks; i++ {
			between = append(between, ct.started[i].Sub(ct.ended[i-1]))
		}
		if end, ok := sent.done[id]; ok {
			done = append(done, end.Sub(at))
		}
	}
	b.clock.mu.Unlock()
	n := len(sent.submitted)
	line := benchLine{
		Scenario: scenario,
		Config:   map[string]any{"broker": b.broker, "tasks": benchTasks, "partitions": defaultPartitions, "clients": b.cfg.clients, "slots": b.cfg.slots, "warmup_chains": b.cfg.warmup},
		Throughput: map[string]any{
			"chains": n, "chains_per_s": perSecond(n, sent.took), "tasks_per_s": perSecond(n*benchTasks, sent.took),
		},
		Latency: map[string]quantiles{"submit_to_first_task": newQuantiles(first), "task_to_task": newQuantiles(between)},
	}
	if len(done) > 0 {
		line.Latency["submit_to_done"] = newQuantiles(done)
		maps.DeleteFunc(line.Throughput, func(k string, _ any) bool { return k != "chains" }) // paced: no throughput
		line.Config["clients"] = 1
	}
	return printJSON(b.std, line)
}

// quantiles are in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func newQuantiles(ds []time.Duration) quantiles {
	if len(ds) == 0 {
		return quantiles{}
	}
	slices.Sort(ds)
	at := func(q float64) float64 {
		d := ds[min(int(q*float64(len(ds))), len(ds)-1)]
		return float64(d.Microseconds()) / 1000
	}
	return quantiles{P50: at(0.50), P90: at(0.90), P99: at(0.99), Max: at(1)}
}

func perSecond(n int, d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return int(float64(n) / d.Seconds())
}

func printJSON(std stdio, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	_, err = fmt.Fprintf(std.out, "%s\n", b)
	return err
}
