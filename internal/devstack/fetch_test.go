//go:build unix

package devstack_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// mirror serves the jar of this platform like a Maven repository. It gets it
// from Maven Central once and keeps it for later test runs.
func mirror(t *testing.T, change func([]byte) []byte) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		jar, err := upstream(strings.TrimSuffix(r.URL.Path, ".sha256"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		jar = change(jar)
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			_, _ = fmt.Fprintf(w, "%x", sha256.Sum256(jar))
			return
		}
		_, _ = w.Write(jar)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func upstream(path string) ([]byte, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	kept := filepath.Join(cache, "keten", "test-"+filepath.Base(path))
	if jar, err := os.ReadFile(kept); err == nil {
		return jar, nil
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(kept), "fetch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// /group/in/parts/artifact/version/file.jar
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 4 {
		return nil, fmt.Errorf("no artifact at %s", path)
	}
	n := len(parts) - 3
	artifact := strings.Join(parts[:n], ".") + ":" + parts[n] + ":" + parts[n+1]
	out, err := osexec.Command("mvn", "-B", "-q", "dependency:copy", "-Dartifact="+artifact, "-DoutputDirectory="+dir).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w: %s", artifact, err, out)
	}
	if err := os.Rename(filepath.Join(dir, filepath.Base(path)), kept); err != nil {
		return nil, err
	}
	return os.ReadFile(kept)
}

// needUpstream skips where Maven is missing.
func needUpstream(t *testing.T) {
	t.Helper()
	if _, err := osexec.LookPath("mvn"); err != nil {
		t.Skipf("the fetcher is tested with what Maven brings: %v", err)
	}
}

// A machine without PostgreSQL gets one, once, and it serves.
func TestFetchedPostgresServes(t *testing.T) {
	t.Parallel()
	needUpstream(t)
	cfg := devstack.PostgresConfig{
		Dir: filepath.Join(scratch(t), "pg"), Logger: testLogger(t), CacheDir: filepath.Join(scratch(t), "cache"),
		RepositoryURL: mirror(t, func(jar []byte) []byte { return jar }),
	}
	bin, err := devstack.Fetch(t.Context(), cfg)
	require.NoError(t, err)
	left, err := filepath.Glob(filepath.Join(cfg.CacheDir, "fetch-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	// The second time nothing is asked of the repository.
	cfg.RepositoryURL = "http://127.0.0.1:1"
	again, err := devstack.Fetch(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, bin, again)

	cfg.BinDir = bin
	pg, err := devstack.StartPostgres(t.Context(), cfg)
	require.NoError(t, err)
	exec(t, pg, "create table kept (n int); insert into kept values (1)")
	require.Equal(t, 1, count(t, pg))
	require.NoError(t, pg.Stop(t.Context()))

	// The machine's own PostgreSQL is older and must not touch this data.
	cfg.BinDir = ""
	pg, err = devstack.StartPostgres(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, 1, count(t, pg))
	require.NoError(t, pg.Stop(t.Context()))
}

// A mirror may serve what it likes with a checksum that fits.
func TestFetchRefusesAnotherArchive(t *testing.T) {
	t.Parallel()
	needUpstream(t)
	cfg := devstack.PostgresConfig{
		Logger: testLogger(t), CacheDir: filepath.Join(scratch(t), "cache"), RepositoryURL: mirror(t, padArchive),
	}
	_, err := devstack.Fetch(t.Context(), cfg)
	require.ErrorContains(t, err, "not the one expected")
	entries, err := filepath.Glob(filepath.Join(cfg.CacheDir, "*", "bin"))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// padArchive adds four zero bytes to the archive in the jar, which unpacks as
// before.
func padArchive(jar []byte) []byte {
	in, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return nil
	}
	var buf bytes.Buffer
	out := zip.NewWriter(&buf)
	for _, f := range in.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil
		}
		w, err := out.Create(f.Name)
		if err != nil {
			return nil
		}
		_, _ = io.Copy(w, r)
		_, _ = w.Write(make([]byte, 4))
	}
	_ = out.Close()
	return buf.Bytes()
}

// Without a network the message says what to do instead, and nothing is left.
func TestFetchFailsWithAdvice(t *testing.T) {
	t.Parallel()
	cfg := devstack.PostgresConfig{
		Logger: testLogger(t), CacheDir: filepath.Join(scratch(t), "cache"), RepositoryURL: "http://127.0.0.1:1",
	}
	_, err := devstack.Fetch(t.Context(), cfg)
	require.ErrorContains(t, err, "unable to connect to http://127.0.0.1:1")
	require.ErrorContains(t, err, "install PostgreSQL")
	require.ErrorContains(t, err, "KETEN_DATABASE_URL")
	left, err := filepath.Glob(filepath.Join(cfg.CacheDir, "fetch-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
