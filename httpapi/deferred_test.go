package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/ledger"
)

func (e *env) getTask(t *testing.T, id, task uuid.UUID) httpapi.TaskDetail {
	t.Helper()
	r := e.call(t, http.MethodGet, fmt.Sprintf("/v1/collections/%s/tasks/%s", id, task), "")
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	var detail httpapi.TaskDetail
	r.into(t, &detail)
	return detail
}

// A task whose outcome comes from outside waits, one whose worker gave back the
// right to run it is pending again: both are shown with their attempts, as the
// document says.
func TestShowDeferredAndReleasedTasks(t *testing.T) {
	t.Parallel()
	e := setup(t)
	id := e.create(t, chain(2)).ID
	p := ledger.PartitionOf(id)
	task, attempt := e.hand.start(t, id)
	e.write(t, p, ledger.TaskDeferred{CollectionID: id, Tenant: "default", Run: 1, TaskID: task.ID, AttemptID: attempt, Worker: "hand"})
	c := e.get(t, id)
	require.Equal(t, ledger.StatusRunning, c.Status)
	require.False(t, c.Retryable)
	require.Equal(t, []ledger.Status{ledger.StatusWaiting, ledger.StatusPending}, statuses(c))
	require.Equal(t, &httpapi.CurrentTask{Name: "t0", Type: typeGo, Attempt: 1}, c.CurrentTask)
	detail := e.getTask(t, id, task.ID)
	require.Equal(t, ledger.StatusWaiting, detail.Status)
	require.Equal(t, ledger.StatusDeferred, detail.AllAttempts[0].Status)
	require.Nil(t, detail.AllAttempts[0].FinishedAt)
	require.Equal(t, httpapi.Counts{Running: 1}, e.list(t, "status=running").Counts)

	e.write(t, p, ledger.TaskSucceeded{
		CollectionID: id, Tenant: "default", Run: 1, TaskID: task.ID, AttemptID: attempt, Worker: "hand", Result: json.RawMessage(`"late"`),
	})
	task, _ = e.hand.start(t, id)
	e.write(t, p, ledger.PartitionReleased{Queue: ledger.DefaultQueue, Claim: e.hand.claims[p], Worker: "hand", Running: []int64{}})
	c = e.get(t, id)
	require.Equal(t, ledger.StatusRunning, c.Status)
	require.Equal(t, []ledger.Status{ledger.StatusSucceeded, ledger.StatusPending}, statuses(c))
	require.Equal(t, &httpapi.CurrentTask{Name: "t1", Type: typeGo, Attempt: 1}, c.CurrentTask)
	detail = e.getTask(t, id, task.ID)
	require.Equal(t, []any{ledger.StatusPending, 1}, []any{detail.Status, detail.Attempts})
	require.Equal(t, ledger.StatusNotStarted, detail.AllAttempts[0].Status)
	require.NotNil(t, detail.AllAttempts[0].FinishedAt)
}

// Finally tasks that another author gave a collection are not shown with its
// chain, and a retry does not wait for them.
func TestShowNothingOfFinallyTasks(t *testing.T) {
	t.Parallel()
	e := setup(t)
	shown := e.create(t, chain(1))
	created, _ := events[ledger.CollectionCreated](t, e)
	event := created[0]
	event.CollectionID = ledger.NewCollectionID(ledger.PartitionOf(shown.ID), time.Now(), [8]byte{1})
	end, err := e.log.End(t.Context(), ledger.PartitionOf(shown.ID))
	require.NoError(t, err)
	event.AsOf, event.Finally = end, []ledger.Task{event.Tasks[0]}
	event.Tasks[0].ID = ledger.TaskID(event.CollectionID, ledger.KindTask, 0)
	event.Finally[0].ID = ledger.TaskID(event.CollectionID, ledger.KindFinally, 0)
	id, p := event.CollectionID, ledger.PartitionOf(shown.ID)
	e.write(t, p, event)
	e.hand.fail(t, id)
	failed := e.get(t, id)
	e.write(t, p, ledger.TaskStarted{
		CollectionID: id, Tenant: "default", Run: 1, TaskID: event.Finally[0].ID, Attempt: 1, Claim: e.hand.claims[p], Worker: "hand",
	})
	attempts, err := e.store.Attempts(t.Context(), "default", event.Finally[0].ID)
	require.NoError(t, err)
	require.Len(t, attempts, 1, "it was accepted")
	now := e.get(t, id)
	now.Position = failed.Position
	require.Equal(t, failed, now)
	require.Len(t, now.Tasks, 1)
	e.call(t, http.MethodGet, fmt.Sprintf("/v1/collections/%s/tasks/%s", id, event.Finally[0].ID), "").problem(t, http.StatusNotFound, "not_found")
	e.call(t, http.MethodPost, retryPath(id), `{}`).collection(t, http.StatusAccepted)
	e.hand.succeed(t, id, `1`)
	require.Equal(t, []any{ledger.StatusSucceeded, 2}, []any{e.get(t, id).Status, e.get(t, id).Run})
}
