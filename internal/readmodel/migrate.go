package readmodel

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// The folders of migrations: of the projection's schema, and of the output's.
const (
	migrationsDir       = "migrations"
	outputMigrationsDir = "migrations_output"
)

//go:embed migrations/*.sql migrations_output/*.sql
var migrations embed.FS

// Migrate creates the schemas and brings their tables up to this build.
// Processes that migrate at once wait for each other.
func (s *Store) Migrate(ctx context.Context) error {
	if err := migrate(ctx, s.reads, s.schema, migrationsDir); err != nil {
		return err
	}
	return migrate(ctx, s.outputs, s.outputSchema, outputMigrationsDir)
}

// migrate is Migrate for the schema that the pool's connections look into.
func migrate(ctx context.Context, pool *pgxpool.Pool, schema, dir string) error {
	if err := createSchema(ctx, pool, schema); err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	// A lock of its own per schema; looked at each second, for five minutes.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID(schema)), lock.WithLockTimeout(1, 300))
	if err != nil {
		return fmt.Errorf("make the migration lock: %w", err)
	}
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return fmt.Errorf("open the migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return failed("migrate schema "+schema, err)
	}
	return nil
}

// createSchema goes first because goose's own table lives in the schema. Two
// processes that create it at once are serialized: PostgreSQL's "if not exists"
// alone does not do that.
func createSchema(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return failed("create schema "+schema, err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, lockID("create "+schema))
	if err == nil {
		// The name is checked by Open: letters, digits and _ only.
		_, err = tx.Exec(ctx, `create schema if not exists `+schema)
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return failed("create schema "+schema, err)
	}
	return nil
}

func lockID(name string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("keten readmodel " + name))
	return int64(h.Sum64()) //nolint:gosec // any 64 bits will do
}

// newestMigration is the version of a schema that this build needs.
func newestMigration(dir string) (int64, error) {
	files, err := fs.Glob(migrations, dir+"/*.sql")
	if err != nil || len(files) == 0 {
		return 0, errors.Join(errors.New("this build has no migrations"), err)
	}
	newest := int64(0)
	for _, f := range files {
		number, _, _ := strings.Cut(strings.TrimPrefix(f, dir+"/"), "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the number of migration %s: %w", f, err)
		}
		newest = max(newest, v)
	}
	return newest, nil
}
