package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// envMark is in the environment of all that a test starts, down to the last
// child.
const envMark = "KETEN_CHAOS_MARK"

// A fleet is some executors that serve one ledger.
type fleet struct {
	cfg     workerConfig
	mark    string
	members []*member
}

// A member is an executor that is started again and again, with a folder of its
// own that stays.
type member struct {
	cfg    workerConfig
	output string // file of what it logs, over all starts
	proc   *child.Process
	log    *os.File
}

// newFleet makes members that do not run yet. change may be nil.
func newFleet(t *testing.T, size int, w *world, change func(*workerConfig)) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "keten-chaos-") //nolint:usetesting // a socket's path must be short
	require.NoError(t, err)
	f := &fleet{mark: uuid.NewString()}
	f.cfg = workerConfig{
		Brokers: w.brokers, Prefix: w.prefix, Journal: w.journal.socket, Mark: f.mark, Slots: 16, GraceMS: 2000,
	}
	if change != nil {
		change(&f.cfg)
	}
	for i := range size {
		m := &member{cfg: f.cfg}
		m.cfg.Dir = filepath.Join(dir, strconv.Itoa(i))
		require.NoError(t, os.Mkdir(m.cfg.Dir, 0o700))
		m.output = filepath.Join(m.cfg.Dir, "log")
		f.members = append(f.members, m)
	}
	t.Cleanup(func() {
		for _, m := range f.members {
			if m.running() {
				require.NoError(t, m.kill())
			}
			if t.Failed() {
				t.Logf("end of the log of executor %s:\n%s", filepath.Base(m.cfg.Dir), m.lastWords())
			}
		}
		killMarked(f.mark)
		_ = os.RemoveAll(dir)
	})
	return f
}

func (f *fleet) startAll(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		require.NoError(t, m.start())
	}
	for _, m := range f.members {
		require.NoError(t, m.waitUp())
	}
}

// restart starts a member and waits until it is up.
func (m *member) restart(t *testing.T) {
	t.Helper()
	require.NoError(t, m.start())
	require.NoError(t, m.waitUp())
}

// waitUp waits until a process that was started listens to signals and answers,
// or has ended.
func (m *member) waitUp() error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !m.up(); <-tick.C {
		if time.Now().After(deadline) {
			return fmt.Errorf("an executor does not come up:\n%s", m.lastWords())
		}
	}
	return nil
}

func (m *member) up() bool {
	conn, err := net.Dial("unix", m.cfg.readySocket())
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || !m.running()
}

// stopAll ends all members well.
func (f *fleet) stopAll(t *testing.T) {
	t.Helper()
	var all errgroup.Group
	for _, m := range f.members {
		all.Go(m.stop)
	}
	require.NoError(t, all.Wait())
}

func (m *member) start() error {
	config, err := json.Marshal(m.cfg)
	if err != nil {
		return err
	}
	if m.log, err = os.OpenFile(m.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	m.proc, err = child.Start(context.Background(), child.Config{
		Path: os.Args[0], Output: m.log, OnDeath: syscall.SIGKILL,
		Env: append(os.Environ(), envWorker+"="+string(config), envMark+"="+m.cfg.Mark),
	})
	return err
}

func (m *member) running() bool {
	if m.proc == nil {
		return false
	}
	select {
	case <-m.proc.Done():
		return false
	default:
		return true
	}
}

// endWithin is how long an executor of these tests may take to end well: grace,
// the wait for handlers that were interrupted, and some for a busy machine.
const endWithin = 45 * time.Second

// stop ends the process well. The error shows where it hung, if it did.
func (m *member) stop() error {
	err := m.proc.Stop(context.Background(), child.Step{Signal: syscall.SIGTERM, Wait: endWithin},
		child.Step{Signal: syscall.SIGQUIT, Wait: patience}, child.Step{Signal: syscall.SIGKILL, Wait: patience})
	err = errors.Join(err, m.proc.Err(), m.log.Close())
	if err != nil {
		return fmt.Errorf("an executor did not end well: %w\n%s", err, m.dump())
	}
	return nil
}

// kill is kill -9.
func (m *member) kill() error {
	err := m.proc.Stop(context.Background(), child.Step{Signal: syscall.SIGKILL, Wait: patience})
	return errors.Join(err, m.log.Close())
}

// dump is where the goroutines of a process stood that was asked with SIGQUIT,
// or else its last words.
func (m *member) dump() string {
	lines := m.lines()
	if at := slices.Index(lines, "SIGQUIT: quit"); at >= 0 {
		return strings.Join(lines[max(0, at-20):], "\n")
	}
	return m.lastWords()
}

// ready asks the process whether it is ready; the error is its answer.
func (m *member) ready() error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", m.cfg.readySocket())
		},
	}}
	res, err := client.Get("http://executor/")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode == http.StatusOK {
		return err
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// lines returns what the process has logged so far, over all starts.
func (m *member) lines() []string {
	raw, err := os.ReadFile(m.output)
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
}

func (m *member) lastWords() string {
	lines := slices.DeleteFunc(m.lines(), func(l string) bool { return strings.Contains(l, `msg="attempt failed"`) })
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// requireNoRaces fails when a process met a data race or panicked.
func (f *fleet) requireNoRaces(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		lines := m.lines()
		at := slices.IndexFunc(lines, func(l string) bool {
			return strings.Contains(l, "DATA RACE") || strings.HasPrefix(l, "panic:") || strings.HasPrefix(l, "fatal error:")
		})
		if at >= 0 {
			require.Fail(t, "an executor broke", strings.Join(lines[at:min(at+60, len(lines))], "\n"))
		}
	}
}

// A procStat is some of /proc/<pid>/stat.
type procStat struct {
	state byte
	group int
	cpu   time.Duration // user and system
}

// ticksPerSecond is the unit of CPU times in /proc, the same on all Linux
// systems that Go runs on.
const ticksPerSecond = 100

func readStat(pid int) (s procStat, err error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return s, err
	}
	// the name is in parentheses and may hold anything
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return s, fmt.Errorf("stat of process %d: %q", pid, raw)
	}
	s.state = fields[0][0]
	s.group, err = strconv.Atoi(fields[2])
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	s.cpu = time.Duration(user+system) * time.Second / ticksPerSecond
	return s, errors.Join(err, userErr, systemErr)
}

// marked returns the processes that a test has started, directly or not, and
// what they are.
func marked(mark string) map[int]string {
	found := make(map[int]string)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(env, []byte(envMark+"="+mark)) {
			continue // ended meanwhile, or somebody else's
		}
		if stat, err := readStat(pid); err == nil && stat.state != 'Z' {
			cmd, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			found[pid] = strings.TrimSpace(string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// commands returns what handlers have started and is still there. Executors and
// their supervisors are this binary.
func (f *fleet) commands() map[int]string {
	found := marked(f.mark)
	maps.DeleteFunc(found, func(_ int, cmd string) bool { return strings.HasPrefix(cmd, os.Args[0]) })
	return found
}

func killMarked(mark string) {
	for pid := range marked(mark) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
