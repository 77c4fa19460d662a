package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// oldestMajor is the oldest PostgreSQL that is used from the machine; an older
// one is passed over and a current one fetched.
const oldestMajor = 14

// binaries is one PostgreSQL installation.
type binaries struct {
	dir     string
	version string // as it tells itself: "15.14"
	major   int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// findBinaries returns the installation to use: the one asked for, else the
// newest on this machine, else a fetched one. Existing data has the say: only
// its own version can open it.
func findBinaries(ctx context.Context, cfg PostgresConfig, at place) (binaries, error) {
	want, err := at.dataMajor()
	if err != nil {
		return binaries{}, err
	}
	if cfg.BinDir != "" {
		b, err := probe(ctx, cfg.BinDir, at.user)
		if err != nil {
			return binaries{}, err
		}
		return b, fits([]binaries{b}, want, at.data)
	}
	found := installed(ctx, at.user)
	if i := slices.IndexFunc(found, func(b binaries) bool { return b.opens(want) }); i >= 0 {
		return found[i], nil
	}
	if want != "" && want != majorOf(fetchVersion) {
		return binaries{}, fits(found, want, at.data)
	}
	dir, err := fetch(ctx, cfg, at.user)
	if err != nil {
		return binaries{}, err
	}
	return probe(ctx, dir, at.user)
}

// opens tells whether the installation can open data of that version; "" is no
// data yet.
func (b binaries) opens(dataMajor string) bool {
	return dataMajor == "" || dataMajor == strconv.Itoa(b.major)
}

// fits refuses data that none of the installations can open.
func fits(found []binaries, want, data string) error {
	have := make([]string, 0, len(found))
	for _, b := range found {
		if b.opens(want) {
			return nil
		}
		have = append(have, b.version+" in "+b.dir)
	}
	if len(have) == 0 {
		have = append(have, "none")
	}
	return fmt.Errorf("%w: %s was made by PostgreSQL %s, and the installations here are: %s; nothing was changed: install PostgreSQL %s, or move the folder away to begin an empty database",
		ErrForeignData, data, want, strings.Join(have, ", "), want)
}

// installed lists the installations of this machine that the account can run,
// newest first.
func installed(ctx context.Context, user *child.User) []binaries {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		match, _ := filepath.Glob(pattern) // the only error is a bad pattern
		dirs = append(dirs, match...)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	var found []binaries
	for _, dir := range dirs {
		if b, err := probe(ctx, dir, user); err == nil && b.major >= oldestMajor {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(a, b binaries) int { return cmp.Compare(b.major, a.major) })
	return found
}

// probe runs the server's program under its account to ask for the version, so
// that what it finds is known to work.
func probe(ctx context.Context, dir string, user *child.User) (binaries, error) {
	b := binaries{dir: dir}
	if !exists(b.path("initdb")) || !exists(b.path("postgres")) {
		return b, fmt.Errorf("folder %s has no initdb and postgres", dir)
	}
	out, err := child.Run(ctx, child.Config{Path: b.path("postgres"), Args: []string{"--version"}, Env: serverEnv(), Dir: "/", User: user})
	if err != nil {
		return b, fmt.Errorf("ask %s for its version: %w: %s", b.path("postgres"), err, strings.TrimSpace(string(out)))
	}
	// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
	_, rest, ok := strings.Cut(string(out), "(PostgreSQL) ")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return b, fmt.Errorf("ask %s for its version: unexpected answer %q", b.path("postgres"), out)
	}
	b.version = fields[0]
	b.major, err = strconv.Atoi(majorOf(b.version))
	if err != nil {
		return b, errors.Join(fmt.Errorf("read version %q of %s", b.version, dir), err)
	}
	return b, nil
}

// majorOf cuts "17.5.0", and "18beta1", to "17" and "18".
func majorOf(version string) string {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return version
	}
	return version[:end]
}

// HavePostgres tells whether a server can be started without fetching one.
func HavePostgres(ctx context.Context) bool {
	user, err := serverUser()
	return err == nil && len(installed(ctx, user)) > 0
}
