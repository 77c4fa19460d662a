package readmodel_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// createWithFinally creates a collection with tasks that run after it.
func (s *story) createWithFinally(id uuid.UUID, finally int, names ...string) {
	s.t.Helper()
	e := creation(id, "acme", names...)
	e.AsOf, e.Finally = s.fold.Position(), finallyTasks(id, finally)
	s.do(e)
}

func finallyTasks(id uuid.UUID, n int) []ledger.Task {
	tasks := chain(id, []string{"tell", "clean"}[:n]...)
	for i := range tasks {
		tasks[i].ID = ledger.TaskID(id, ledger.KindFinally, i)
	}
	return tasks
}

func (s *story) beginFinally(id uuid.UUID, run, index, attempt int) int64 {
	s.t.Helper()
	return s.do(ledger.TaskStarted{
		CollectionID: id, Tenant: "acme", Run: run, TaskID: ledger.TaskID(id, ledger.KindFinally, index), Attempt: attempt,
		Claim: s.claim, Worker: "w",
	})
}

func (s *story) endFinally(id uuid.UUID, run, index int, attempt int64, failed bool) {
	s.t.Helper()
	task := ledger.TaskID(id, ledger.KindFinally, index)
	if failed {
		s.do(ledger.TaskFailed{CollectionID: id, Tenant: "acme", Run: run, TaskID: task, AttemptID: attempt, Worker: "w", Error: failure(true)})
		return
	}
	s.do(ledger.TaskSucceeded{CollectionID: id, Tenant: "acme", Run: run, TaskID: task, AttemptID: attempt, Worker: "w"})
}

// release gives back the claim without anything that runs.
func (s *story) release() {
	s.t.Helper()
	s.do(ledger.PartitionReleased{Queue: ledger.DefaultQueue, Claim: s.claim, Worker: "w", Running: []int64{}})
}

// Finally tasks change nothing of their collection, whose index they share: it
// shows its chain only. Their attempts are there, each with its run.
func TestCollectionWithFinallyTasks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id := newID(1)
	read := func() readmodel.Collection {
		t.Helper()
		c, err := f.Collection(t.Context(), "acme", id)
		require.NoError(t, err)
		c.Position = readmodel.Position{}
		return c
	}
	s.createWithFinally(id, 2, "key", "proof")
	s.fail(id, "acme", 1, 0, s.begin(id, "acme", 1, 0, 1), false)
	failed := read()
	require.Len(t, failed.Tasks, 2)
	first := s.beginFinally(id, 1, 0, 1)
	require.Equal(t, failed, read())
	s.endFinally(id, 1, 0, first, true)
	second := s.beginFinally(id, 1, 0, 2)
	s.endFinally(id, 1, 0, second, false)
	last := s.beginFinally(id, 1, 1, 1)
	require.Equal(t, failed, read(), "nothing of it shows in the collection")

	e := ledger.RetryRequested{
		CollectionID: id, Tenant: "acme", Run: 2, AsOf: s.fold.Position(), Name: "certificate", RequestHash: strings.Repeat("cd", 32),
		TaskCount: 2, Tasks: chain(id, "key", "proof"), Finally: finallyTasks(id, 2),
	}
	e.Tasks[0].Attempts = 1
	s.do(e)
	s.endFinally(id, 1, 1, last, false)
	s.succeed(id, "acme", 2, 0, s.begin(id, "acme", 2, 0, 2), `1`)
	s.succeed(id, "acme", 2, 1, s.begin(id, "acme", 2, 1, 1), `2`)
	succeeded := read()
	require.Equal(t, []any{ledger.StatusSucceeded, 2, ""}, []any{succeeded.Status, succeeded.TasksDone, succeeded.CurrentTask})
	third := s.beginFinally(id, 2, 0, 1)
	s.endFinally(id, 2, 0, third, false)
	require.Equal(t, succeeded, read())

	attempts, err := f.Attempts(t.Context(), "acme", ledger.TaskID(id, ledger.KindFinally, 0))
	require.NoError(t, err)
	var got [][]any
	for _, a := range attempts {
		got = append(got, []any{a.ID, a.Run, a.Number, a.Status})
	}
	require.Equal(t, [][]any{
		{first, 1, 1, ledger.StatusFailed}, {second, 1, 2, ledger.StatusSucceeded}, {third, 2, 1, ledger.StatusSucceeded},
	}, got)
	runs, err := f.Runs(t.Context(), "acme", id)
	require.NoError(t, err)
	require.Equal(t, failed.FinishedAt, runs[0].FinishedAt, "a run ends before its finally tasks")
	require.Equal(t, succeeded.FinishedAt, runs[1].FinishedAt)
}

