package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outcometoken"
)

const (
	waitPause = 500 * time.Millisecond // between two tries to reach Kafka
	waitLog   = 3 * time.Second        // between two log lines about it
)

// Config says which ledger to work for, and how.
type Config struct {
	// Brokers are Kafka's bootstrap addresses, host:port. Required.
	Brokers []string
	// Registry holds the handlers. What is registered later is not seen.
	// Required.
	Registry *executor.Registry
	// Prefix names the ledger: its topic is <prefix>.ledger. Empty means keten.
	Prefix string
	// Queues are the queues to serve; empty means the queue default. Processes
	// that serve the same queues must know the same task types: a task waits
	// when the process whose turn it is has no handler for it.
	Queues []string
	// Slots is how many handlers run at a time, at most 10,000. Zero means
	// [executor.DefaultSlots].
	Slots int
	// ShutdownGrace is how long handlers may go on once ctx has ended; then
	// their contexts end too. Zero means [executor.DefaultShutdownGrace].
	ShutdownGrace time.Duration
	// OutboxDir is a folder for outcomes that could not be appended because the
	// brokers were away: a process started later with the same folder appends
	// them. Processes of a machine may share it. Empty: they are kept in memory
	// only, and their tasks run again when the process ends before.
	OutboxDir string
	// OutcomeKeyFile is the file with the key of the tokens with which outcomes are
	// reported from outside, the same as the API's. Empty: handlers get no tokens.
	OutcomeKeyFile string
	// AllowSingleReplica accepts a ledger that keeps one copy of each record:
	// for one broker, not for production.
	AllowSingleReplica bool
	// Wait is how long to wait for Kafka and the ledger to come up. Zero: not at
	// all.
	Wait time.Duration
	// HTTPAddr is where /metrics, /healthz and /readyz are served, host:port.
	// Empty: nowhere.
	HTTPAddr string
	// Logger gets what the executor logs, and is the base of the handlers'
	// loggers. Nil means slog.Default().
	Logger *slog.Logger
	// Metrics gets the metrics, and is what /metrics shows. Nil means a new one
	// with those of Go and the process.
	Metrics *prometheus.Registry
}

const mostSlots = 10_000 // as keten serve: each is a goroutine with its task's payload

func (c Config) withDefaults() (Config, error) {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		add("brokers: want at least one host:port")
	}
	switch {
	case c.Registry == nil:
		add("registry: is required")
	case len(c.Registry.Types()) == 0:
		add("registry: has no handlers")
	}
	if c.Slots < 0 || c.Slots > mostSlots {
		add("slots: is %d, want 1 to %d", c.Slots, mostSlots)
	}
	if c.ShutdownGrace < 0 {
		add("shutdown grace: is %s, want more than 0", c.ShutdownGrace)
	}
	if c.Wait < 0 {
		add("wait: is %s, want 0 or more", c.Wait)
	}
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	if c.Prefix == "" {
		c.Prefix = eventlog.DefaultPrefix
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
		c.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return c, nil
}

// Run connects to the ledger and runs its tasks until ctx ends, which is not an
// error: then nothing more is started, handlers get the grace period, and their
// outcomes are appended. An error says what is wrong with the configuration, the
// address for HTTP or the ledger.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("run worker: %w", err)
	}
	w := &worker{cfg: cfg}
	if err := w.loadKey(ctx); err != nil {
		return fmt.Errorf("run worker: %w", err)
	}
	var listener net.Listener
	if cfg.HTTPAddr != "" {
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.HTTPAddr); err != nil {
			return fmt.Errorf("listen on %s for metrics and health (http-addr): %w", cfg.HTTPAddr, err)
		}
	}
	// The executor decides when all ends; health is served to the last.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, failed := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer stop()
		return w.work(failed)
	})
	if listener != nil {
		cfg.Logger.InfoContext(ctx, "serving metrics and health", slog.String("address", listener.Addr().String()))
		g.Go(func() error { return w.serve(serving, listener) })
	}
	return g.Wait()
}

// work connects and runs the executor.
func (w *worker) work(ctx context.Context) error {
	id := executor.NewWorkerID(w.cfg.Queues...)
	log, err := w.open(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to end before there was a ledger
		}
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer log.Close() //nolint:contextcheck // closing waits for nothing that a context could end
	x, err := executor.New(executor.Config{
		Log: log, Registry: w.cfg.Registry, Worker: id, Queues: w.cfg.Queues,
		Slots: w.cfg.Slots, ShutdownGrace: w.cfg.ShutdownGrace, OutboxDir: w.cfg.OutboxDir, OutcomeKey: w.outcomeKey, Logger: w.cfg.Logger, Registerer: w.cfg.Metrics,
	})
	if err != nil {
		return err
	}
	w.up(log, x)
	return x.Run(ctx)
}

func (w *worker) loadKey(ctx context.Context) (err error) {
	if w.cfg.OutcomeKeyFile == "" {
		return nil
	}
	if w.outcomeKey, err = outcometoken.LoadKey(w.cfg.OutcomeKeyFile); err != nil {
		return err
	}
	if w.outcomeKey.Exposed() {
		w.cfg.Logger.WarnContext(ctx, "everybody on this machine may read the key of outcome tokens", slog.String("file", w.cfg.OutcomeKeyFile))
	}
	return nil
}

// open opens the ledger, and waits for it to come up for as long as it may.
func (w *worker) open(ctx context.Context, id string) (*eventlog.Log, error) {
	deadline := time.Now().Add(w.cfg.Wait)
	var said time.Time
	for {
		log, err := eventlog.Open(ctx, eventlog.Config{
			Brokers: w.cfg.Brokers, Prefix: w.cfg.Prefix, ClientID: id, Logger: w.cfg.Logger,
			Registerer: w.cfg.Metrics, AllowSingleReplica: w.cfg.AllowSingleReplica,
		})
		if err == nil || ctx.Err() != nil || !errors.Is(err, eventlog.ErrUnreachable) && !errors.Is(err, eventlog.ErrNotInitialized) {
			return log, err
		}
		w.notYet(err)
		if !time.Now().Before(deadline) {
			return nil, err
		}
		if time.Since(said) >= waitLog {
			said = time.Now()
			w.cfg.Logger.InfoContext(ctx, "waiting for the ledger", slog.Duration("left", time.Until(deadline).Round(time.Second)), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(waitPause):
		}
	}
}
