package devstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

const (
	// fetchVersion is the PostgreSQL that is fetched where there is none.
	fetchVersion = "17.5.0"
	// systemCache is the cache of root, whose own one no other account can
	// enter.
	systemCache = "/var/cache/keten"
	// fetchWait bounds one download of about 15 MB and one start; the fetcher
	// itself knows no bound.
	fetchWait      = 10 * time.Minute
	fetchLockRetry = 200 * time.Millisecond
	workPrefix     = "fetch-"
)

// installHint is what somebody can do whose machine cannot fetch.
const installHint = "install PostgreSQL (on Debian and Ubuntu: apt-get update && apt-get install -y postgresql) or " + useOwnDatabase

// fetch returns the folder of binaries in the cache, filling it first if need
// be. One process fetches, the others wait for it.
func fetch(ctx context.Context, cfg PostgresConfig, user *child.User) (string, error) {
	root, err := cacheRoot(cfg)
	if err != nil {
		return "", err
	}
	home := filepath.Join(root, "postgres-"+fetchVersion)
	bin := filepath.Join(home, "bin")
	if exists(home) {
		return bin, nil
	}
	if os.Getenv(fetchEnv) != "" {
		return "", errors.New("fetch PostgreSQL: this process was started to fetch it; the program must call devstack.FetchChild first of all")
	}
	if err := os.MkdirAll(root, passable); err != nil {
		return "", fmt.Errorf("create cache folder: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchWait, fmt.Errorf("not done within %s", fetchWait))
	defer cancel()
	lock := flock.New(home + ".lock")
	if _, err := lock.TryLockContext(ctx, fetchLockRetry); err != nil {
		return "", fmt.Errorf("wait for another process that fetches PostgreSQL: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if exists(home) {
		return bin, nil
	}
	from := cfg.RepositoryURL
	if from == "" {
		from = "Maven Central"
	}
	cfg.Logger.InfoContext(ctx, "no PostgreSQL on this machine, fetching one, once",
		slog.String("version", fetchVersion), slog.String("from", from), slog.String("to", home))
	if err := fetchTo(ctx, cfg, root, home, user); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL %s from %s: %w; %s", fetchVersion, from, err, installHint)
	}
	return bin, nil
}

func cacheRoot(cfg PostgresConfig) (string, error) {
	if cfg.CacheDir != "" {
		return filepath.Abs(cfg.CacheDir)
	}
	if os.Geteuid() == 0 {
		return systemCache, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder for PostgreSQL: %w; %s", err, installHint)
	}
	return filepath.Join(dir, "keten"), nil
}

// fetchTo lets a child process fill a work folder and moves the result to home.
// Whatever happens, neither the folder nor a server stays behind; what a kill
// -9 left is removed by the next fetch, which holds the lock.
func fetchTo(ctx context.Context, cfg PostgresConfig, root, home string, user *child.User) (err error) {
	old, _ := filepath.Glob(filepath.Join(root, workPrefix+"*")) // the only error is a bad pattern
	for _, dir := range old {
		_ = discard(ctx, cfg.Logger, dir)
	}
	work, err := os.MkdirTemp(root, workPrefix)
	if err != nil {
		return fmt.Errorf("create work folder: %w", err)
	}
	defer func() { err = errors.Join(err, discard(context.WithoutCancel(ctx), cfg.Logger, work)) }()
	program, err := fetchProgram(work, user)
	if err != nil {
		return err
	}
	job, err := json.Marshal(fetchJob{Work: work, Repository: cfg.RepositoryURL})
	if err != nil {
		return fmt.Errorf("describe the work: %w", err)
	}
	out, err := child.Run(ctx, child.Config{
		// Should the program not know its part, a test binary would run all its
		// tests: this makes it run none.
		Path: program, Args: []string{"-test.run=^$"},
		Env: fetchEnviron(work, string(job)), Dir: work, User: user,
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	if !exists(filepath.Join(work, fetchedName, "bin", "postgres")) {
		return errors.New("the fetching process did nothing; the program must call devstack.FetchChild first of all")
	}
	if err := checkArchive(work); err != nil {
		return err
	}
	return adopt(filepath.Join(work, fetchedName), home, user)
}

// fetchProgram is our own program, copied to where the other account can reach
// it when there is one.
func fetchProgram(work string, user *child.User) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if user == nil {
		return self, nil
	}
	if err := os.Lchown(work, int(user.UID), int(user.GID)); err != nil {
		return "", fmt.Errorf("give folder to user %s: %w", user.Name, err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		return "", fmt.Errorf("copy this program: %w", err)
	}
	program := filepath.Join(work, "fetch")
	if err := os.WriteFile(program, raw, 0o755); err != nil { //nolint:gosec // another account runs it
		return "", fmt.Errorf("copy this program: %w", err)
	}
	return program, nil
}

// fetchEnviron is our environment, with its proxies and certificates, less what
// a PostgreSQL client would take for settings.
func fetchEnviron(work, job string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PG") && name != "HOME" && name != "TMPDIR" && name != "LC_ALL" {
			env = append(env, kv)
		}
	}
	return append(env, "HOME="+work, "TMPDIR="+work, "LC_ALL=C", fetchEnv+"="+job)
}

// adopt moves the binaries to their place; as root it also takes them away from
// the account that fetched them.
func adopt(from, home string, user *child.User) error {
	if user != nil {
		err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, 0, 0) //nolint:gosec // it follows no link, and whoever made the tree has ended
		})
		if err != nil {
			return fmt.Errorf("take over the binaries: %w", err)
		}
	}
	if err := os.Chmod(from, 0o755); err != nil { //nolint:gosec // another account runs them
		return fmt.Errorf("open the binaries: %w", err)
	}
	if err := os.Rename(from, home); err != nil {
		return fmt.Errorf("put the binaries in place: %w", err)
	}
	return nil
}

// discard ends a throw-away server that a killed fetch left and removes its
// folder.
func discard(ctx context.Context, logger *slog.Logger, work string) error {
	return errors.Join(endLeftover(ctx, logger, filepath.Join(work, throwAwayName)), os.RemoveAll(work))
}
