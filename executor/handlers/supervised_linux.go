package handlers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// idleFor is how long a supervisor waits for its next command, and maxIdle
	// how many wait: each is a process with some MiB of memory.
	idleFor = 30 * time.Second
	maxIdle = 16
	// orderPatience bounds how long a supervisor takes to read an order, and
	// killPatience how long it may take to kill: processes that hang in the
	// kernel must not hold a slot.
	orderPatience = 10 * time.Second
	killPatience  = 5 * time.Second
)

var errSupervisorEnded = errors.New("the command's supervisor has ended")

// supervisors are those of this process. Commands do not share one while they
// run: whatever is below a supervisor belongs to its command. They are kept and
// used again because the start of one costs more than that of most commands.
//
//nolint:gochecknoglobals // they belong to the process, and Supervise is called before there is anything to hand them to
var supervisors supervisorPool

type supervisorPool struct {
	mu      sync.Mutex
	enabled bool // main calls Supervise, so that the program may start itself again
	idle    []*supervised
}

func (p *supervisorPool) enable() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enabled = true
}

// take returns a supervisor without a command, or nil when there are none in
// this program.
func (p *supervisorPool) take() (*supervised, error) {
	if s, ok := p.takeIdle(); ok {
		return s, nil
	}
	return startSupervisor()
}

func (p *supervisorPool) takeIdle() (_ *supervised, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.enabled {
		return nil, true
	}
	for len(p.idle) > 0 {
		last := len(p.idle) - 1
		s := p.idle[last]
		p.idle = p.idle[:last]
		s.expiry.Stop()
		select {
		case <-s.replies: // it has ended: without a command it says nothing
			s.close()
		default:
			return s, true
		}
	}
	return nil, false
}

// put gives back a supervisor that has nothing left of its command.
func (p *supervisorPool) put(s *supervised) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= maxIdle {
		s.close()
		return
	}
	s.expiry = time.AfterFunc(idleFor, func() { p.expire(s) })
	p.idle = append(p.idle, s)
}

func (p *supervisorPool) expire(s *supervised) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == s { // else it was taken at this very moment
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			s.close()
			return
		}
	}
}

// supervised is our end of a supervisor.
type supervised struct {
	process *os.Process
	conn    *net.UnixConn
	replies chan reply // closed when the supervisor has ended
	expiry  *time.Timer
}

// startSupervisor starts this program again as a supervisor. It makes a session
// of its own, so that no group below it can have a stranger in it, and gets no
// death signal: the end of our end of the socket tells it that we are gone, and
// then it has work to do.
func startSupervisor() (*supervised, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a supervisor's socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()
	conn, err := unixConn(os.NewFile(uintptr(pair[0]), "supervisor"))
	if err != nil {
		return nil, fmt.Errorf("use a supervisor's socket: %w", err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", // also when the file was replaced since
		Args: []string{supervisorName}, Env: []string{"GOMAXPROCS=1"}, Dir: "/",
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start a supervisor: %w", err)
	}
	s := &supervised{process: cmd.Process, conn: conn, replies: make(chan reply, 4)} // a command has three at most
	go s.read(cmd)
	return s, nil
}

// read ends with the supervisor, which ends with us.
func (s *supervised) read(cmd *exec.Cmd) {
	defer close(s.replies)
	for {
		var r reply
		if _, err := readFrame(s.conn, &r); err != nil {
			break
		}
		s.replies <- r
	}
	_ = cmd.Wait() // that it has ended is all there is to know
}

// close lets the supervisor end, and what is left below it: also when a command
// has stopped it.
func (s *supervised) close() {
	_ = s.conn.Close()
	_ = s.process.Signal(syscall.SIGCONT) // it may have ended already
}

func (s *supervised) order(o order, files ...int) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(orderPatience)) // it is open
	return writeFrame(s.conn, o, files...)
}

