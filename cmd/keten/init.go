package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/ledger"
)

const (
	defaultPartitions        = 12
	defaultReplicationFactor = 3
)

func newInit(io stdio) *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create the ledger's topics and the read models' tables",
		Long: `Create the topics of the ledger, of its snapshots and of what tasks say while
they run with their settings, write the genesis of every partition, and create
the tables of the read models when --database-url is given, and the file of
--outcome-key-file unless it is there. Doing it again changes nothing. The
partition count is for good.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(io, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			wait := waiter{logger: logger, limit: cfg.wait}
			info, err := initLedger(cmd.Context(), cfg, wait)
			if err != nil {
				return err
			}
			fmt.Fprintf(io.out, "ledger %s: topic %s.ledger, %d partitions\n", info.LedgerID, cfg.prefix, info.Partitions)
			if err := makeOutcomeKey(io, cfg.outcomeKeyFile); err != nil {
				return err
			}
			if cfg.databaseURL == "" {
				return nil
			}
			err = wait.until(cmd.Context(), "postgresql", func(ctx context.Context) error {
				store, err := openStore(ctx, cfg, logger)
				if err == nil {
					store.Close()
				}
				return err
			})
			if err == nil {
				fmt.Fprintln(io.out, "read models: schemas keten and keten_output are up to date")
			}
			return err
		},
	}
	cfg.addLedgerFlags(cmd.Flags())
	cmd.Flags().StringVar(&cfg.outcomeKeyFile, "outcome-key-file", "", "make this file, with a key for outcome tokens, unless it is there")
	cmd.Flags().Int32Var(&cfg.partitions, "partitions", defaultPartitions, "partitions of the ledger, at most 4096; cannot be changed later")
	cmd.Flags().Int16Var(&cfg.replicationFactor, "replication-factor", 0, "copies of each record; default 3, with --allow-single-replica 1")
	return cmd
}

func makeOutcomeKey(io stdio, path string) error {
	if path == "" {
		return nil
	}
	made, err := outcometoken.EnsureKeyFile(path)
	if made {
		fmt.Fprintf(io.out, "outcome tokens: made the key %s\n", path)
	}
	return err
}

// initLedger makes the ledger, or finds it made.
func initLedger(ctx context.Context, cfg serverConfig, wait waiter) (info eventlog.Info, err error) {
	rf := cfg.replicationFactor
	if rf == 0 {
		rf = defaultReplicationFactor
		if cfg.allowSingleReplica {
			rf = 1
		}
	}
	err = wait.until(ctx, "kafka", func(ctx context.Context) (err error) {
		info, err = eventlog.Init(ctx, eventlog.InitConfig{
			Config: eventlog.Config{
				Brokers: cfg.brokers, Prefix: cfg.prefix, ClientID: "keten-init", Logger: wait.logger, AllowSingleReplica: cfg.allowSingleReplica,
			},
			Partitions: cfg.partitions, Window: ledger.DefaultWindow, ReplicationFactor: rf,
		})
		return err
	})
	return info, err
}
