package devstack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

func startPostgres(t *testing.T, dir string) *devstack.Postgres {
	t.Helper()
	pg, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Stop(context.Background())) })
	return pg
}

// scratch is a folder that an account of another name can pass through, which
// t.TempDir is not.
func scratch(t *testing.T) string {
	t.Helper()
	dir, remove, err := devstack.Scratch("keten-devstack-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	return dir
}

func exec(t *testing.T, pg *devstack.Postgres, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL())
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func count(t *testing.T, pg *devstack.Postgres) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL())
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from kept").Scan(&n))
	return n
}

func TestPostgresKeepsRowsOverARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	pg := startPostgres(t, dir)
	require.Equal(t, filepath.Join(dir, "data"), pg.DataDir())
	exec(t, pg, "create table kept (n int); insert into kept values (1), (2)")
	require.NoError(t, pg.Stop(t.Context()))
	<-pg.Done()
	require.NoError(t, pg.Err())

	pg = startPostgres(t, dir)
	require.Equal(t, 2, count(t, pg))
}

func TestPostgresFolderHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	startPostgres(t, dir)
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Logger: testLogger(t)})
	require.ErrorIs(t, err, devstack.ErrFolderInUse)
	require.ErrorContains(t, err, dir)
}

// The account the server runs as cannot enter a folder below /root or one made
// by os.MkdirTemp; the data then goes where it can.
func TestPostgresWorksBelowAClosedFolder(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(scratch(t), "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	dir := filepath.Join(closed, "pg")
	pg := startPostgres(t, dir)
	if os.Geteuid() == 0 {
		require.NotContains(t, pg.DataDir(), dir)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(filepath.Dir(pg.DataDir()))) })
	}
	exec(t, pg, "create table kept (n int); insert into kept values (1)")
	require.NoError(t, pg.Stop(t.Context()))

	pg = startPostgres(t, dir)
	require.Equal(t, 1, count(t, pg))
}

// Data of another version is not ours to touch: what stands in it may exist
// nowhere else.
func TestPostgresRefusesForeignData(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, content, says string }{
		"another version": {"PG_VERSION", "11\n", "made by PostgreSQL 11"},
		"not PostgreSQL":  {"thesis.txt", "all my work", "is no PostgreSQL data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(scratch(t), "pg")
			file := filepath.Join(dir, "data", tc.file)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(tc.content), 0o600))

			_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Logger: testLogger(t)})
			require.ErrorIs(t, err, devstack.ErrForeignData)
			require.ErrorContains(t, err, tc.says)
			require.ErrorContains(t, err, "nothing was changed")

			kept, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, tc.content, string(kept))
		})
	}
}
