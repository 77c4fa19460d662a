package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/internal/devstack"
)

// EnvURL names a server that is already running; its user must be allowed to
// create databases.
const EnvURL = "KETEN_TEST_DATABASE_URL"

// startWait covers the first start on a busy machine, with binaries to fetch.
const startWait = 5 * time.Minute

// server is the one server of this test process. It is started by the first
// test that asks and ends with the process.
//
//nolint:gochecknoglobals // a process has one, and tests have no other place in common
var server = sync.OnceValues(start)

// URL creates an empty database for this test and returns its address, good
// for pgx and pgxpool. It is dropped, connected or not, when the test ends.
func URL(t testing.TB) string {
	t.Helper()
	admin := os.Getenv(EnvURL)
	if admin == "" {
		s, err := server()
		if err != nil {
			unavailable(t, err)
		}
		admin = s.url
	}
	name := "keten_test_" + strings.ToLower(rand.Text())
	run(t, admin, "create database "+name)
	t.Cleanup(func() { run(t, admin, "drop database if exists "+name+" with (force)") })
	return withDatabase(t, admin, name)
}

// unavailable skips where a developer lacks a server; a pipeline that lost its
// server must not pass for having tested.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("no PostgreSQL for tests: %v", err)
	}
	t.Skipf("no PostgreSQL for tests: %v", err)
}

// running is the server and the hold on its folder, which must stay reachable: a
// lock that is collected as garbage lets a neighbor sweep the folder away.
type running struct {
	url    string
	remove func() error
}

func start() (*running, error) {
	//nolint:forbidigo // the server outlives the test that asked first
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	// The folder goes with a later test run: nothing tells a library that its
	// process ends.
	dir, remove, err := devstack.Scratch("keten-pgtest-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	pg, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir:    dir + "/pg",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, err
	}
	return &running{url: pg.URL(), remove: remove}, nil
}

// run is used at cleanup too, when the test's own context has ended.
func run(t testing.TB, admin, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		t.Fatalf("connect to the test server: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// withDatabase puts another database into a URL or a keyword/value string.
func withDatabase(t testing.TB, dsn, name string) string {
	t.Helper()
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " dbname=" + name // the last one counts
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("read %s: %v", EnvURL, err)
	}
	q := u.Query()
	q.Del("dbname")
	q.Del("database")
	u.RawQuery = q.Encode()
	u.Path = "/" + name
	return u.String()
}
