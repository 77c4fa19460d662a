package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DefaultSchema is the schema of the live projection.
const DefaultSchema = "keten"

// outputSuffix makes the name of the schema of the tasks' output, which is no
// part of the projection.
const outputSuffix = "_output"

// connectTimeout bounds one attempt to connect, so that a server that does not
// answer is reported instead of waited for.
const connectTimeout = 5 * time.Second

// What callers may branch on.
var (
	// ErrNotFound: there is no such row for this tenant.
	ErrNotFound = errors.New("not found")
	// ErrUnreachable: PostgreSQL did not answer; the same call may work later.
	ErrUnreachable = errors.New("PostgreSQL is not reachable")
	// ErrConflict: another projector moved a checkpoint; nothing was written.
	ErrConflict = errors.New("the checkpoint was moved by another projector")
	// ErrBehind: the projection did not reach the position that was waited for.
	ErrBehind = errors.New("the projection is behind")
	// ErrNoTask and ErrNoAttempt: what was asked for is there, but has no such
	// task or attempt.
	ErrNoTask    = errors.New("no such task")
	ErrNoAttempt = errors.New("no such attempt")
	// ErrBadCursor: the cursor is not one that a list of the same tenant gave.
	ErrBadCursor = errors.New("the cursor is not valid")
	// ErrOtherLedger: the tables were made from another ledger.
	ErrOtherLedger = errors.New("the projection belongs to another ledger")
	// ErrNotMigrated: the schema lacks migrations of this build.
	ErrNotMigrated = errors.New("the schema is not migrated")
)

// Config says where the tables are.
type Config struct {
	URL      string       // of PostgreSQL, as pgx reads it
	Schema   string       // default [DefaultSchema]; lower case letters, digits and _, at most 48
	MaxConns int32        // for reads, default 8; writing takes one more, listening another, writing output two
	Logger   *slog.Logger // required
}

// A Store is the read model in one schema. It is safe for concurrent use.
type Store struct {
	schema       string
	outputSchema string
	logger       *slog.Logger
	reads        *pgxpool.Pool
	// writes has one connection, set up for statements that reach rows by key.
	writes *pgxpool.Pool
	// outputs are the connections that write output, which is none of the
	// projection's: they look into its schema.
	outputs *pgxpool.Pool
	watch   *watch
}

// Open connects. The error wraps [ErrUnreachable] when PostgreSQL does not
// answer; waiting for it is the caller's choice. The tables need not exist yet:
// see [Store.Migrate].
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		return nil, errors.New("readmodel: Logger is required")
	}
	if cfg.Schema == "" {
		cfg.Schema = DefaultSchema
	}
	if !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,47}$`).MatchString(cfg.Schema) {
		return nil, fmt.Errorf("schema %q: want lower case letters, digits and _, at most 48", cfg.Schema)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 8
	}
	s := &Store{schema: cfg.Schema, outputSchema: cfg.Schema + outputSuffix, logger: cfg.Logger, watch: newWatch()}
	var err error
	if s.reads, err = openPool(ctx, cfg, cfg.MaxConns, nil); err != nil {
		return nil, err
	}
	if s.writes, err = openPool(ctx, cfg, 1, writerParams()); err != nil {
		s.reads.Close()
		return nil, err
	}
	cfg.Schema = s.outputSchema
	if s.outputs, err = openPool(ctx, cfg, outputConns, map[string]string{"synchronous_commit": "off"}); err != nil {
		s.writes.Close()
		s.reads.Close()
		return nil, err
	}
	if err := s.reads.Ping(ctx); err != nil {
		s.Close()
		return nil, failed("connect", err)
	}
	return s, nil
}

// writerParams are the settings of the connection that writes. Losing the last
// transactions in a crash of the server is harmless, because rows and
// checkpoint are lost together. Every statement reaches its rows by key, and
// its plan is made once: tables grow faster than their statistics are
// collected, and a plan made for an empty table must not read a full one.
func writerParams() map[string]string {
	return map[string]string{
		"synchronous_commit": "off",
		"plan_cache_mode":    "force_generic_plan",
		"enable_seqscan":     "off",
		"enable_hashjoin":    "off",
		"enable_mergejoin":   "off",
	}
}

func openPool(ctx context.Context, cfg Config, conns int32, params map[string]string) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	pc.MaxConns = conns
	pc.ConnConfig.ConnectTimeout = connectTimeout
	p := pc.ConnConfig.RuntimeParams
	p["search_path"] = cfg.Schema
	p["application_name"] = "keten"
	p["timezone"] = "UTC"
	p["jit"] = "off" // every statement is short
	maps.Copy(p, params)
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the connection pool: %w", err)
	}
	return pool, nil
}

// Close ends all connections; calls under way fail.
func (s *Store) Close() {
	s.outputs.Close()
	s.writes.Close()
	s.reads.Close()
}

// Ready returns nil when PostgreSQL answers and all migrations of this build
// are there, else an error that wraps [ErrUnreachable] or [ErrNotMigrated].
func (s *Store) Ready(ctx context.Context) error {
	if err := s.migrated(ctx, s.schema, migrationsDir); err != nil {
		return err
	}
	return s.migrated(ctx, s.outputSchema, outputMigrationsDir)
}

func (s *Store) migrated(ctx context.Context, schema, dir string) error {
	want, err := newestMigration(dir)
	if err != nil {
		return err
	}
	// The name is checked by Open: letters, digits and _ only.
	sql := `select coalesce(max(version_id), 0) from ` + schema + `.goose_db_version where is_applied`
	var have int64
	if err := s.reads.QueryRow(ctx, sql).Scan(&have); err != nil {
		return failed("read the schema's version", err)
	}
	if have < want {
		return fmt.Errorf("schema %s is at version %d of %d: %w", schema, have, want, ErrNotMigrated)
	}
	return nil
}

// failed wraps an error of pgx once, with what was being done, and tells the
// server's absence apart from its refusals.
func failed(doing string, err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		switch {
		case pg.Code == codeConflict:
			return fmt.Errorf("%s: %w", doing, ErrConflict)
		case pg.Code == "42P01" || pg.Code == "42883": // undefined table, undefined function
			return fmt.Errorf("%s: %w: %w", doing, ErrNotMigrated, err)
		case away(pg.Code):
			return fmt.Errorf("%s: %w: %w", doing, ErrUnreachable, err)
		}
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnreachable, err)
}

// codeConflict is what advance_checkpoints raises.
const codeConflict = "KT001"

// away reports whether a server's answer means that it is not there for now.
func away(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", "53300": // shutdown, crash, starting, too many connections
		return true
	}
	return len(code) == 5 && code[:2] == "08"
}
