package handlers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"time"
)

const (
	// stopGrace is how long a command may go on after SIGTERM before SIGKILL:
	// less than an executor waits for interrupted handlers at its shutdown.
	stopGrace = 3 * time.Second
	// pipeGrace bounds how long the end of a command waits for a process that
	// it left behind with its output still open.
	pipeGrace = time.Second
)

// A program is a command as it is started: all is decided but its input.
type program struct {
	Path    string // absolute
	Args    []string
	Dir     string
	Env     []string
	Account *account // nil: our own
}

// account is whom a command runs as.
type account struct{ UID, GID uint32 }

// streams is what a command reads and where it writes.
type streams struct {
	stdin          []byte
	stdout, stderr io.Writer
}

// An ending is how a command ended.
type ending struct {
	code int    // -1: by a signal
	text string // such as "exit status 3"
	// stopped: it was asked to end before it did, because of the context.
	stopped bool
}

// A startError reports a command that could not be started, which an operator
// must see to.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// startError tells a folder that is missing from a program that is: the system
// has one word for both.
func (p program) startError(err error) error {
	if _, dirErr := os.Stat(p.Dir); dirErr != nil {
		err = dirErr
	}
	return &startError{err: err}
}

// run runs the program under a supervisor where there can be one. logger may be
// nil.
func (p program) run(ctx context.Context, s streams, logger *slog.Logger) (ending, error) {
	sup, err := supervisors.take()
	switch {
	case err != nil && logger != nil:
		logger.WarnContext(ctx, "no supervisor for a command: what it starts may outlive this process", slog.Any("error", err))
		fallthrough
	case err != nil, sup == nil:
		return p.runInGroup(ctx, s)
	}
	return sup.run(ctx, p, s, logger)
}

// runInGroup starts the command as a child of ours and waits for its end. The
// thread that starts it stays ours until then: Linux delivers the signal at a
// parent's death when the thread that was the parent ends, and the Go runtime
// may end an idle one.
func (p program) runInGroup(ctx context.Context, s streams) (ending, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, p.Path) //nolint:gosec // argv comes from the catalog, never from a request
	cmd.Args, cmd.Dir, cmd.Env = p.Args, p.Dir, p.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(s.stdin), s.stdout, s.stderr
	cmd.SysProcAttr = processAttributes(p.Account)
	// Cancel asks the whole group to end; when it does not, hardStop kills it.
	var hardStop *time.Timer
	stopped := false
	cmd.Cancel = func() error {
		stopped = true
		hardStop = time.AfterFunc(stopGrace, func() { killGroup(cmd.Process.Pid) })
		return endGroup(cmd.Process.Pid)
	}
	cmd.WaitDelay = stopGrace + pipeGrace
	if err := cmd.Start(); err != nil {
		return ending{}, p.startError(err)
	}
	err := cmd.Wait()
	if hardStop != nil {
		hardStop.Stop()
	}
	killGroup(cmd.Process.Pid)
	// What else can go wrong, such as somebody who holds the output open, does
	// not change how the command itself ended.
	if cmd.ProcessState == nil {
		return ending{}, err
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return ending{}, err
	}
	return ending{code: cmd.ProcessState.ExitCode(), text: cmd.ProcessState.String(), stopped: stopped}, nil
}
