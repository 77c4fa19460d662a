package readmodel_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// One collection's whole life, read after every step: created, a task done, the
// next one failed, waiting and failed for good, retried from there, succeeded.
func TestCollectionTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id, names := newID(1), []string{"key", "proof", "install"}
	read := func() readmodel.Collection {
		t.Helper()
		c, err := f.Collection(t.Context(), "acme", id)
		require.NoError(t, err)
		require.Equal(t, readmodel.Position{Offset: s.fold.Position()}, c.Position)
		require.Equal(t, s.now(), c.UpdatedAt)
		return c
	}

	s.create(id, "acme", names...)
	c := read()
	created := s.now()
	require.Equal(t, readmodel.Collection{
		ID: id, Tenant: "acme", Name: "certificate", Template: "request-certificate", Description: "for d.example",
		Labels: map[string]string{"env": "test"}, RequestHash: creation(id, "acme").RequestHash,
		Status: ledger.StatusPending, Run: 1, TaskCount: 3, CurrentTask: "key", CurrentTaskType: "certificate.key",
		CreatedBy: ledger.Actor{Kind: "anonymous", Address: "127.0.0.1"}, CreatedAt: created, UpdatedAt: created,
		Tasks: c.Tasks, Position: c.Position,
	}, c)
	for i, want := range chain(id, names...) {
		want.Args = json.RawMessage(`{"n":` + string(rune('0'+i)) + `}`)
		require.Equal(t, readmodel.Task{Definition: want, Status: ledger.StatusPending, Run: 1, AttemptID: -1}, c.Tasks[i])
	}

	key := s.begin(id, "acme", 1, 0, 1)
	started := s.now()
	c = read()
	require.Equal(t, ledger.StatusRunning, c.Status)
	require.Equal(t, &started, c.StartedAt)
	require.Equal(t, 1, c.CurrentAttempt)
	require.Equal(t, ledger.StatusRunning, c.Tasks[0].Status)
	require.Equal(t, key, c.Tasks[0].AttemptID)
	require.Equal(t, "w", c.Tasks[0].Worker)
	require.Equal(t, &started, c.Tasks[0].StartedAt)
	require.Nil(t, c.Tasks[0].FinishedAt)

	s.succeed(id, "acme", 1, 0, key, `{"pem":"…"}`)
	c = read()
	require.Equal(t, 1, c.TasksDone)
	require.Equal(t, "proof", c.CurrentTask)
	require.Equal(t, ledger.StatusSucceeded, c.Tasks[0].Status)
	require.JSONEq(t, `{"pem":"…"}`, string(c.Tasks[0].Result))
	require.Equal(t, "done", c.Tasks[0].Message)
	require.Equal(t, new(s.now()), c.Tasks[0].FinishedAt)

	first := s.begin(id, "acme", 1, 1, 1)
	require.Equal(t, new(s.now()), read().Tasks[1].StartedAt)
	s.fail(id, "acme", 1, 1, first, true)
	c = read()
	require.Equal(t, ledger.StatusRunning, c.Status)
	require.Equal(t, ledger.StatusWaiting, c.Tasks[1].Status)
	require.Equal(t, new(failure(true)), c.Tasks[1].Error)

	second := s.begin(id, "acme", 1, 1, 2)
	s.fail(id, "acme", 1, 1, second, false)
	failed := s.now()
	c = read()
	summary := failure(false)
	summary.Detail = ""
	require.Equal(t, ledger.StatusFailed, c.Status)
	require.Equal(t, &summary, c.Error)
	require.Equal(t, &failed, c.FinishedAt)
	require.Equal(t, 1, c.TasksDone)
	require.Equal(t, []any{"proof", "certificate.proof", 2}, []any{c.CurrentTask, c.CurrentTaskType, c.CurrentAttempt})
	require.Equal(t, ledger.StatusFailed, c.Tasks[1].Status)
	require.Equal(t, 2, c.Tasks[1].Attempts)
	require.Equal(t, new(failure(false)), c.Tasks[1].Error)
	require.Equal(t, ledger.StatusPending, c.Tasks[2].Status)

	s.retry(id, "acme", 2, 1, []int{2, 0}, names...)
	c = read()
	require.Equal(t, ledger.StatusPending, c.Status)
	require.Equal(t, 2, c.Run)
	require.Nil(t, c.Error)
	require.Nil(t, c.FinishedAt)
	require.Equal(t, &started, c.StartedAt)
	require.Equal(t, created, c.CreatedAt)
	require.Equal(t, 1, c.TasksDone)
	require.Equal(t, []any{"proof", 2}, []any{c.CurrentTask, c.CurrentAttempt})
	require.Equal(t, 1, c.Tasks[0].Run)
	require.Equal(t, ledger.StatusSucceeded, c.Tasks[0].Status)
	require.Equal(t, readmodel.Task{Definition: c.Tasks[1].Definition, Status: ledger.StatusPending, Run: 2, Attempts: 2, AttemptID: -1}, c.Tasks[1])
	require.JSONEq(t, `"amended"`, string(c.Tasks[1].Definition.Args))
	require.Equal(t, 2, c.Tasks[1].Definition.Attempts)

	third := s.begin(id, "acme", 2, 1, 3)
	s.succeed(id, "acme", 2, 1, third, `null`)
	last := s.begin(id, "acme", 2, 2, 1)
	s.succeed(id, "acme", 2, 2, last, ``)
	c = read()
	require.Equal(t, ledger.StatusSucceeded, c.Status)
	require.Equal(t, []any{3, "", "", 0}, []any{c.TasksDone, c.CurrentTask, c.CurrentTaskType, c.CurrentAttempt})
	require.Equal(t, "null", string(c.Tasks[1].Result), "which is not the same as none")
	require.Nil(t, c.Tasks[2].Result)

	attempts, err := f.Attempts(t.Context(), "acme", c.Tasks[1].Definition.ID)
	require.NoError(t, err)
	require.Len(t, attempts, 3)
	require.Equal(t, readmodel.Attempt{
		ID: first, TaskID: c.Tasks[1].Definition.ID, Run: 1, Number: 1, Claim: s.claim, Worker: "w", Status: ledger.StatusFailed,
		StartedAt: s.at(6), FinishedAt: new(s.at(7)), Error: new(failure(true)),
	}, attempts[0])
	require.Equal(t, []any{third, 2, 3, ledger.StatusSucceeded}, []any{attempts[2].ID, attempts[2].Run, attempts[2].Number, attempts[2].Status})

	runs, err := f.Runs(t.Context(), "acme", id)
	require.NoError(t, err)
	require.Len(t, runs, 2)
	require.Equal(t, readmodel.Run{
		Run: 1, EventID: runs[0].EventID, Status: ledger.StatusFailed, RequestHash: creation(id, "acme").RequestHash,
		RequestedBy: c.CreatedBy, RequestedAt: created, StartedAt: &started, FinishedAt: &failed,
		FailedTask: c.Tasks[1].Definition.ID, Error: &summary,
	}, runs[0])
	require.Equal(t, []any{2, ledger.StatusSucceeded, "again", "the challenge is there", "u"},
		[]any{runs[1].Run, runs[1].Status, runs[1].IdempotencyKey, runs[1].Reason, runs[1].RequestedBy.ID})
	require.Equal(t, new(s.at(11)), runs[1].StartedAt)
}

