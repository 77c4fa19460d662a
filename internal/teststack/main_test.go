package main_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// teststack builds the command; its environment names no servers.
func teststack(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "teststack")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(bin, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "KETEN_TEST_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd
}

// A command sees both servers, gets the signals that were meant for it, its exit
// code is the program's, and afterwards nothing is left.
func TestCommandRunsBesideServersAndGetsSignals(t *testing.T) {
	t.Parallel()
	const script = `trap 'kill $!; exit 7' TERM; sleep 600 & echo "$KETEN_TEST_BROKERS"; echo "$KETEN_TEST_DATABASE_URL"; wait`
	cmd := teststack(t, "--", "sh", "-c", script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		_ = cmd.Wait()
		if strings.Contains(stderr.String(), "missing") && os.Getenv("CI") != "true" {
			t.Skip(stderr.String())
		}
		require.Fail(t, "it did not start", stderr.String())
	}
	broker := lines.Text()
	conn, err := net.Dial("tcp", broker)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "postgres://")

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit, stderr.String())
	require.Equal(t, 7, exit.ExitCode(), stderr.String())
	_, err = net.Dial("tcp", broker)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// Where nothing can be installed, a person is told what to install.
func TestMissingProgramsAreNamed(t *testing.T) {
	t.Parallel()
	cmd := teststack(t, "--", "true")
	cmd.Env = append(cmd.Env, "PATH="+t.TempDir(), "JAVA_HOME=", "HOME="+t.TempDir(), "XDG_CACHE_HOME=")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, string(out), "missing: Java 17 or newer, Maven, openssl; install with: ")
}

func TestNoCommandIsAMistake(t *testing.T) {
	t.Parallel()
	out, err := teststack(t, "--").CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 2, exit.ExitCode())
	require.Contains(t, string(out), "usage:")
}
