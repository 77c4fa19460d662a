//go:build unix

package devstack_test

import (
	"context"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// kill -9 of keten dev is what a developer's machine does to it: no server stays
// behind, and the next start finds every committed row.
func TestPostgresDiesWithAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	pg := startPostgres(t, dir)
	exec(t, pg, "create table kept (n int); insert into kept values (1), (2), (3)")
	require.NoError(t, pg.Stop(t.Context()))

	said, kill := serveElsewhere(t, dir, 0)
	require.Empty(t, said.Error)
	require.Contains(t, devstack.ServersOf(said.DataDir), said.PID)
	kill()
	require.Eventually(t, func() bool { return len(devstack.ServersOf(said.DataDir)) == 0 },
		30*time.Second, 10*time.Millisecond, "the server outlived its parent")

	pg = startPostgres(t, dir)
	require.Equal(t, 3, count(t, pg))
}

// The next start may come while the server of a killed parent still writes its
// checkpoint, which can take long. Two servers on one folder would be the end of
// the data.
func TestPostgresWaitsForTheOneBefore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	said, kill := serveElsewhere(t, dir, 0)
	require.Empty(t, said.Error)
	require.NoError(t, syscall.Kill(said.PID, syscall.SIGSTOP)) // a checkpoint that takes long
	kill()

	logged := &waitedFor{handler: testLogger(t).Handler(), pid: said.PID}
	pg, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Logger: slog.New(logged)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Stop(context.Background())) })
	require.True(t, logged.seen.Load())
	require.NotContains(t, devstack.ServersOf(pg.DataDir()), said.PID)
}

// waitedFor lets the server go on as soon as the start says that it waits.
type waitedFor struct {
	handler slog.Handler
	pid     int
	seen    atomic.Bool
}

func (w *waitedFor) Enabled(context.Context, slog.Level) bool { return true }
func (w *waitedFor) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *waitedFor) WithGroup(string) slog.Handler            { return w }

func (w *waitedFor) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "waiting for the postgres of an earlier start") {
		w.seen.Store(true)
		if err := syscall.Kill(w.pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return w.handler.Handle(ctx, r)
}

// A server that ends by itself is noticed, and its data is good afterwards.
func TestPostgresThatEndsByItselfIsNoticed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	pg := startPostgres(t, dir)
	exec(t, pg, "create table kept (n int); insert into kept values (1)")
	require.NoError(t, syscall.Kill(pg.PID(), syscall.SIGKILL))
	<-pg.Done()
	require.ErrorContains(t, pg.Err(), "ended by itself")

	pg = startPostgres(t, dir)
	require.Equal(t, 1, count(t, pg))
}

// After a crash and in a fresh container the number in the lock file is soon
// some other program's. PostgreSQL alone would refuse to start.
func TestPostgresStartsOverTheLockFileOfAnotherProgram(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	pg := startPostgres(t, dir)
	require.NoError(t, pg.Stop(t.Context()))

	other := osexec.Command("sleep", "600")
	require.NoError(t, other.Start())
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	lock := filepath.Join(pg.DataDir(), "postmaster.pid")
	lines := []string{strconv.Itoa(other.Process.Pid), pg.DataDir(), "0", "5432", "", "", "", "ready", ""}
	require.NoError(t, os.WriteFile(lock, []byte(strings.Join(lines, "\n")), 0o644))

	startPostgres(t, dir)
	require.NoError(t, other.Process.Signal(syscall.Signal(0)), "the other program was ended")
}

// Containers like to run programs under a number without a name.
func TestPostgresNeedsAPasswdEntry(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	const nameless = 54321
	home := scratch(t)
	require.NoError(t, os.Chown(home, nameless, nameless))
	said, _ := serveElsewhere(t, filepath.Join(home, "pg"), nameless)
	require.Contains(t, said.Error, "no entry in the password file")
	require.Contains(t, said.Error, "KETEN_DATABASE_URL")
}

func TestPostgresStopsBeforeItIsReady(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: dir, Logger: testLogger(t)})
	require.ErrorIs(t, err, context.Canceled)
	startPostgres(t, dir)
}
