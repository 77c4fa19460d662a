package readmodel_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
)

const patience = 30 * time.Second // on a machine that does much else

// run lets a store listen until the test ends.
func run(t *testing.T, s *readmodel.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func TestWaitFor(t *testing.T) {
	t.Parallel()
	for name, listening := range map[string]bool{"listening": true, "polling": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			if listening {
				run(t, f.Store)
			}
			s := newStory(t, f, 2)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for range 100 { // which is not a matter of polling a hundred times
				require.NoError(t, f.WaitFor(ctx, readmodel.Position{Offset: s.fold.Position()}), "reached before")
			}

			next := readmodel.Position{Offset: s.fold.Position() + 3}
			waiting := make(chan error, 100)
			for range cap(waiting) {
				go func() { waiting <- f.WaitFor(ctx, next) }()
			}
			for i := range 3 {
				require.Empty(t, waiting, "returned %d records early", 3-i)
				s.create(newID(byte(i)), "acme", "a")
			}
			for range cap(waiting) {
				require.NoError(t, <-waiting)
			}

			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			err := f.WaitFor(short, readmodel.Position{Offset: next.Offset + 1})
			require.ErrorIs(t, err, readmodel.ErrBehind)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			err = f.WaitFor(short, readmodel.Position{Partition: 1, Offset: 1})
			require.ErrorIs(t, err, readmodel.ErrBehind, "another partition's position is not this one's")
		})
	}
}

func TestWaitChange(t *testing.T) {
	t.Parallel()
	f := setup(t)
	run(t, f.Store)
	s := newStory(t, f, 1)
	at, err := f.WaitChange(t.Context(), readmodel.Position{Offset: 0})
	require.NoError(t, err)
	require.Positive(t, at.Offset)
	at.Offset = s.fold.Position()
	changed := make(chan readmodel.Position)
	go func() {
		next, err := f.WaitChange(t.Context(), at)
		if err != nil {
			t.Errorf("wait: %v", err)
		}
		changed <- next
	}()
	s.create(newID(1), "acme", "a")
	require.Equal(t, readmodel.Position{Offset: s.fold.Position()}, <-changed)
}

// A listener whose connection is cut comes back; meanwhile waiting works.
func TestRunListensAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	run(t, f.Store)
	s := newStory(t, f, 1)
	admin, err := pgx.Connect(t.Context(), f.url)
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }()
	const listeners = `select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen %'`
	const kill = `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query ilike 'listen %'`
	listening := func() bool {
		var n int
		require.NoError(t, admin.QueryRow(t.Context(), listeners).Scan(&n))
		return n == 1
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 3 {
		require.Eventually(t, listening, patience, 5*time.Millisecond)
		_, err = admin.Exec(t.Context(), kill)
		require.NoError(t, err)
		s.create(newID(byte(i)), "acme", "a")
		require.NoError(t, f.WaitFor(ctx, readmodel.Position{Offset: s.fold.Position()}))
	}
	require.Eventually(t, listening, patience, 5*time.Millisecond)
	s.create(newID(9), "acme", "a")
	require.NoError(t, f.WaitFor(ctx, readmodel.Position{Offset: s.fold.Position()}))
}

// More positions than fit into one notification are all announced.
func TestWaitForWithManyPartitions(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const partitions = 1500
	stored, err := f.Checkpoints(t.Context(), f.ledgerID, partitions)
	require.NoError(t, err)
	run(t, f.Store)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	waiting := make(chan error, partitions)
	for p := range int32(partitions) {
		go func() { waiting <- f.WaitFor(ctx, readmodel.Position{Partition: p, Offset: 1 << 40}) }()
	}
	var changes []*readmodel.Changes
	for _, at := range stored {
		c := readmodel.NewChanges(at)
		c.To.Next = 1 << 40
		changes = append(changes, c)
	}
	require.NoError(t, f.Write(t.Context(), changes))
	for range partitions {
		require.NoError(t, <-waiting)
	}
}
