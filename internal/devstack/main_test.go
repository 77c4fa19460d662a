//go:build unix

package devstack_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// serveEnv names the folder a process started by a test serves until it is
// killed.
const serveEnv = "DEVSTACK_TEST_SERVE"

func TestMain(m *testing.M) {
	if code, ok := devstack.FetchChild(); ok {
		os.Exit(code)
	}
	if dir := os.Getenv(serveEnv); dir != "" {
		serve(dir)
	}
	os.Exit(m.Run())
}

// served is what such a process says, as one line of JSON.
type served struct {
	PID     int
	DataDir string
	Error   string
}

func serve(dir string) {
	var say served
	pg, err := devstack.StartPostgres(context.Background(), devstack.PostgresConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		say.Error = err.Error()
	} else {
		say.PID, say.DataDir = pg.PID(), pg.DataDir()
	}
	_ = json.NewEncoder(os.Stdout).Encode(say) //nolint:errchkjson // the test sees a pipe without an answer
	_, _ = io.Copy(io.Discard, os.Stdin)       // until the test closes the pipe or kills us
}

// serveElsewhere serves the folder in another process, as another account when
// uid is not 0, and returns what it said and how to kill it with signal 9.
func serveElsewhere(t *testing.T, dir string, uid uint32) (said served, kill func()) {
	t.Helper()
	cmd := osexec.Command(reachable(t))
	cmd.Env = append(os.Environ(), serveEnv+"="+dir, "HOME="+dir, "TMPDIR=/tmp")
	cmd.Dir = "/"
	cmd.Stderr = t.Output()
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(line, &said))
	return said, kill
}

// reachable is a copy of this test program that any account can run.
func reachable(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/exe")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs /proc")
	}
	require.NoError(t, err)
	path := filepath.Join(scratch(t), "devstack.test")
	require.NoError(t, os.WriteFile(path, raw, 0o755))
	return path
}

const nobody = 65534

// What works for root has to work for anybody: the same tests, once more.
func TestAllOfThisAsAnUnprivilegedUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	cmd := osexec.Command(reachable(t), "-test.v", "-test.run=^Test(Broker|Postgres)")
	home := scratch(t)
	require.NoError(t, os.Chown(home, nobody, nobody))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	cmd.Dir = home
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.True(t, bytes.Contains(out, []byte("--- PASS: TestPostgresKeepsRowsOverARestart")), "%s", out)
}