// run runs a command and waits until nothing of it is left.
func (s *supervised) run(ctx context.Context, p program, st streams, logger *slog.Logger) (ending, error) {
	pp, err := newPipes()
	if err != nil {
		supervisors.put(s)
		return ending{}, fmt.Errorf("make pipes: %w", err)
	}
	var files []int
	for _, f := range pp.theirs {
		files = append(files, int(f.Fd())) // Fd makes it block, as a command expects
	}
	err = s.order(order{Run: &p}, files...)
	pp.closeTheirs()
	pp.begin(st)
	defer pp.finish()
	if err != nil {
		s.close()
		return ending{}, fmt.Errorf("%w: %w", errSupervisorEnded, err)
	}
	c := &commandWatch{sup: s, pipes: pp, program: p, logger: logger}
	return c.wait(ctx)
}

// commandWatch waits for the end of one command.
type commandWatch struct {
	sup     *supervised
	pipes   *pipes
	program program
	logger  *slog.Logger

	pid     int
	stopped bool // asked to end before it did
	end     *ending
	drained <-chan struct{}  // set with end
	linger  <-chan time.Time // how long who is left may still write
	hard    <-chan time.Time
	giveUp  <-chan time.Time
}

func (c *commandWatch) wait(ctx context.Context) (ending, error) {
	stop := ctx.Done()
	for {
		select {
		case r, alive := <-c.sup.replies:
			if end, over, err := c.read(r, alive); over {
				return end, err
			}
		case <-stop:
			stop = nil
			c.stopped = c.end == nil
			c.hard = time.After(stopGrace)
			_ = c.sup.order(order{Term: true}) // when it fails, the replies end
		case <-c.drained:
			c.drained = nil
			c.kill()
		case <-c.linger:
			c.kill()
		case <-c.hard:
			c.kill()
		case <-c.giveUp:
			return c.abandon(ctx)
		}
	}
}

func (c *commandWatch) kill() {
	c.hard, c.linger = nil, nil
	if c.giveUp == nil {
		c.giveUp = time.After(killPatience)
		_ = c.sup.order(order{Kill: true}) // when it fails, the replies end
	}
}

// read takes a reply; over says that there is nothing more to wait for.
func (c *commandWatch) read(r reply, alive bool) (_ ending, over bool, err error) {
	switch {
	case !alive:
		c.sup.close()
		if c.pid != 0 {
			killGroup(c.pid) // the command itself has died with its supervisor
		}
		return ending{}, true, errSupervisorEnded
	case r.Failed != 0:
		supervisors.put(c.sup)
		return ending{}, true, c.program.startError(&os.PathError{Op: "fork/exec", Path: c.program.Path, Err: r.Failed})
	case r.Started != 0:
		c.pid = r.Started
	case r.Ended != nil:
		c.end = &ending{code: r.Ended.ExitStatus(), text: statusText(*r.Ended), stopped: c.stopped}
		c.drained, c.linger = c.pipes.drained(), time.After(pipeGrace)
	case r.Clear:
		supervisors.put(c.sup)
		c.awaitOutput()
		return *c.end, true, nil
	}
	return ending{}, false, nil
}

// awaitOutput reads what the dead have written, unless somebody who was handed
// their output holds it open.
func (c *commandWatch) awaitOutput() {
	timer := time.NewTimer(pipeGrace)
	defer timer.Stop()
	select {
	case <-c.pipes.drained():
	case <-timer.C:
	}
}

// abandon leaves to the supervisor what it has not been able to kill.
func (c *commandWatch) abandon(ctx context.Context) (ending, error) {
	c.sup.close()
	if c.logger != nil {
		c.logger.WarnContext(ctx, "a command left processes behind that cannot be killed", slog.Int("group", c.pid))
	}
	if c.end == nil {
		return ending{code: -1, text: "still running, and cannot be killed", stopped: c.stopped}, nil
	}
	return *c.end, nil
}

// statusText is what [os.ProcessState.String] would say.
func statusText(s syscall.WaitStatus) string {
	text := fmt.Sprintf("exit status %d", s.ExitStatus())
	if s.Signaled() {
		text = "signal: " + s.Signal().String()
	}
	if s.CoreDump() {
		text += " (core dumped)"
	}
	return text
}

func (p *supervisorPool) countIdle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}
