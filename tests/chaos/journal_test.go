package chaos_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// The phases of a handler in the journal.
const (
	phaseStart       = "start"
	phaseSuccess     = "success"
	phaseFailure     = "failure"
	phaseInterrupted = "interrupted" // its context had ended
)

// A note is one side effect of a handler.
type note struct {
	Phase      string    `json:"phase"`
	Collection uuid.UUID `json:"collection"`
	Task       uuid.UUID `json:"task"`
	Run        int       `json:"run"`
	Attempt    int       `json:"attempt"`
	Fence      int64     `json:"fence"`
	PID        int       `json:"pid"`
	Worker     string    `json:"worker"`
	Text       string    `json:"text,omitempty"`

	seq int       // in the order in which the collector took them
	at  time.Time // by the collector's clock, which is also the broker's
}

func (n note) String() string {
	return fmt.Sprintf("%s journal %d: %s task %s run %d attempt %d fence %d pid %d %s",
		n.at.Format(clock), n.seq, n.Phase, n.Task, n.Run, n.Attempt, n.Fence, n.PID, n.Text)
}

// clock is how times are shown beside each other.
const clock = "15:04:05.000"

// A journal takes what handlers note, in the test's own process, which is
// outside of all faults.
type journal struct {
	socket string

	mu    sync.Mutex
	notes []note
}

func startJournal(t *testing.T) *journal {
	t.Helper()
	dir, err := os.MkdirTemp("", "keten-chaos-") //nolint:usetesting // a socket's path must be short
	require.NoError(t, err)
	j := &journal{socket: filepath.Join(dir, "journal")}
	l, err := net.Listen("unix", j.socket)
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { j.collect(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait() // the writers have ended before
		_ = os.RemoveAll(dir)
	})
	return j
}

// collect takes notes and acknowledges each: its writer goes on only then.
func (j *journal) collect(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for dec := json.NewDecoder(conn); ; {
		var n note
		if dec.Decode(&n) != nil {
			return
		}
		j.mu.Lock()
		n.seq, n.at = len(j.notes), time.Now()
		j.notes = append(j.notes, n)
		j.mu.Unlock()
		if _, err := conn.Write([]byte("\n")); err != nil {
			return
		}
	}
}

func (j *journal) all() []note {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]note(nil), j.notes...)
}

// count returns how many notes there are of a phase.
func (j *journal) count(phase string) int {
	n := 0
	for _, e := range j.all() {
		if e.Phase == phase {
			n++
		}
	}
	return n
}

// notes is an executor's end of the journal.
type notes struct {
	mu   sync.Mutex
	conn net.Conn
	acks *bufio.Reader
}

func dialJournal(socket string) (*notes, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &notes{conn: conn, acks: bufio.NewReader(conn)}, nil
}

// write returns when the note was taken. Without a journal a worker must not do
// anything: it ends.
func (n *notes) write(e note) {
	if err := n.send(e); err != nil {
		fmt.Fprintln(os.Stderr, "journal is gone:", err)
		os.Exit(3)
	}
}

func (n *notes) send(e note) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.conn.Write(b); err != nil {
		return err
	}
	_, err = n.acks.ReadByte()
	return err
}
