package main_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// The example of a remote worker as its guide tells it: the worker in Python, the
// catalog with its task type, and keten dev, which is stopped and started again
// while the worker has the task.
func TestRemoteWorkerExample(t *testing.T) {
	t.Parallel()
	const folder, secret = "../../examples/remote-worker", "a secret"
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("the example is in Python 3, which is not installed")
	}
	require.NoError(t, err)
	w := exec.Command(python, "-B", filepath.Join(folder, "worker.py"), "--port", "0")
	w.Env = append(os.Environ(), "WORKER_SECRET="+secret)
	w.Stderr = t.Output()
	out, err := w.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.Start())
	t.Cleanup(func() {
		_ = w.Process.Signal(syscall.SIGTERM) // it ends once all was reported
		require.NoError(t, w.Wait())
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	url := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))

	catalog, err := os.ReadFile(filepath.Join(folder, "catalog.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(catalog), "http://127.0.0.1:9000/")
	file := write(t, "catalog.yaml", strings.Replace(string(catalog), "http://127.0.0.1:9000", url, 1))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "worker-authorization"), []byte("Bearer "+secret+"\n"), 0o600))
	dir, remove, err := devstack.Scratch("keten-worker-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	addr := closedPort(t) // the same again: the worker reports there
	args := []string{"dev", "--data-dir", dir, "--http-addr", addr, "--kafka-addr", "127.0.0.1:0", "--catalog", file}
	p := spawn(t, nil, args...)
	p.await(`API +http://`)

	api := "http://" + addr
	stdout, stderr, code := keten(t, "start", "--api", api, "count-words", "text=one two three", "--wait")
	require.Zero(t, code, "%s%s", stdout, stderr)
	stdout, stderr, code = keten(t, "start", "--api", api, "count-words", "text= ", "--wait")
	require.Equal(t, 3, code, stderr)
	require.Contains(t, stdout, "there is no text to count")

	_, stderr, code = keten(t, "start", "--api", api, "count-words", "text=one two", "seconds=5")
	require.Zero(t, code, stderr)
	var list struct {
		Collections []resource `json:"collections"`
	}
	require.Eventually(t, func() bool {
		get(t, api+"/v1/collections?limit=1", &list)
		var c resource
		get(t, api+"/v1/collections/"+list.Collections[0].ID, &c)
		return c.Tasks[0].Status == "waiting"
	}, patience, 50*time.Millisecond)
	p.stop()
	p = spawn(t, nil, args...)
	p.await(`API +http://`)
	_, stderr, code = keten(t, "watch", "--api", api, "--timeout", patience.String(), list.Collections[0].ID)
	require.Zero(t, code, stderr)
	var c resource
	get(t, api+"/v1/collections/"+list.Collections[0].ID, &c)
	require.JSONEq(t, `{"words":2,"characters":7}`, string(c.Tasks[0].Result))
	require.Equal(t, 1, c.Tasks[0].Attempts)
	p.stop()
}
