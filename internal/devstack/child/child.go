package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// pipeGrace bounds how long the end of a process waits for its output to be
// closed: a grandchild that inherited the pipe must not hold it open for good.
const pipeGrace = 2 * time.Second

// A User is the account a process runs as.
type User struct {
	UID, GID uint32
	Name     string // for messages only
}

// Config says what to run.
type Config struct {
	// Path is the program, Args what follows its name. Both are required to
	// come from the caller, never from the network.
	Path string
	Args []string
	// Env is the whole environment; nil means an empty one.
	Env []string
	// Dir is the working directory, which User must be able to enter.
	Dir string
	// Output gets what the process writes to stdout and stderr; nil discards.
	Output io.Writer
	// User is the account to run as; nil means the current one. Only root may
	// name another.
	User *User
	// OnDeath is the signal the process gets when this one is gone.
	OnDeath syscall.Signal
}

// A Process is a running child. Its methods are safe for concurrent use.
type Process struct {
	pid  int
	proc *os.Process
	done chan struct{}
	err  error // written before done is closed
}

// Start starts the process in a process group of its own, so that Ctrl-C in a
// terminal reaches only us and we decide in which order things stop. The end of
// ctx does not stop it: stopping a server takes more than a kill.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	cmd := command(ctx, cfg)
	cmd.SysProcAttr = ownGroup(cfg.User)
	dieWithUs(cmd.SysProcAttr, cfg.OnDeath)
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, explain(cfg, err)
	}
	if err := watchUs(ctx, p, cfg.OnDeath); err != nil {
		_ = p.Signal(os.Kill)
		<-p.done
		return nil, err
	}
	return p, nil
}

// run owns the process from fork to reaping. The kernel sends the death signal
// when the forking *thread* ends, and Go ends threads when it likes, so this
// goroutine keeps its thread for as long as the process lives.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		p.pid, p.proc = cmd.Process.Pid, cmd.Process
	}
	started <- err
	if err != nil {
		return
	}
	p.err = cmd.Wait()
	if errors.Is(p.err, exec.ErrWaitDelay) {
		p.err = nil
	}
	close(p.done)
}

// PID returns the process id.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended: nil for exit code 0. Valid after Done.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends sig to the process alone. A process that has already ended is
// not an error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// A Step is one try to end a process: the signal, and how long to wait for it
// to work.
type Step struct {
	Signal os.Signal
	Wait   time.Duration
}

// Stop takes the steps one after the other until the process is gone and then
// returns nil. The end of ctx cuts short the waiting of every step but the
// last. An error means that the process is still there.
func (p *Process) Stop(ctx context.Context, steps ...Step) error {
	for i, s := range steps {
		if err := p.Signal(s.Signal); err != nil {
			return err
		}
		cut := ctx.Done()
		if i == len(steps)-1 {
			cut = nil
		}
		timer := time.NewTimer(s.Wait)
		select {
		case <-p.done:
		case <-cut:
		case <-timer.C:
		}
		timer.Stop()
		select {
		case <-p.done:
			return nil
		default:
		}
	}
	return fmt.Errorf("process %d does not end", p.pid)
}

// Run runs a short-lived program to its end and returns its output, also with
// an error. The end of ctx kills it and everything in its process group.
func Run(ctx context.Context, cfg Config) ([]byte, error) {
	cmd := command(ctx, cfg)
	cmd.SysProcAttr = ownGroup(cfg.User)
	cmd.Stdout, cmd.Stderr = nil, nil
	return output(ctx, cfg, cmd)
}

func output(ctx context.Context, cfg Config, cmd *exec.Cmd) ([]byte, error) {
	var buf tail
	cmd.Stdout, cmd.Stderr = &buf, &buf
	if cfg.Output != nil {
		both := io.MultiWriter(&buf, cfg.Output)
		cmd.Stdout, cmd.Stderr = both, both
	}
	if err := cmd.Start(); err != nil {
		return nil, explain(cfg, err)
	}
	stop := context.AfterFunc(ctx, func() { killGroup(cmd.Process) })
	defer stop()
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return buf.Bytes(), err
}

// command leaves the killing to us: CommandContext alone would reach the
// process but not its children.
func command(ctx context.Context, cfg Config) *exec.Cmd {
	//nolint:gosec // running programs is what this package is for; Config says where Path must come from
	cmd := exec.CommandContext(context.WithoutCancel(ctx), cfg.Path, cfg.Args...)
	cmd.Env = cfg.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Dir = cfg.Dir
	cmd.Stdout, cmd.Stderr = cfg.Output, cfg.Output
	cmd.WaitDelay = pipeGrace
	return cmd
}

// explain names the account, because "permission denied" or "operation not
// permitted" from a fork is otherwise a riddle.
func explain(cfg Config, err error) error {
	if cfg.User != nil {
		return fmt.Errorf("run %s as user %s: %w", cfg.Path, cfg.User.Name, err)
	}
	return fmt.Errorf("run %s: %w", cfg.Path, err)
}
