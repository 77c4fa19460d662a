package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// ErrForeignData says that the data folder belongs to a PostgreSQL version for
// which no binaries are here, or is no PostgreSQL data at all. Nothing was
// changed; a person must decide.
var ErrForeignData = errors.New("data folder is not ours to open")

const (
	superuser = "postgres"
	database  = "keten"
	// readyWait covers crash recovery on a slow, busy machine.
	readyWait = 2 * time.Minute
	readyPoll = 10 * time.Millisecond
	// fastWait is how long a fast shutdown may write its checkpoint, quitWait
	// how long an immediate one may take, killWait the time for the kernel.
	fastWait = 30 * time.Second
	quitWait = 10 * time.Second
	killWait = 10 * time.Second
)

// PostgresConfig says where a PostgreSQL server keeps its data.
type PostgresConfig struct {
	// Dir is the folder of the data, created when missing. When the account the
	// server runs as cannot enter it, the data goes elsewhere, which is logged.
	// Required.
	Dir string
	// Logger is required.
	Logger *slog.Logger
	// BinDir is a folder with initdb and postgres. Empty means: the newest on
	// this machine that fits the data, else fetched once.
	BinDir string
	// CacheDir is where fetched binaries are kept, for all folders and, as
	// root, for all users. Empty means the user's cache folder, or
	// /var/cache/keten for root.
	CacheDir string
	// RepositoryURL is the Maven repository binaries are fetched from; empty
	// means Maven Central.
	RepositoryURL string
}

// Postgres is a running server with a database named keten. It listens on a
// Unix socket in a private folder and on nothing else.
type Postgres struct {
	logger   *slog.Logger
	proc     *child.Process
	place    place
	socket   string
	lock     *flock.Flock
	stopping atomic.Bool
	done     chan struct{}
	err      error // written before done is closed
}

// StartPostgres starts a server on the folder and returns when it answers. As
// root it runs under the account postgres, else nobody. Data is made on the
// first start and never wiped: [ErrForeignData] and [ErrFolderInUse] are for a
// person to solve. The end of ctx ends the starting, not the server.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, errors.New("start postgres: Dir and Logger are required")
	}
	p, err := startPostgres(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	return p, nil
}

func startPostgres(ctx context.Context, cfg PostgresConfig) (p *Postgres, err error) {
	if err := platform(); err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("find folder: %w", err)
	}
	lock, err := lockFolder(cfg.Dir, passable)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	at, err := findPlace(ctx, cfg.Dir, user)
	if err != nil {
		return nil, err
	}
	if at.moved(cfg.Dir) {
		cfg.Logger.InfoContext(ctx, "postgres cannot enter the folder, its data is elsewhere",
			slog.String("dir", cfg.Dir), slog.String("user", user.Name), slog.String("data_dir", at.data))
	}
	bins, err := findBinaries(ctx, cfg, at)
	if err != nil {
		return nil, err
	}
	p = &Postgres{logger: cfg.Logger, place: at, lock: lock, done: make(chan struct{})}
	return p, p.start(ctx, bins)
}

// start brings the server up, or leaves nothing running.
func (p *Postgres) start(ctx context.Context, bins binaries) error {
	if err := p.place.initialize(ctx, bins); err != nil {
		return err
	}
	if err := endLeftover(ctx, p.logger, p.place.data); err != nil {
		return err
	}
	socket, err := p.place.socketDir()
	if err != nil {
		return err
	}
	p.socket = socket
	output := newServerLog(p.logger, &p.stopping)
	p.proc, err = child.Start(ctx, child.Config{
		Path: bins.path("postgres"), Args: append([]string{"-D", p.place.data}, settings(socket)...),
		Env: serverEnv(), Dir: p.place.data, User: p.place.user, Output: output,
		// A fast shutdown: sessions are cut, data is complete.
		OnDeath: syscall.SIGINT,
	})
	if err != nil {
		return err
	}
	if err := p.becomeReady(ctx, output); err != nil {
		return errors.Join(err, p.end(context.WithoutCancel(ctx)))
	}
	go p.watch(context.WithoutCancel(ctx), output)
	p.logger.InfoContext(ctx, "postgres is ready", slog.String("version", bins.version), slog.String("bin_dir", bins.dir),
		slog.String("data_dir", p.place.data), slog.Int("pid", p.proc.PID()))
	return nil
}

