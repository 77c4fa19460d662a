package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/devstack"
)

const (
	devPartitions  = 4
	devBrokerAddr  = "127.0.0.1:9092" // taken when it is free, so that kcat finds it
	devStopTimeout = 30 * time.Second
)

// stack is the broker and the database that dev and demo bring along.
type stack struct {
	broker   *devstack.Broker
	postgres *devstack.Postgres
}

func newDev(io stdio) *cobra.Command {
	var cfg serverConfig
	var dataDir, kafkaAddr string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with an own broker and PostgreSQL",
		Long: `Run the API, an executor and a projector in one process, on a broker inside it
and a PostgreSQL server beside it. Their data stays in a folder and survives
kill -9. For trying out and developing: one node, no replication.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(io, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			cfg.roles = allRoles()
			return runDev(cmd.Context(), io, cfg, logger, dataDir, kafkaAddr)
		},
	}
	cfg.addServeFlags(cmd.Flags())
	cfg.addLogFlags(cmd.Flags())
	cmd.Flags().StringVar(&dataDir, "data-dir", ".keten", "folder of the broker's and PostgreSQL's data")
	cmd.Flags().StringVar(&kafkaAddr, "kafka-addr", "", "address of the broker; default "+devBrokerAddr+", or a free port when that is taken")
	return cmd
}

func allRoles() []string { return []string{roleAPI, roleExecutor, roleProjector} }

func runDev(ctx context.Context, io stdio, cfg serverConfig, logger *slog.Logger, dataDir, kafkaAddr string) error {
	st, err := startStack(ctx, logger, dataDir, kafkaAddr)
	if err != nil {
		return err
	}
	defer st.stop(ctx, logger)
	cfg = st.configure(cfg)
	if cfg.outboxDir == executor.DefaultOutboxDir() { // nobody chose another
		cfg.outboxDir = filepath.Join(dataDir, "outbox")
	}
	if err := cfg.check(); err != nil {
		return err
	}
	if err := cfg.ensureOutcomeKey(dataDir); err != nil {
		return err
	}
	s, err := st.serve(ctx, cfg, logger, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(io.out, `Keten is running. Development broker, single node, no replication.
  API       %s/v1/collections
  docs      %s/docs
  Kafka     %s   topic %s.ledger
  Postgres  %s
  data      %s
Ctrl-C stops it; the data stays.
`, s.url(), s.url(), st.broker.Addr(), cfg.prefix, st.postgres.URL(), dataDir)
	return st.watch(ctx, s.run)
}

// startStack starts the broker and PostgreSQL side by side on a data folder.
func startStack(ctx context.Context, logger *slog.Logger, dataDir, kafkaAddr string) (*stack, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	if kafkaAddr == "" {
		kafkaAddr = freeOr(ctx, devBrokerAddr)
	}
	st := &stack{}
	if st.broker, err = devstack.StartBroker(devstack.BrokerConfig{Dir: filepath.Join(dir, "kafka"), Addr: kafkaAddr, Logger: logger}); err != nil {
		return nil, fmt.Errorf("start the development broker: %w", err)
	}
	if st.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: filepath.Join(dir, "postgres"), Logger: logger}); err != nil {
		st.broker.Close()
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return st, nil
}

// freeOr returns addr when nobody listens there, else a free port.
func freeOr(ctx context.Context, addr string) string {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close() // it was opened to see that it can be
	return addr
}

func (st *stack) configure(cfg serverConfig) serverConfig {
	cfg.brokers, cfg.databaseURL = st.broker.Addrs(), st.postgres.URL()
	cfg.allowSingleReplica, cfg.allQueues = true, true
	if cfg.prefix == "" {
		cfg.prefix = "keten"
	}
	if cfg.partitions == 0 {
		cfg.partitions = devPartitions
	}
	return cfg
}

// serve initializes the ledger and makes a server on it.
func (st *stack) serve(ctx context.Context, cfg serverConfig, logger *slog.Logger, register func(*executor.Registry) error) (*server, error) {
	if _, err := initLedger(ctx, cfg, waiter{logger: logger}); err != nil {
		return nil, err
	}
	return newServer(ctx, cfg, logger, register)
}

// watch runs the server; when PostgreSQL ends by itself the server stops with
// that error.
func (st *stack) watch(ctx context.Context, run func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	over, cancel := context.WithCancel(ctx)
	g.Go(func() error { defer cancel(); return run(ctx) })
	g.Go(func() error {
		select {
		case <-over.Done():
			return nil
		case <-st.postgres.Done():
			return errors.Join(errors.New("PostgreSQL has ended"), st.postgres.Err())
		}
	})
	return g.Wait()
}

func (st *stack) stop(ctx context.Context, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), devStopTimeout)
	defer cancel()
	if err := st.postgres.Stop(ctx); err != nil {
		logger.WarnContext(ctx, "stopping PostgreSQL", slog.Any("error", err))
	}
	st.broker.Close()
}
