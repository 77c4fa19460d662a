//go:build unix

package child_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// start returns when the script has said its first line, with what it says next.
func start(t *testing.T, onDeath syscall.Signal, script string) (*child.Process, *bufio.Reader) {
	t.Helper()
	in, out := io.Pipe()
	p, err := child.Start(t.Context(), child.Config{
		Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ(), Output: out, OnDeath: onDeath,
	})
	require.NoError(t, err)
	said := bufio.NewReader(in)
	_, err = said.ReadString('\n')
	require.NoError(t, err)
	t.Cleanup(func() {
		go func() { _, _ = io.Copy(io.Discard, said) }()
		require.NoError(t, p.Stop(context.Background(), child.Step{Signal: os.Kill, Wait: 10 * time.Second}))
	})
	return p, said
}

// The kernel's promise hangs on the thread that forked. Go ends a thread when a
// goroutine that holds it returns; that must not be the one of a child.
func TestChildOutlivesThreads(t *testing.T) {
	t.Parallel()
	p, said := start(t, syscall.SIGUSR1, `trap "echo parent gone" USR1; trap "echo alive" USR2; echo ready; while :; do sleep 0.05; done`)
	for range 20 {
		var wait sync.WaitGroup
		hold := make(chan struct{})
		for range 50 {
			wait.Go(func() {
				runtime.LockOSThread() // and never let go: the thread ends with the goroutine
				<-hold
			})
		}
		close(hold)
		wait.Wait()
	}
	require.NoError(t, p.Signal(syscall.SIGUSR2))
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "alive\n", line)
}

func TestStopGoesOnToTheNextStep(t *testing.T) {
	t.Parallel()
	p, _ := start(t, syscall.SIGKILL, `trap "" TERM; echo ready; while :; do sleep 0.05; done`)
	const soon = 200 * time.Millisecond
	require.ErrorContains(t, p.Stop(t.Context(), child.Step{Signal: syscall.SIGTERM, Wait: soon}), "does not end")
	require.NoError(t, p.Stop(t.Context(), child.Step{Signal: syscall.SIGTERM, Wait: soon}, child.Step{Signal: syscall.SIGKILL, Wait: time.Minute}))
	<-p.Done()
	require.Error(t, p.Err())

	// Stopping what has ended is not an error.
	require.NoError(t, p.Stop(t.Context(), child.Step{Signal: syscall.SIGTERM, Wait: soon}))
}

// A program that hangs, and what it has started, ends with the context.
func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	out, err := child.Run(ctx, child.Config{Path: "/bin/sh", Args: []string{"-c", "sleep 600 & echo $!; wait"}, Env: os.Environ()})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return errors.Is(syscall.Kill(grandchild, 0), syscall.ESRCH) },
		10*time.Second, 10*time.Millisecond)
}

func TestRunKeepsTheLastWords(t *testing.T) {
	t.Parallel()
	out, err := child.Run(t.Context(), child.Config{
		Path: "/bin/sh", Env: os.Environ(),
		Args: []string{"-c", "head -c 1000000 /dev/zero; echo last words >&2; exit 3"},
	})
	require.ErrorContains(t, err, "exit status 3")
	require.LessOrEqual(t, len(out), 64<<10)
	require.True(t, bytes.HasSuffix(out, []byte("last words\n")))
}