func TestCollectionAfterACancel(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	cancel := func(id uuid.UUID) {
		t.Helper()
		s.do(ledger.CancelRequested{CollectionID: id, Tenant: "acme", Run: 1, RequestHash: creation(id, "acme").RequestHash})
	}
	statuses := func(id uuid.UUID) []ledger.Status {
		t.Helper()
		c, err := f.Collection(t.Context(), "acme", id)
		require.NoError(t, err)
		list := []ledger.Status{c.Status}
		for _, task := range c.Tasks {
			list = append(list, task.Status)
		}
		return list
	}

	early := newID(1)
	s.create(early, "acme", "a", "b")
	cancel(early)
	require.Equal(t, []ledger.Status{"canceled", "canceled", "canceled"}, statuses(early))

	waiting := newID(2)
	s.create(waiting, "acme", "a", "b")
	s.fail(waiting, "acme", 1, 0, s.begin(waiting, "acme", 1, 0, 1), true)
	cancel(waiting)
	require.Equal(t, []ledger.Status{"canceled", "canceled", "canceled"}, statuses(waiting))
	c, err := f.Collection(t.Context(), "acme", waiting)
	require.NoError(t, err)
	require.Equal(t, new(failure(true)), c.Tasks[0].Error, "what its last attempt left")

	running := newID(3)
	s.create(running, "acme", "a", "b", "c")
	attempt := s.begin(running, "acme", 1, 0, 1)
	cancel(running)
	require.Equal(t, []ledger.Status{"running", "running", "pending", "pending"}, statuses(running))
	s.succeed(running, "acme", 1, 0, attempt, `1`)
	require.Equal(t, []ledger.Status{"canceled", "succeeded", "canceled", "canceled"}, statuses(running))
	c, err = f.Collection(t.Context(), "acme", running)
	require.NoError(t, err)
	require.Equal(t, []any{1, "b"}, []any{c.TasksDone, c.CurrentTask})

	failing := newID(4)
	s.create(failing, "acme", "a", "b")
	attempt = s.begin(failing, "acme", 1, 0, 1)
	cancel(failing)
	s.fail(failing, "acme", 1, 0, attempt, true)
	require.Equal(t, []ledger.Status{"canceled", "failed", "canceled"}, statuses(failing))
}

