package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
)

// member is one process of a group: it polls, and checks that whatever a poll
// brings belongs to the assignment it was told of and follows what came before.
type member struct {
	log    *eventlog.Log
	reader *eventlog.Reader
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	next  map[int32]int64 // by assigned partition
	since map[int32]int   // by partition, how often it was assigned
	wrong error
}

func (s *suite) join(t *testing.T, cfg eventlog.Config, id string) *member {
	t.Helper()
	cfg.ClientID = id
	m := &member{done: make(chan struct{}), next: make(map[int32]int64), since: make(map[int32]int)}
	var err error
	m.log = reopen(t, cfg)
	m.reader, err = m.log.NewGroupReader(eventlog.GroupConfig{
		Group: cfg.Prefix + ".group",
		From:  fromBeginning,
		Assigned: func(partitions []int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range partitions {
				m.next[p] = 0
				m.since[p]++
			}
		},
		Revoked: func(partitions []int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range partitions {
				delete(m.next, p)
			}
		},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	m.cancel = cancel
	go m.run(ctx)
	t.Cleanup(func() { m.leave() })
	return m
}

func (m *member) run(ctx context.Context) {
	defer close(m.done)
	for {
		fetched, err := m.reader.Poll(ctx, 7)
		if err != nil {
			return
		}
		m.mu.Lock()
		for _, f := range fetched {
			next, mine := m.next[f.Partition]
			switch {
			case f.Err != nil:
				m.wrong = errors.Join(m.wrong, f.Err)
			case !mine:
				m.wrong = errors.Join(m.wrong, errors.New("records of a partition that is not assigned"))
			}
			for _, r := range f.Records {
				if r.Offset != next {
					m.wrong = errors.Join(m.wrong, errors.New("records do not follow each other"))
				}
				next = r.Offset + 1
			}
			m.next[f.Partition] = next
		}
		m.mu.Unlock()
	}
}

// leave closes the member politely.
func (m *member) leave() {
	m.cancel()
	<-m.done
	m.reader.Close()
}

func (m *member) assigned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.next))
}

// caughtUp reports whether the member has read its partitions up to an offset.
func (m *member) caughtUp(to int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, next := range m.next {
		if next != to {
			return false
		}
	}
	return true
}

func (m *member) problems() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wrong
}

// A second member takes half of the partitions and gives them back on leaving;
// what does not move is read on, and what moves is read from where its new
// owner says, while records keep coming.
func (s *suite) groupSharesPartitions(t *testing.T) {
	cfg := s.config(t)
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 4})
	require.NoError(t, err)
	l := reopen(t, cfg)
	const rounds = 20
	grow := func() {
		for n := range rounds {
			for p := range int32(4) {
				l.Append(message(t, p, n), func(int64, error) {})
			}
		}
	}

	a := s.join(t, cfg, "a")
	require.Eventually(t, func() bool { return len(a.assigned()) == 4 }, patience, 10*time.Millisecond)
	grow()
	b := s.join(t, cfg, "b")
	require.Eventually(t, func() bool { return len(a.assigned()) == 2 && len(b.assigned()) == 2 }, patience, 10*time.Millisecond)
	grow()
	require.Eventually(t, func() bool { return a.caughtUp(1+2*rounds) && b.caughtUp(1+2*rounds) }, patience, 10*time.Millisecond)
	members, err := a.log.Members(t.Context(), cfg.Prefix+".group", "nobody")
	require.NoError(t, err)
	require.Equal(t, map[string]map[string]bool{cfg.Prefix + ".group": {"a": true, "b": true}, "nobody": {}}, members)

	b.reader.Retire()
	grow()
	require.Eventually(t, func() bool { return len(a.assigned()) == 4 && a.caughtUp(1+3*rounds) }, patience, 10*time.Millisecond)
	require.Empty(t, b.assigned(), "what is retired has none")
	members, err = a.log.Members(t.Context(), cfg.Prefix+".group")
	require.NoError(t, err)
	require.Len(t, members[cfg.Prefix+".group"], 2, "but is seen")
	b.leave()
	require.NoError(t, a.problems())
	require.NoError(t, b.problems())
	require.Empty(t, b.assigned(), "leaving revokes")
	members, err = a.log.Members(t.Context(), cfg.Prefix+".group", "nobody")
	require.NoError(t, err)
	require.Equal(t, map[string]map[string]bool{cfg.Prefix + ".group": {"a": true}, "nobody": {}}, members)
	moved := 0
	for p := range int32(4) {
		moved += a.since[p] - 1
	}
	require.Equal(t, 2, moved, "what stays is not assigned anew")
}

func (s *suite) groupNoticesLostHistory(t *testing.T) {
	l, cfg := s.open(t)
	r, err := l.NewGroupReader(eventlog.GroupConfig{
		Group: cfg.Prefix + ".group",
		From: func(_ context.Context, p int32) (eventlog.Start, error) {
			switch p {
			case 1:
				return eventlog.Start{Offset: 1, LeaderEpoch: 1000}, nil // an epoch that never was
			case 2:
				return eventlog.Start{}, fmt.Errorf("look for a place to begin: %w", eventlog.ErrDataLoss)
			}
			return eventlog.Start{LeaderEpoch: -1}, nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	gone, records := pollUntilOver(t, r)
	require.Len(t, gone, 2)
	require.ErrorIs(t, gone[1], eventlog.ErrDataLoss)
	require.ErrorIs(t, gone[2], eventlog.ErrDataLoss)
	for records < partitions-2 {
		fetched, err := r.Poll(within(t, patience), 10)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			records += len(f.Records)
		}
	}
}

func fromBeginning(context.Context, int32) (eventlog.Start, error) {
	return eventlog.Start{LeaderEpoch: -1}, nil
}
