package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// The guide to handlers, command by command: a program of its own serves its
// queue beside keten dev; its task fails, and is retried with the same ids.
func TestGuideToHandlers(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-handlers-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	program := filepath.Join(dir, "hello-handler")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/hello-handler").CombinedOutput()
	require.NoError(t, err, string(out))

	dev := spawn(t, nil, "dev", "--data-dir", filepath.Join(dir, "data"), "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0",
		"--catalog", "../../examples/hello-handler/catalog.yaml")
	api := dev.await(`API +(http://\S+)/v1`)[1]
	broker := dev.await(`Kafka +(\S+)`)[1]
	hello := exec.CommandContext(t.Context(), program, "--queues", "greetings", "--allow-single-replica", "--kafka-brokers", broker, "--http-addr", "127.0.0.1:0",
		"--outbox-dir", t.TempDir())
	hello.Dir = dir
	hello.Stderr = t.Output()
	require.NoError(t, hello.Start())
	var ended error
	done := make(chan struct{})
	go func() { ended = hello.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = hello.Process.Kill() // it may have ended
		<-done
	})

	stdout, stderr, code := keten(t, "start", "--api", api, "-o", "json", "greet", "name=Ada")
	require.Zero(t, code, stderr)
	var c resource
	require.NoError(t, json.Unmarshal([]byte(stdout), &c))
	_, stderr, code = keten(t, "watch", "--api", api, "--timeout", patience.String(), c.ID)
	require.Equal(t, 3, code, stderr)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "greetings"), 0o700))
	_, stderr, code = keten(t, "retry", "--api", api, "--wait", c.ID)
	require.Zero(t, code, stderr)
	text, err := os.ReadFile(filepath.Join(dir, "greetings", c.Tasks[1].ID+".txt"))
	require.NoError(t, err)
	require.Equal(t, "Hello, Ada!\n", string(text))

	require.NoError(t, hello.Process.Signal(os.Interrupt))
	<-done
	require.NoError(t, ended)
	dev.stop()
}
