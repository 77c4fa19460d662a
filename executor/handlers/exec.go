package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// exitRetryable is EX_TEMPFAIL of sysexits.h: the command asks to be tried
	// again.
	exitRetryable = 75
	// stopGrace is how long a command may go on after SIGTERM before SIGKILL:
	// less than an executor waits for interrupted handlers at its shutdown.
	stopGrace = 3 * time.Second
	// pipeGrace bounds how long the end of a command waits for a process that
	// it left behind with its output still open.
	pipeGrace = time.Second
	// keptErrorBytes is how much of the end of standard error is kept.
	keptErrorBytes = ledger.MaxDetailBytes
)

// ExecConfig says how a type's tasks are run as a command.
type ExecConfig struct {
	// Command is the argv: a program, found in Dir when it has a slash and else
	// in PATH, and its arguments. No shell looks at it. Required.
	Command []string
	// Dir is the working directory, absolute. Required.
	Dir string
	// Env is the whole environment, KEY=VALUE each.
	Env []string
	// User is the account to run as; empty means the executor's own. Only root
	// may name another.
	User string
	// OutputLimit bounds standard output, in bytes: 1 to, and by default,
	// [ledger.MaxPayloadBytes].
	OutputLimit int64
	// Audience of its failures; empty means operator.
	Audience ledger.Audience
}

// input is what a command reads on standard input.
type input struct {
	Args         json.RawMessage `json:"args"`
	Previous     json.RawMessage `json:"previous"`
	CollectionID uuid.UUID       `json:"collection_id"`
	TaskID       uuid.UUID       `json:"task_id"`
	Run          int             `json:"run"`
	Attempt      int             `json:"attempt"`
	Fence        int64           `json:"fence"`
	Deadline     time.Time       `json:"deadline"`
}

type command struct {
	cfg     ExecConfig
	account *account // nil: our own
}

// account is whom a command runs as.
type account struct{ uid, gid uint32 }

// Exec returns a handler that runs a command for each attempt. The command reads
// one JSON document on standard input: args, previous, collection_id, task_id,
// run, attempt, fence and deadline. It writes its result as JSON to standard
// output, nothing for null, and its log to standard error. Exit code 0 is a
// success, 75 a failure that may be tried again, any other one for good; the
// last line of standard error is the failure's message.
//
// The command has a process group of its own. At the end of the handler's
// context the group gets SIGTERM, and SIGKILL 3 s later; what the command left
// running in its group is killed when it has ended. On Linux the command, though
// not what it started, also dies with this process after kill -9.
//
// The error says what is wrong with the configuration.
func Exec(cfg ExecConfig) (executor.RawHandler, error) {
	switch {
	case len(cfg.Command) == 0 || cfg.Command[0] == "":
		return nil, errors.New("command is required")
	case !filepath.IsAbs(cfg.Dir):
		return nil, fmt.Errorf("dir %q is not absolute", cfg.Dir)
	case cfg.OutputLimit < 0 || cfg.OutputLimit > ledger.MaxPayloadBytes:
		return nil, fmt.Errorf("output limit is %d bytes, want 1 to %d", cfg.OutputLimit, ledger.MaxPayloadBytes)
	}
	if cfg.OutputLimit == 0 {
		cfg.OutputLimit = ledger.MaxPayloadBytes
	}
	c := &command{cfg: cfg}
	if cfg.User != "" {
		var err error
		if c.account, err = lookUp(cfg.User); err != nil {
			return nil, err
		}
	}
	return c.handle, nil
}

func lookUp(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q has uid %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q has gid %q: %w", name, u.Gid, err)
	}
	return &account{uid: uint32(uid), gid: uint32(gid)}, nil
}

