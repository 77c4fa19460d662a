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
	"strconv"
	"strings"
	"syscall"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// exitRetryable is EX_TEMPFAIL of sysexits.h: the command asks to be tried
	// again.
	exitRetryable = 75
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

type command struct {
	cfg     ExecConfig
	program program
	// missing: the program was not found at the start, and is looked for again
	// at each attempt.
	missing bool
}

// Exec returns a handler that runs a command for each attempt. The command reads
// one JSON document on standard input: args, previous, collection_id, task_id,
// run, attempt, fence and deadline. It writes its result as JSON to standard
// output, nothing for null, and its log to standard error, where a line like
// "::progress 40 signing" reports progress instead. Exit code 0 is a success, 75
// a failure that may be tried again, any other one for good; the last line of
// the log is the failure's message.
//
// The command has a process group of its own. At the end of the handler's
// context the group gets SIGTERM, and SIGKILL 3 s later; what the command left
// running is killed when it has ended. On Linux, in a program that calls
// [Supervise], that is everything it started, in whatever session, also when
// this process is killed; the command has no terminal and inherits no open file
// but its three streams; and one with a User cannot gain privileges anymore.
// Elsewhere it is the command's group, which outlives this process, except that
// on Linux the command alone dies with it.
//
// The error says what is wrong with the configuration. A command that does not
// exist is none: its attempts fail.
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
	c := &command{cfg: cfg, program: program{Args: cfg.Command, Dir: cfg.Dir, Env: cfg.Env}}
	if c.program.Env == nil {
		c.program.Env = []string{} // nil would mean all of ours
	}
	if cfg.User != "" {
		var err error
		if c.program.Account, err = lookUp(cfg.User); err != nil {
			return nil, err
		}
	}
	var err error
	c.program.Path, err = find(cfg.Command[0], cfg.Dir)
	c.missing = err != nil
	return c.handle, nil
}

// find returns the absolute path of a program: one with a slash is relative to
// dir, and others are in PATH. It is looked for once, so that what PATH leads to
// later does not matter.
func find(name, dir string) (string, error) {
	switch {
	case filepath.IsAbs(name):
		return name, nil
	case strings.ContainsRune(name, filepath.Separator):
		return filepath.Join(dir, name), nil
	}
	return exec.LookPath(name)
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
	return &account{UID: uint32(uid), GID: uint32(gid)}, nil
}

func (c *command) handle(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
	stdin, err := json.Marshal(newDocument(t))
	if err != nil {
		return nil, executor.Permanent(fmt.Errorf("encode the task: %w", err))
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause // nothing was done
	}
	p := c.program
	if c.missing {
		if p.Path, err = find(p.Args[0], p.Dir); err != nil {
			return nil, notStarted(err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout := &capped{limit: int(c.cfg.OutputLimit), full: func() { cancel(errTooMuch) }}
	stderr := &commandLog{out: t.Output}
	end, err := p.run(ctx, streams{stdin: stdin, stdout: stdout, stderr: stderr}, t.Logger)
	stderr.flush()
	var start *startError
	switch {
	case stdout.over:
		return nil, c.fail(ledger.CodeInvalidResult, fmt.Sprintf("standard output is longer than %d bytes", c.cfg.OutputLimit), stderr)
	case errors.As(err, &start):
		return nil, notStarted(start.err)
	case err != nil:
		return nil, &executor.Error{Code: ledger.CodeExit, Message: err.Error(), Detail: stderr.String(), Audience: c.cfg.Audience, Retryable: true, Err: err}
	case end.stopped:
		// The end of the context is the cause; the log may tell how far it came.
		cause := context.Cause(ctx)
		return nil, &executor.Error{Code: ledger.CodeExit, Message: cause.Error(), Detail: stderr.String(), Audience: c.cfg.Audience, Err: cause}
	case end.code != 0:
		return nil, c.failure(end, stderr)
	}
	return c.result(stdout.buf, stderr)
}

var errTooMuch = errors.New("too much output")

// notStarted is for operators, whoever the type's failures are for: the command
// has had no say. Being short of something passes.
func notStarted(err error) error {
	passing := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EMFILE) ||
		errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ETXTBSY)
	return &executor.Error{
		Code: ledger.CodeConfig, Message: "the command cannot be started: " + err.Error(), Audience: ledger.AudienceOperator,
		Retryable: passing, Err: err,
	}
}

// failure says what an unsuccessful end of the command means.
func (c *command) failure(end ending, stderr *commandLog) error {
	message := stderr.lastLine()
	if message == "" {
		message = "the command ended with " + end.text
	}
	return &executor.Error{
		Code: ledger.CodeExit, Message: message, Detail: stderr.String() + "\n(" + end.text + ")", Audience: c.cfg.Audience,
		Retryable: end.code == exitRetryable,
	}
}

func (c *command) fail(code, message string, stderr *commandLog) error {
	return &executor.Error{Code: code, Message: message, Detail: stderr.String(), Audience: c.cfg.Audience}
}

// result reads standard output.
func (c *command) result(out []byte, stderr *commandLog) (json.RawMessage, error) {
	out = bytes.TrimSpace(out)
	if len(out) == 0 {
		return nil, nil
	}
	if err := ledger.CheckPayload(out); err != nil {
		return nil, c.fail(ledger.CodeInvalidResult, "standard output is not a result: "+err.Error(), stderr)
	}
	return out, nil
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
