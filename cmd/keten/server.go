package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/projector"
)

// Bounds of the HTTP server: they keep slow or stuck clients from holding
// connections. Answers may take as long as the longest wait the API allows.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 90 * time.Second
	idleTimeout       = 2 * time.Minute
	httpDrain         = 10 * time.Second
	readyTimeout      = 3 * time.Second
)

// server is the roles of one process, made but not yet running.
type server struct {
	cfg       serverConfig
	queues    []string // of the executor
	logger    *slog.Logger
	metrics   *prometheus.Registry
	log       *eventlog.Log
	store     *readmodel.Store
	api       *httpapi.API
	executor  *executor.Executor
	projector *projector.Projector
	listener  net.Listener
	// outcomeKey signs and checks outcome tokens; nil for none.
	outcomeKey *outcometoken.Key
}

// newServer connects and makes the roles. register adds task handlers beyond
// the catalog's; nil for none.
func newServer(ctx context.Context, cfg serverConfig, logger *slog.Logger, register func(*executor.Registry) error) (_ *server, err error) {
	s := &server{cfg: cfg, logger: logger, metrics: newMetrics()}
	defer func() { //nolint:contextcheck // closing waits for nothing that a context could end
		if err != nil {
			s.close()
		}
	}()
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.httpAddr); err != nil {
		return nil, fmt.Errorf("listen on %s (--http-addr): %w", cfg.httpAddr, err)
	}
	if s.outcomeKey, err = cfg.loadOutcomeKey(ctx, logger); err != nil {
		return nil, err
	}
	types, err := loadCatalog(cfg.catalogPath)
	if err != nil {
		return nil, err
	}
	registry, err := s.newRegistry(types, register)
	if err != nil {
		return nil, err
	}
	var others []string
	s.queues, others = cfg.queuesFor(types)
	if cfg.has(roleExecutor) && len(others) > 0 {
		logger.InfoContext(ctx, "the catalog has queues that this process does not serve", slog.Any("served", s.queues), slog.Any("others", others))
	}
	worker := executor.NewWorkerID(s.queues...)
	if err := s.connect(ctx, worker); err != nil {
		return nil, err
	}
	return s, s.makeRoles(types, registry, worker) //nolint:contextcheck // requests bring their own
}

func newMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "keten_build_info", Help: "1, with the version this process was built from."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// connect opens the log and, where a role needs it, the read models.
func (s *server) connect(ctx context.Context, worker string) error {
	wait := waiter{logger: s.logger, limit: s.cfg.wait}
	err := wait.until(ctx, "kafka", func(ctx context.Context) (err error) {
		s.log, err = eventlog.Open(ctx, s.eventlogConfig(worker))
		return err
	})
	if err != nil || !s.cfg.needsPostgres() {
		return err
	}
	return wait.until(ctx, "postgresql", func(ctx context.Context) (err error) {
		s.store, err = openStore(ctx, s.cfg, s.logger)
		return err
	})
}

func (s *server) eventlogConfig(clientID string) eventlog.Config {
	return eventlog.Config{
		Brokers: s.cfg.brokers, Prefix: s.cfg.prefix, ClientID: clientID, Logger: s.logger,
		Registerer: s.metrics, AllowSingleReplica: s.cfg.allowSingleReplica,
	}
}

// openStore connects to Postgres and brings its schema up to date.
func openStore(ctx context.Context, cfg serverConfig, logger *slog.Logger) (*readmodel.Store, error) {
	store, err := readmodel.Open(ctx, readmodel.Config{URL: cfg.databaseURL, Schema: cfg.schema, Logger: logger})
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}

func (s *server) makeRoles(types *catalog.Catalog, registry *executor.Registry, worker string) (err error) {
	info := s.log.Info()
	if s.cfg.has(roleAPI) {
		s.api, err = httpapi.New(httpapi.Config{
			Store: s.store, Catalog: types, KnownTypes: registry.Types(), Appender: s.log,
			LedgerID: info.LedgerID, Partitions: info.Partitions, Window: info.Window, SingleReplica: info.SingleReplica, Hosts: s.cfg.apiHosts(),
			Logger: s.logger, Registerer: s.metrics, Gatherer: s.metrics, Ready: s.ready, OutcomeKey: s.outcomeKey,
		})
		if err != nil {
			return err
		}
	}
	if s.cfg.has(roleExecutor) {
		s.executor, err = executor.New(executor.Config{
			Log: s.log, Registry: registry, Worker: worker, Queues: s.queues, Slots: s.cfg.slots,
			ShutdownGrace: s.cfg.shutdownGrace, OutcomeKey: s.outcomeKey, OutboxDir: s.cfg.outboxDir, Logger: s.logger, Registerer: s.metrics,
		})
		if err != nil {
			return err
		}
	}
	if s.cfg.has(roleProjector) {
		s.projector, err = projector.New(projector.Config{Log: s.log, Store: s.store, Logger: s.logger, Registerer: s.metrics})
	}
	return err
}

// url is where the API answers.
func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// run runs the roles until ctx ends or one of them fails, then stops all:
// intake at once, work within its grace.
func (s *server) run(ctx context.Context) error {
	defer s.close() //nolint:contextcheck // closing waits for nothing that a context could end
	g, ctx := errgroup.WithContext(ctx)
	if s.store != nil {
		g.Go(func() error { return s.store.Run(ctx) })
	}
	if s.projector != nil {
		g.Go(func() error { return s.projector.Run(ctx) })
	}
	if s.executor != nil {
		g.Go(func() error { return s.executor.Run(ctx) })
	}
	g.Go(func() error { return s.serveHTTP(ctx) })
	return g.Wait()
}

func (s *server) serveHTTP(ctx context.Context) error {
	srv := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpDrain)
		defer cancel()
		stopped <- srv.Shutdown(drain)
	}()
	err := srv.Serve(s.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return <-stopped
}

// handler is the API, or health and metrics alone in a process without it.
func (s *server) handler() http.Handler {
	if s.api != nil {
		return s.api.Handler()
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := s.ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// ready reports what keeps this process from doing its work.
func (s *server) ready(ctx context.Context) error {
	errs := []error{s.log.Ready(ctx)}
	if s.store != nil {
		errs = append(errs, s.store.Ready(ctx))
	}
	if s.executor != nil {
		errs = append(errs, s.executor.Ready())
	}
	if s.projector != nil {
		errs = append(errs, s.projector.Ready())
	}
	return errors.Join(errs...)
}

func (s *server) close() {
	if s.listener != nil {
		_ = s.listener.Close() // Serve has closed it already, or nobody will use it
	}
	if s.log != nil {
		s.log.Close()
	}
	if s.store != nil {
		s.store.Close()
	}
}