// One release may take back a finally task of run 1 and end run 2: how far run 2
// came is told by its own tasks.
func TestReleaseThatEndsARun(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id, other := newID(1), newID(2)
	s.createWithFinally(id, 2, "key", "proof")
	s.create(other, "acme", "key", "proof", "install")
	s.fail(id, "acme", 1, 0, s.begin(id, "acme", 1, 0, 1), false)
	s.endFinally(id, 1, 0, s.beginFinally(id, 1, 0, 1), false)
	clean := s.beginFinally(id, 1, 1, 1)
	s.succeed(other, "acme", 1, 0, s.begin(other, "acme", 1, 0, 1), `1`)
	s.begin(other, "acme", 1, 1, 1)
	s.retry(id, "acme", 2, 0, []int{1, 0}, "key", "proof")
	attempt := s.begin(id, "acme", 2, 0, 2)
	for c, run := range map[uuid.UUID]int{id: 2, other: 1} {
		s.do(ledger.CancelRequested{CollectionID: c, Tenant: "acme", Run: run, RequestHash: creation(c, "acme").RequestHash})
	}
	s.release()

	c, err := f.Collection(t.Context(), "acme", id)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.StatusCanceled, 2, 0, "key"}, []any{c.Status, c.Run, c.TasksDone, c.CurrentTask})
	require.Equal(t, []ledger.Status{"canceled", "canceled"}, []ledger.Status{c.Tasks[0].Status, c.Tasks[1].Status})
	require.Equal(t, new(s.now()), c.FinishedAt)
	c, err = f.Collection(t.Context(), "acme", other)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.StatusCanceled, 1, "proof"}, []any{c.Status, c.TasksDone, c.CurrentTask})
	require.Equal(t, []ledger.Status{"succeeded", "canceled", "canceled"},
		[]ledger.Status{c.Tasks[0].Status, c.Tasks[1].Status, c.Tasks[2].Status})

	for task, id := range map[uuid.UUID]int64{ledger.TaskID(id, ledger.KindFinally, 1): clean, ledger.TaskID(id, ledger.KindTask, 0): attempt} {
		attempts, err := f.Attempts(t.Context(), "acme", task)
		require.NoError(t, err)
		last := attempts[len(attempts)-1]
		require.Equal(t, []any{id, ledger.StatusNotStarted, new(s.now())}, []any{last.ID, last.Status, last.FinishedAt})
	}
	for _, c := range []uuid.UUID{id, other} {
		runs, err := f.Runs(t.Context(), "acme", c)
		require.NoError(t, err)
		last := runs[len(runs)-1]
		require.Equal(t, []any{ledger.StatusCanceled, new(s.now())}, []any{last.Status, last.FinishedAt})
	}
	page, err := f.Collections(t.Context(), readmodel.Filter{Tenant: "acme"})
	require.NoError(t, err)
	require.Equal(t, map[ledger.Status]int64{ledger.StatusCanceled: 2}, page.Counts)
}

// A task whose outcome comes from outside waits; one whose start came to nothing
// is pending as before, with the attempt in its history.
func TestDeferredAndReleasedTasks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id := newID(1)
	read := func() readmodel.Task {
		t.Helper()
		c, err := f.Collection(t.Context(), "acme", id)
		require.NoError(t, err)
		require.Equal(t, ledger.StatusRunning, c.Status)
		require.Equal(t, []any{0, "key"}, []any{c.TasksDone, c.CurrentTask})
		return c.Tasks[0]
	}
	s.create(id, "acme", "key", "proof")
	first := s.begin(id, "acme", 1, 0, 1)
	s.release()
	task := read()
	require.Equal(t, []any{ledger.StatusPending, 1, first}, []any{task.Status, task.Attempts, task.AttemptID})

	prev := s.claim
	s.claim = s.do(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: prev, Worker: "w"})
	second := s.begin(id, "acme", 1, 0, 2)
	s.do(ledger.TaskDeferred{CollectionID: id, Tenant: "acme", Run: 1, TaskID: task.Definition.ID, AttemptID: second, Worker: "w"})
	task = read()
	require.Equal(t, []any{ledger.StatusWaiting, 2, second}, []any{task.Status, task.Attempts, task.AttemptID})
	require.Nil(t, task.FinishedAt)
	attempts, err := f.Attempts(t.Context(), "acme", task.Definition.ID)
	require.NoError(t, err)
	require.Equal(t, []ledger.Status{ledger.StatusNotStarted, ledger.StatusDeferred}, []ledger.Status{attempts[0].Status, attempts[1].Status})
	require.Nil(t, attempts[1].FinishedAt)

	s.succeed(id, "acme", 1, 0, second, `"from outside"`)
	c, err := f.Collection(t.Context(), "acme", id)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.StatusSucceeded, 1, "proof"}, []any{c.Tasks[0].Status, c.TasksDone, c.CurrentTask})
	require.JSONEq(t, `"from outside"`, string(c.Tasks[0].Result))
}
