package handlers

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// supervisorName is the first word of a supervisor's command line, by which
	// it knows what it is.
	supervisorName = "keten-command-supervisor"
	// supervisorSocket is the file descriptor of a supervisor's socket.
	supervisorSocket = 3
	// killPause is between two looks at what is still alive, and orphanPatience
	// how long a supervisor without an executor tries: what it may not kill it
	// leaves behind in the end.
	killPause      = 10 * time.Millisecond
	orphanPatience = time.Minute
)

// Supervise must be the first call in the main function of a program whose
// executor runs commands, so that nothing they start outlives the program, not
// even after kill -9: the program starts itself again as the supervisor of its
// commands. In such a process Supervise does the supervisor's work and returns
// true with the exit code, with which main must end at once. In any other it
// returns false at once.
//
// A program that never calls it runs commands without a supervisor.
func Supervise() (exitCode int, ok bool) {
	if len(os.Args) == 0 || os.Args[0] != supervisorName {
		supervisors.enable()
		return 0, false
	}
	c, err := unixConn(os.NewFile(supervisorSocket, "the supervisor's socket"))
	if err != nil {
		return 1, true
	}
	defer c.Close()
	// Orphans below us become our children, so that they can be found and
	// waited for, whatever session they made for themselves.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, true
	}
	closeOnExec()
	outliveSignals()
	s := &supervisor{conn: c, orders: make(chan order)}
	go s.read()
	s.serve()
	return 0, true
}

// closeOnExec keeps commands from what the executor was started with.
func closeOnExec() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // without /proc there is no supervisor at all
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// outliveSignals keeps what stops a whole service from stopping the supervisor
// before its commands. They are caught, not ignored: commands would inherit
// that. What was ignored already stays so for them, too.
func outliveSignals() {
	caught := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2} {
		if !signal.Ignored(sig) {
			signal.Notify(caught, sig)
		}
	}
}

// A supervisor runs commands, one at a time, and leaves nothing of one behind.
type supervisor struct {
	conn   *net.UnixConn
	orders chan order // closed when the executor is gone
}

func (s *supervisor) read() {
	defer close(s.orders)
	for {
		var o order
		files, err := readFrame(s.conn, &o)
		if err != nil {
			return
		}
		o.files = files
		s.orders <- o
	}
}

func (s *supervisor) reply(r reply) { _ = writeFrame(s.conn, r) } // when the executor is gone, the orders end, too

func (s *supervisor) serve() {
	for o := range s.orders {
		if o.Run != nil {
			s.supervise(o)
		}
	}
}

// supervise runs one command until nothing of it is left.
func (s *supervisor) supervise(o order) {
	over := make(chan struct{})
	defer close(over)
	pid, err := startOnThread(o, over)
	for _, fd := range o.files {
		_ = syscall.Close(fd) // what the command does with its own is to be seen at the other end
	}
	if err != nil {
		errno, ok := err.(syscall.Errno) //nolint:errorlint // ForkExec returns nothing else
		if !ok {
			errno = syscall.EINVAL
		}
		s.reply(reply{Failed: errno})
		return
	}
	s.reply(reply{Started: pid})
	exits := make(chan exit)
	go reap(exits)
	main := pid
	for {
		select {
		case e, alive := <-exits:
			if !alive {
				s.reply(reply{Clear: true})
				return
			}
			if e.pid == main {
				main = 0 // the number may be another's from now on
				s.reply(reply{Ended: &e.status})
			}
		case next, connected := <-s.orders:
			switch {
			case !connected:
				s.killAll(main, exits, orphanPatience)
				return
			case next.Term && main != 0:
				_ = syscall.Kill(-main, syscall.SIGTERM) // it may have ended
			case next.Kill:
				s.killAll(main, exits, 0)
				return
			}
		}
	}
}

// startOnThread starts the command from a thread of its own, which lives until
// over is closed: the command's death signal hangs on it, and what was given up
// for one command is not given up for the next.
func startOnThread(o order, over <-chan struct{}) (pid int, err error) {
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		pid, err = start(o)
		close(started)
		<-over
	}()
	<-started
	return pid, err
}

func start(o order) (int, error) {
	p := o.Run
	files := make([]uintptr, len(o.files))
	for i, fd := range o.files {
		files[i] = uintptr(fd)
	}
	if p.Account != nil {
		// Who gives up an account must not get it back from a setuid program.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, err
		}
	}
	env := p.Env
	if env == nil {
		env = []string{} // nil would mean all of ours
	}
	return syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{Dir: p.Dir, Env: env, Files: files, Sys: processAttributes(p.Account)}) //nolint:gosec // argv comes from the catalog, never from a request
}

// An exit is the end of a child, or of an orphan that became ours.
type exit struct {
	pid    int
	status syscall.WaitStatus
}

// reap waits for children until there is none, and then closes exits.
func reap(exits chan<- exit) {
	defer close(exits)
	for {
		var e exit
		var err error
		e.pid, err = syscall.Wait4(-1, &e.status, 0, nil)
		switch err {
		case nil:
			exits <- e
		case syscall.EINTR:
		default: // ECHILD
			return
		}
	}
}

// killAll kills everything below us until nothing is left: a process may fork
// between two looks, so one is not enough. When the executor is gone it gives up
// after patience, which is 0 while the executor is there. main is the command if
// it has not ended.
func (s *supervisor) killAll(main int, exits <-chan exit, patience time.Duration) {
	var giveUp <-chan time.Time
	orders := s.orders
	if patience > 0 {
		giveUp, orders = time.After(patience), nil
	}
	tick := time.NewTicker(killPause)
	defer tick.Stop()
	killBelow(os.Getpid())
	for {
		select {
		case e, alive := <-exits:
			if !alive {
				s.reply(reply{Clear: true})
				return
			}
			if e.pid == main {
				s.reply(reply{Ended: &e.status})
			}
		case <-tick.C:
			killBelow(os.Getpid())
		case _, connected := <-orders: // there is nothing left to order
			if !connected {
				giveUp, orders = time.After(orphanPatience), nil
			}
		case <-giveUp:
			return
		}
	}
}

// killBelow kills all descendants of a process with their groups: the kernel
// kills a group at once, so that its members cannot outrun us by forking. All
// groups below us are in our session or in one that was made below us, so none
// has a stranger in it.
func killBelow(top int) {
	own := syscall.Getpgrp()
	for _, pid := range descendants(top) {
		if group, err := syscall.Getpgid(pid); err == nil && group != own {
			_ = syscall.Kill(-group, syscall.SIGKILL) // it may have ended
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants returns the processes below top, parents first.
func descendants(top int) []int {
	children := map[int][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil // cannot be: the pattern is well-formed
	}
	for _, file := range stats {
		if pid, parent, ok := parentOf(file); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	below := children[top]
	for i := 0; i < len(below); i++ {
		below = append(below, children[below[i]]...)
	}
	return below
}

// parentOf reads a process's stat: pid (name) state parent, where the name may
// have anything in it. Zombies are listed too: only the first thread may have
// ended.
func parentOf(file string) (pid, parent int, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, false // it has ended
	}
	text := string(b)
	behind := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[behind+1:])
	if behind < 0 || len(fields) < 2 {
		return 0, 0, false
	}
	pid, err = strconv.Atoi(filepath.Base(filepath.Dir(file)))
	if err != nil {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err == nil
}