func (c *command) handle(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
	stdin, err := json.Marshal(input{
		Args: orNull(t.Args), Previous: orNull(t.Previous), CollectionID: t.Collection, TaskID: t.TaskID,
		Run: t.Run, Attempt: t.Attempt, Fence: t.Fence, Deadline: t.Deadline.UTC(),
	})
	if err != nil {
		return nil, executor.Permanent(fmt.Errorf("encode the task: %w", err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout := &capped{limit: int(c.cfg.OutputLimit), full: func() { cancel(errTooMuch) }}
	stderr := &tail{}
	err = c.run(ctx, stdin, stdout, stderr)
	switch {
	case stdout.over:
		return nil, c.fail(ledger.CodeInvalidResult, fmt.Sprintf("standard output is longer than %d bytes", c.cfg.OutputLimit), stderr)
	case err != nil:
		return nil, c.failure(ctx, err, stderr)
	}
	return c.result(stdout.buf, stderr)
}

var errTooMuch = errors.New("too much output")

// run starts the command and waits for its end. The thread that starts it stays
// ours until then: Linux delivers the signal at a parent's death when the thread
// that was the parent ends, and the Go runtime may end an idle one.
func (c *command) run(ctx context.Context, stdin []byte, stdout *capped, stderr *tail) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, c.program(), c.cfg.Command[1:]...) //nolint:gosec // argv comes from the catalog, never from a request
	cmd.Dir, cmd.Env = c.cfg.Dir, c.cfg.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would mean all of ours
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), stdout, stderr
	cmd.SysProcAttr = processAttributes(c.account)
	// Cancel asks the whole group to end; when it does not, hardStop kills it.
	var hardStop *time.Timer
	cmd.Cancel = func() error {
		hardStop = time.AfterFunc(stopGrace, func() { killGroup(cmd.Process.Pid) })
		return endGroup(cmd.Process.Pid)
	}
	cmd.WaitDelay = stopGrace + pipeGrace
	if err := cmd.Start(); err != nil {
		return &startError{err: err}
	}
	err := cmd.Wait()
	if hardStop != nil {
		hardStop.Stop()
	}
	killGroup(cmd.Process.Pid)
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended well and left somebody behind, who has just been killed
	}
	return err
}

// program is the path of the command: exec looks for one with a slash in our
// directory, not in the command's.
func (c *command) program() string {
	name := c.cfg.Command[0]
	if strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		return filepath.Join(c.cfg.Dir, name)
	}
	return name
}

// A startError reports a command that could not be started, which an operator
// must see to.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// failure says what an unsuccessful end of the command means.
func (c *command) failure(ctx context.Context, err error, stderr *tail) error {
	if start, ok := errors.AsType[*startError](err); ok {
		return &executor.Error{Code: ledger.CodeConfig, Message: "the command cannot be started: " + start.Error(), Audience: ledger.AudienceOperator, Err: err}
	}
	if ctx.Err() != nil {
		// The end of the context is the cause; the log may tell how far it came.
		return &executor.Error{Code: ledger.CodeExit, Message: context.Cause(ctx).Error(), Detail: stderr.String(), Audience: c.cfg.Audience, Err: context.Cause(ctx)}
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return &executor.Error{Code: ledger.CodeExit, Message: err.Error(), Detail: stderr.String(), Audience: c.cfg.Audience, Retryable: true, Err: err}
	}
	message := stderr.lastLine()
	if message == "" {
		message = "the command ended with " + exit.String()
	}
	return &executor.Error{
		Code: ledger.CodeExit, Message: message, Detail: stderr.String() + "\n(" + exit.String() + ")", Audience: c.cfg.Audience,
		Retryable: exit.ExitCode() == exitRetryable,
	}
}

func (c *command) fail(code, message string, stderr *tail) error {
	return &executor.Error{Code: code, Message: message, Detail: stderr.String(), Audience: c.cfg.Audience}
}

// result reads standard output.
func (c *command) result(out []byte, stderr *tail) (json.RawMessage, error) {
	out = bytes.TrimSpace(out)
	if len(out) == 0 {
		return nil, nil
	}
	if err := ledger.CheckPayload(out); err != nil {
		return nil, c.fail(ledger.CodeInvalidResult, "standard output is not a result: "+err.Error(), stderr)
	}
	return out, nil
}

func orNull(p json.RawMessage) json.RawMessage {
	if len(p) == 0 {
		return json.RawMessage("null")
	}
	return p
}

// capped keeps what is written up to a limit and calls full beyond it. The
// buffer is not embedded: io.Copy would find its ReadFrom and go past us.
type capped struct {
	buf   []byte
	limit int
	over  bool
	full  func()
}

func (w *capped) Write(p []byte) (int, error) {
	room := w.limit - len(w.buf)
	if len(p) > room && !w.over {
		w.over = true
		w.full()
	}
	w.buf = append(w.buf, p[:min(len(p), room)]...)
	return len(p), nil // what is over is thrown away: the command must not hang on us
}

// tail keeps the end of what is written.
type tail struct {
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*keptErrorBytes { // seldom, so that it does not copy at every write
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-keptErrorBytes:]...)
	}
	return len(p), nil
}

// String returns the last of it, at most keptErrorBytes less what is added to it.
func (t *tail) String() string {
	const room = keptErrorBytes - 256
	b := bytes.TrimSpace(t.buf)
	return strings.ToValidUTF8(string(b[max(len(b)-room, 0):]), "?")
}

// lastLine returns the last line that is not empty.
func (t *tail) lastLine() string {
	lines := strings.Split(t.String(), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
