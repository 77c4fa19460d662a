package httpapi_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// What the API logs about progress.
const (
	progressAway = "progress of tasks cannot be read"
	progressBack = "progress of tasks is read again"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// count says how often a text was logged.
func (s *syncBuffer) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), text)
}

func logTo(b *syncBuffer) func(*settings) {
	return func(s *settings) { s.logger = slog.New(slog.NewTextHandler(b, nil)) }
}

func (e *env) sql(t *testing.T) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), e.database)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.WithoutCancel(t.Context()))) })
	return db
}

// Progress is an extra: when its tables cannot be read, state is shown without
// it, and the log says so once.
func TestStateIsShownWithoutTheTablesOfOutput(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	e := setup(t, logTo(&log))
	c := e.create(t, chain(2))
	e.hand.start(t, c.ID)
	_, err := e.sql(t).Exec(t.Context(), "drop schema keten_output cascade")
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, "running", string(e.get(t, c.ID).Tasks[0].Status))
		require.Nil(t, e.getTask(t, c.ID, c.Tasks[0].ID).AllAttempts[0].Progress)
	}
	require.Equal(t, 1, log.count(progressAway))
	require.NoError(t, e.openStore(t).Migrate(t.Context())) // as a process does that starts
	e.get(t, c.ID)
	e.get(t, c.ID)
	require.Equal(t, 1, log.count(progressBack))
}

// Nor do tables that do not answer hold it up; a client that does not wait for
// them is no trouble of theirs.
func TestStateIsShownWhileTheTablesOfOutputAreLocked(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	e := setup(t, logTo(&log))
	c := e.create(t, chain(2))
	e.hand.start(t, c.ID)
	tx, err := e.sql(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table keten_output.attempts")
	require.NoError(t, err)
	waiting := func() (n int) {
		err := tx.QueryRow(t.Context(), "select count(*) from pg_locks where relation = 'keten_output.attempts'::regclass and not granted").Scan(&n)
		require.NoError(t, err)
		return n
	}
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := e.send(ctx, http.MethodGet, e.url+"/v1/collections/"+c.ID.String(), "")
		left <- err
	}()
	require.Eventually(t, func() bool { return waiting() > 0 }, patience, time.Millisecond)
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	require.Eventually(t, func() bool { return waiting() == 0 }, patience, 10*time.Millisecond)
	require.Zero(t, log.count(progressAway))

	require.Equal(t, "running", string(e.get(t, c.ID).Tasks[0].Status))
	require.Equal(t, 1, log.count(progressAway))
	require.NoError(t, tx.Rollback(t.Context()))
	e.get(t, c.ID)
	require.Equal(t, 1, log.count(progressBack))
}