// A retry of a collection that was never created is accepted by the fold, which
// remembers active ones only; the tables show what is known of it.
func TestCollectionOfARetryWithoutCreation(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id := newID(1)
	s.retry(id, "acme", 2, 1, []int{0, 0}, "a", "b", "c")
	c, err := f.Collection(t.Context(), "acme", id)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.StatusPending, 2, 3, 1, "b"}, []any{c.Status, c.Run, c.TaskCount, c.TasksDone, c.CurrentTask})
	require.Len(t, c.Tasks, 2)
	page, err := f.Collections(t.Context(), readmodel.Filter{Tenant: "acme"})
	require.NoError(t, err)
	require.Equal(t, map[ledger.Status]int64{ledger.StatusPending: 1}, page.Counts)
}

func TestReadsKeepTenantsApart(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id := newID(1)
	s.create(id, "acme", "a")
	s.begin(id, "acme", 1, 0, 1)

	_, err := f.Collection(t.Context(), "other", id)
	require.ErrorIs(t, err, readmodel.ErrNotFound)
	_, err = f.Collection(t.Context(), "acme", newID(2))
	require.ErrorIs(t, err, readmodel.ErrNotFound)
	attempts, err := f.Attempts(t.Context(), "other", ledger.TaskID(id, ledger.KindTask, 0))
	require.NoError(t, err)
	require.Empty(t, attempts)
	runs, err := f.Runs(t.Context(), "other", id)
	require.NoError(t, err)
	require.Empty(t, runs)
	page, err := f.Collections(t.Context(), readmodel.Filter{Tenant: "other"})
	require.NoError(t, err)
	require.Empty(t, page.Collections)
	require.Empty(t, page.Counts)

	row, asOf, err := f.ForCommand(t.Context(), "other", id)
	require.NoError(t, err)
	require.Nil(t, row)
	require.Equal(t, s.fold.Position(), asOf)
}

func TestForCommand(t *testing.T) {
	t.Parallel()
	f := setup(t)
	row, asOf, err := f.ForCommand(t.Context(), "acme", newID(1))
	require.NoError(t, err)
	require.Nil(t, row)
	require.Zero(t, asOf, "nothing was projected yet")

	s := newStory(t, f, 1)
	s.create(newID(1), "acme", "a", "b")
	s.succeed(newID(1), "acme", 1, 0, s.begin(newID(1), "acme", 1, 0, 1), `{"x":[1]}`)
	row, asOf, err = f.ForCommand(t.Context(), "acme", newID(1))
	require.NoError(t, err)
	require.Equal(t, s.fold.Position(), asOf)
	require.Equal(t, asOf, row.Position.Offset)
	require.Len(t, row.Tasks, 2)
	require.JSONEq(t, `{"x":[1]}`, string(row.Tasks[0].Result))
}

func TestCommandOutcome(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	_, err := f.CommandOutcome(t.Context(), uuid.Must(uuid.NewV7()))
	require.ErrorIs(t, err, readmodel.ErrNotFound)

	id := newID(1)
	s.create(id, "acme", "a")
	created := s.last
	want := readmodel.CommandOutcome{
		EventID: created.EventID, Collection: id, Tenant: "acme", Type: "keten.v1.CollectionCreated", Verdict: ledger.Accepted,
		Position: readmodel.Position{Offset: s.fold.Position()},
	}
	require.Equal(t, ledger.Duplicate, s.send(created).Verdict)
	got, err := f.CommandOutcome(t.Context(), created.EventID)
	require.NoError(t, err)
	require.Equal(t, want, got, "the duplicate's verdict does not replace the first")

	s.begin(id, "acme", 1, 0, 1)
	_, err = f.CommandOutcome(t.Context(), s.last.EventID)
	require.ErrorIs(t, err, readmodel.ErrNotFound, "a task's event is no command")

	// Too early, and again when its time has come.
	early := creation(newID(2), "acme", "a")
	early.AsOf = s.fold.Position() + 2
	m, err := ledger.Encode(0, ledger.Meta{EventID: uuid.Must(uuid.NewV7())}, early)
	require.NoError(t, err)
	for _, verdict := range []ledger.Verdict{ledger.Stale, ledger.Stale, ledger.Accepted, ledger.Duplicate} {
		first := s.fold.Position()
		require.Equal(t, verdict, s.send(m).Verdict)
		got, err = f.CommandOutcome(t.Context(), m.EventID)
		require.NoError(t, err)
		switch verdict {
		case ledger.Stale:
			require.Equal(t, ledger.ReasonAhead, got.Reason)
			require.LessOrEqual(t, got.Position.Offset, first+1)
		default:
			require.Equal(t, ledger.Accepted, got.Verdict)
		}
	}

	broken := m
	broken.EventID = uuid.Must(uuid.NewV7())
	broken.Headers = []ledger.Header{
		{Key: ledger.HeaderType, Value: []byte("keten.v1.RetryRequested")}, {Key: ledger.HeaderID, Value: []byte(broken.EventID.String())},
	}
	require.Equal(t, ledger.Invalid, s.send(broken).Verdict)
	got, err = f.CommandOutcome(t.Context(), broken.EventID)
	require.NoError(t, err)
	require.Equal(t, ledger.Invalid, got.Verdict)
	require.NotEmpty(t, got.Reason)
	require.Equal(t, newID(2), got.Collection, "from the key")
}
