package devstack

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	// fetchEnv tells a process that it was started to fetch, and what.
	fetchEnv = "KETEN_INTERNAL_FETCH_POSTGRES"
	// fetchedName, archiveName and throwAwayName are folders in the work
	// folder: the binaries, the archive they came in, the server that tried
	// them.
	fetchedName   = "postgres"
	archiveName   = "archive"
	throwAwayName = "throwaway"
)

// fetchJob is what the parent asks of the child, in JSON.
type fetchJob struct {
	Work       string `json:"work"`
	Repository string `json:"repository"`
}

// FetchChild does the part of a program that was started by itself to fetch
// PostgreSQL, and returns the exit code and true. In any other process it does
// nothing and returns false. Programs that may call [StartPostgres] call it
// first of all in main, before flags are read.
func FetchChild() (code int, ok bool) {
	raw := os.Getenv(fetchEnv)
	if raw == "" {
		return 0, false
	}
	var job fetchJob
	err := json.Unmarshal([]byte(raw), &job)
	if err == nil {
		err = fetchOnce(job)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// fetchOnce uses embedded-postgres for what it is good at: to find, download
// and unpack the binaries for this machine. It does that only in its Start,
// which also runs a server; that one lives on a throw-away folder. Our own data
// it never sees: it would wipe data of another version.
func fetchOnce(job fetchJob) error {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	if err := ln.Close(); err != nil || !ok {
		return errors.Join(errors.New("find a free port"), err)
	}
	config := embeddedpostgres.DefaultConfig() // its repository is Maven Central
	if job.Repository != "" {
		config = config.BinaryRepositoryURL(job.Repository)
	}
	server := embeddedpostgres.NewDatabase(config.
		Version(fetchVersion).
		CachePath(filepath.Join(job.Work, archiveName)).
		BinariesPath(filepath.Join(job.Work, fetchedName)).
		RuntimePath(filepath.Join(job.Work, "run")).
		DataPath(filepath.Join(job.Work, throwAwayName)).
		Port(uint32(addr.Port)). //nolint:gosec // a port
		Password(rand.Text()).
		StartParameters(map[string]string{"unix_socket_directories": "", "listen_addresses": "localhost"}).
		Logger(io.Discard))
	if err := server.Start(); err != nil {
		return err
	}
	return server.Stop()
}

// checkArchive compares what was downloaded with what it was when this program
// was written; a repository can be a mirror that serves anything. A platform
// without an entry has only the repository's own checksum.
func checkArchive(work string) error {
	found, _ := filepath.Glob(filepath.Join(work, archiveName, "*.txz")) // the only error is a bad pattern
	if len(found) != 1 {
		return fmt.Errorf("expected one archive, found %d", len(found))
	}
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "embedded-postgres-binaries-"), "-"+fetchVersion+".txz")
	want, ok := archiveSums()[name]
	if !ok {
		return nil
	}
	raw, err := os.ReadFile(found[0])
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != want {
		return fmt.Errorf("the archive for %s is not the one expected: its SHA-256 is %x, not %s", name, sum, want)
	}
	return nil
}

// archiveSums are the SHA-256 of the archives of fetchVersion, by platform.
func archiveSums() map[string]string {
	return map[string]string{
		"darwin-amd64":       "9418e2e93bf4a767dcd56b417c0b823ab237f935ad2460df1ce43ed65ea017c3",
		"darwin-arm64v8":     "746918d0d88eb766e51b43d93ac0d4dbcd6730ff0ac61399a4fcfd626d6ea287",
		"linux-amd64":        "8f438e206259d3ec5be6fb8ee6180f5d46234156659ed1238f6ab4806cfccf0f",
		"linux-amd64-alpine": "9bbbdc4a892b02911c3825ee6e29ffc2cc73df40acfcebf41a1ca3c5f804edb3",
		"linux-arm64v8":      "b931564ba20d4009d70c37ceb27109213f696cfd507c4ecb769c6d6762454a1c",
	}
}
