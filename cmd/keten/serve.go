package main

import (
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
)

func newServe(io stdio) *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one or more roles of the server",
		Long: `Run one or more roles of the server in this process.

  api        the REST API; needs PostgreSQL
  executor   runs tasks; needs the catalog
  projector  keeps the read models in PostgreSQL up to date`,
		Example: "  keten serve --kafka-brokers kafka:9092 --database-url postgres://… --catalog catalog.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(io, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			if err := cfg.check(); err != nil {
				return err
			}
			s, err := newServer(cmd.Context(), cfg, logger, nil)
			if err != nil {
				return err
			}
			logger.InfoContext(cmd.Context(), "serving", slog.String("roles", strings.Join(cfg.roles, ",")), slog.String("url", s.url()),
				slog.String("ledger_id", s.log.Info().LedgerID.String()), slog.Bool("single_replica", s.log.Info().SingleReplica))
			return s.run(cmd.Context())
		},
	}
	cfg.addLedgerFlags(cmd.Flags())
	cfg.addServeFlags(cmd.Flags())
	cmd.Flags().StringSliceVar(&cfg.roles, "roles", []string{roleAPI, roleExecutor, roleProjector}, "roles of this process")
	return cmd
}