// becomeReady waits until the server takes connections and makes the database.
func (p *Postgres) becomeReady(ctx context.Context, output *serverLog) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("postgres is not ready after %s", readyWait))
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for !readyFile(p.place.data, p.proc.PID()) {
		select {
		case <-tick.C:
		case <-p.proc.Done():
			return fmt.Errorf("postgres ended while starting: %w; its last words: %s", orClean(p.proc.Err()), output.last())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return ensureDatabase(ctx, p.url(superuser))
}

// readyFile reads what the server tells pg_ctl: the first line of its lock file
// is its pid, the eighth its state.
func readyFile(dataDir string, pid int) bool {
	lines := postmasterLines(dataDir)
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

func postmasterLines(dataDir string) []string {
	raw, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
}

func ensureDatabase(ctx context.Context, adminURL string) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return fmt.Errorf("connect to the new server: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", database).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", database, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "create database "+database); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return nil
}

// watch turns the end of the process into the end of the server.
func (p *Postgres) watch(ctx context.Context, output *serverLog) {
	<-p.proc.Done()
	if !p.stopping.Load() {
		p.err = fmt.Errorf("postgres ended by itself: %w; its last words: %s", orClean(p.proc.Err()), output.last())
		p.logger.ErrorContext(ctx, "postgres ended by itself", slog.Any("error", p.proc.Err()))
	}
	_ = p.lock.Close()
	close(p.done)
}

func orClean(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

// settings are given on the command line, so that nothing of a start stays in
// the data folder. fsync stays on: the data has to survive the machine.
func settings(socket string) []string {
	var args []string
	for _, s := range []string{
		"listen_addresses=",
		// The value is a list; quoting keeps a comma or space in the path in it.
		`unix_socket_directories="` + strings.ReplaceAll(socket, `"`, `""`) + `"`,
		"unix_socket_permissions=0700",
		"max_connections=200", "shared_buffers=128MB", "max_wal_size=1GB", "jit=off",
		"timezone=UTC", "log_timezone=UTC",
		"lc_messages=C", "log_destination=stderr", "logging_collector=off", "log_line_prefix=", "log_checkpoints=off",
	} {
		args = append(args, "-c", s)
	}
	return args
}

// serverEnv is all the server's programs see of our environment: PG* variables
// of a developer must not reach them.
func serverEnv() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}

// URL names the database keten, for pgx and libpq.
func (p *Postgres) URL() string { return p.url(database) }

func (p *Postgres) url(name string) string {
	q := url.Values{"host": {p.socket}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + name, RawQuery: q.Encode()}).String()
}

// DataDir is where the data really lies.
func (p *Postgres) DataDir() string { return p.place.data }

// Done is closed when the server has ended, by Stop or by itself.
func (p *Postgres) Done() <-chan struct{} { return p.done }

// Err returns why the server ended by itself, nil after Stop. Valid after Done.
func (p *Postgres) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Stop ends the server with its data complete. When ctx ends first, or the
// server takes more than half a minute, it is stopped hard, and the next start
// recovers from the log; no committed row is lost. Calling it again waits for
// the end.
func (p *Postgres) Stop(ctx context.Context) error {
	if err := p.end(ctx); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	<-p.done
	return nil
}

func (p *Postgres) end(ctx context.Context) error {
	p.stopping.Store(true)
	return p.proc.Stop(ctx,
		child.Step{Signal: syscall.SIGINT, Wait: fastWait},
		child.Step{Signal: syscall.SIGQUIT, Wait: quitWait},
		child.Step{Signal: syscall.SIGKILL, Wait: killWait})
}
