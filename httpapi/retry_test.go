package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/ledger"
)

func retryPath(id uuid.UUID) string { return "/v1/collections/" + id.String() + "/retry" }

func ids(c httpapi.Collection) []uuid.UUID {
	list := []uuid.UUID{c.ID}
	for i := range c.Tasks {
		list = append(list, c.Tasks[i].ID)
	}
	return list
}

// A retry runs what did not succeed once more, with the same ids, from one
// record that has all that is needed.
func TestRetryRunsTheSuffixAgain(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failed := e.failed(t)
	require.True(t, failed.Retryable)
	require.Equal(t, "no challenge", failed.Error.Message)

	r := e.call(t, http.MethodPost, retryPath(failed.ID), `{"run":1,"reason":"file is there"}`)
	retried := r.collection(t, http.StatusAccepted)
	require.Equal(t, "accepted", r.header.Get("Keten-Verdict"))
	require.Equal(t, "/v1/collections/"+failed.ID.String(), r.header.Get("Location"))
	require.Equal(t, ids(failed), ids(retried))
	require.Equal(t, 2, retried.Run)
	require.Equal(t, ledger.StatusPending, retried.Status)
	require.False(t, retried.Retryable)
	require.Nil(t, retried.Error)
	require.Nil(t, retried.FinishedAt)
	require.Equal(t, []ledger.Status{ledger.StatusSucceeded, ledger.StatusPending, ledger.StatusPending}, statuses(retried))
	shown := e.get(t, failed.ID, "Keten-At-Least", r.header.Get("Keten-Position"))
	require.Equal(t, settled(retried, shown), settled(shown, shown))

	requests, _ := events[ledger.RetryRequested](t, e)
	require.Len(t, requests, 1)
	event := requests[0]
	require.Equal(t, []any{2, 3, "file is there", "chain"}, []any{event.Run, event.TaskCount, event.Reason, event.Name})
	require.JSONEq(t, `{"n":12345678901234567890}`, string(event.Input))
	require.Len(t, event.Tasks, 2)
	require.Equal(t, 1, event.Tasks[0].Index)
	require.Equal(t, failed.Tasks[1].ID, event.Tasks[0].ID)
	require.Equal(t, []int{1, 0}, []int{event.Tasks[0].Attempts, event.Tasks[1].Attempts})
	require.JSONEq(t, `{"i":1}`, string(event.Tasks[0].Args))
	require.Equal(t, "anonymous", event.Actor.Kind)

	e.hand.succeed(t, failed.ID, `2`)
	e.hand.succeed(t, failed.ID, `3`)
	ended := e.get(t, failed.ID)
	require.Equal(t, ledger.StatusSucceeded, ended.Status)
	require.Equal(t, ids(failed), ids(ended))
	require.Equal(t, []int{1, 2, 1}, []int{ended.Tasks[0].Attempts, ended.Tasks[1].Attempts, ended.Tasks[2].Attempts})
	require.Nil(t, ended.CurrentTask)
}

func statuses(c httpapi.Collection) []ledger.Status {
	var list []ledger.Status
	for i := range c.Tasks {
		list = append(list, c.Tasks[i].Status)
	}
	return list
}

// A retry carries args and the result before it letter for letter: printed
// another way they could be too long for the ledger, or other than in run 1.
func TestRetryKeepsTheText(t *testing.T) {
	t.Parallel()
	e := setup(t)
	args := `{"b":-0,"a":1e2,"c":1E-7,"many":[` + strings.Repeat("1e300,", 999) + `1],"long":1.` + strings.Repeat("1", 300) + `e-300}`
	c := e.create(t, `{"name":"n","tasks":[{"name":"a","type":"`+typeGo+`"},{"name":"b","type":"`+typeGo+`","args":`+args+`}]}`)
	result := `{"n":1e2,"list":[1,2]}`
	e.hand.succeed(t, c.ID, result)
	e.hand.fail(t, c.ID)
	r := e.call(t, http.MethodPost, "/v1/collections/"+c.ID.String()+"/retry", `{}`)
	require.Equal(t, http.StatusAccepted, r.status, string(r.body))
	requests, _ := events[ledger.RetryRequested](t, e)
	require.Len(t, requests, 1)
	retry := requests[0]
	require.Equal(t, args, string(retry.Tasks[0].Args))
	require.Equal(t, result, string(retry.Input))
}

// What cannot be retried is not, and nothing is written.
func TestRetryIsRefused(t *testing.T) {
	t.Parallel()
	e := setup(t)
	pending, running, succeeded := e.create(t, chain(1)), e.create(t, chain(1)), e.create(t, chain(1))
	e.hand.start(t, running.ID)
	e.hand.succeed(t, succeeded.ID, `1`)
	failed := e.failed(t)
	before := len(e.records(t, t.Context()))

	for status, c := range map[string]httpapi.Collection{"pending": pending, "running": running, "succeeded": succeeded} {
		p := e.call(t, http.MethodPost, retryPath(c.ID), `{}`).problem(t, http.StatusConflict, "not_retryable")
		require.Contains(t, p.Detail, status)
	}
	p := e.call(t, http.MethodPost, retryPath(failed.ID), `{"run":2}`).problem(t, http.StatusConflict, "run_changed")
	require.Contains(t, p.Detail, "run is 1")
	e.call(t, http.MethodPost, retryPath(someID()), `{}`).problem(t, http.StatusNotFound, "not_found")
	e.call(t, http.MethodPost, retryPath(uuid.New()), `{}`).problem(t, http.StatusNotFound, "not_found")
	require.Len(t, e.records(t, t.Context()), before)
}

// An empty body asks for a retry of the current run; so does one of a canceled
// collection.
func TestRetryOfACanceledCollection(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(2))
	hash, err := ledger.RequestHash("test", json.RawMessage(`{}`))
	require.NoError(t, err)
	e.write(t, ledger.PartitionOf(c.ID), ledger.CancelRequested{CollectionID: c.ID, Tenant: "default", Run: 1, RequestHash: hash})
	require.Equal(t, ledger.StatusCanceled, e.get(t, c.ID).Status)

	retried := e.call(t, http.MethodPost, retryPath(c.ID), "").collection(t, http.StatusAccepted)
	require.Equal(t, 2, retried.Run)
	requests, _ := events[ledger.RetryRequested](t, e)
	require.Len(t, requests[0].Tasks, 2)
	require.Empty(t, requests[0].Input)
}

// Of retries that race, one is accepted; the others are told.
func TestRetriesThatRaceAreOne(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failed := e.failed(t)
	other, _ := e.newAPI(t, e.store, settings{})
	urls := []string{e.url, serve(t, other)}
	var group sync.WaitGroup
	replies := make([]reply, 12)
	errs := make([]error, len(replies))
	for i := range replies {
		group.Go(func() {
			replies[i], errs[i] = e.send(t.Context(), http.MethodPost, urls[i%2]+retryPath(failed.ID), `{"run":1}`, "Prefer", "wait=30")
		})
	}
	group.Wait()
	accepted := 0
	for i, r := range replies {
		require.NoError(t, errs[i])
		if r.status == http.StatusAccepted {
			accepted++
			continue
		}
		r.problem(t, http.StatusConflict, "run_changed")
	}
	require.Equal(t, 1, accepted)
	require.Equal(t, 2, e.get(t, failed.ID).Run)
}

// Repeated with its key, a retry that was taken is not made again, whatever
// has become of its run.
func TestRetryWithAKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failed := e.failed(t)
	first := e.call(t, http.MethodPost, retryPath(failed.ID), `{"reason":"a"}`, "Idempotency-Key", "k")
	first.collection(t, http.StatusAccepted)
	e.hand.fail(t, failed.ID) // run 2 could be retried now

	again := e.call(t, http.MethodPost, retryPath(failed.ID), `{ "reason": "a" }`, "Idempotency-Key", "k")
	require.Equal(t, 2, again.collection(t, http.StatusAccepted).Run)
	require.Equal(t, first.header.Get("Keten-Command"), again.header.Get("Keten-Command"))
	e.call(t, http.MethodPost, retryPath(failed.ID), `{"reason":"b"}`, "Idempotency-Key", "k").
		problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	requests, _ := events[ledger.RetryRequested](t, e)
	require.Len(t, requests, 1)
	require.Equal(t, 3, e.call(t, http.MethodPost, retryPath(failed.ID), `{"reason":"b"}`, "Idempotency-Key", "k2").collection(t, http.StatusAccepted).Run)
}

// A retry without a run means the run that was there when it was asked for: the
// next one, which failed while the request was on its way, is left alone.
func TestRetryDoesNotMoveOnToAnotherRun(t *testing.T) {
	t.Parallel()
	f := &faults{}
	e := setup(t, f.use)
	failed := e.failed(t)
	var once sync.Once
	f.before = func(_ context.Context, msg ledger.Message) {
		once.Do(func() { // run 2 comes and fails between the decision and its record
			e.write(t, msg.Partition, requestOf(t, msg))
			e.hand.fail(t, failed.ID)
		})
	}
	p := e.call(t, http.MethodPost, retryPath(failed.ID), `{}`, "Prefer", "wait=30").problem(t, http.StatusConflict, "run_changed")
	require.Contains(t, p.Detail, "run is 2")
	c := e.get(t, failed.ID)
	require.Equal(t, []any{2, ledger.StatusFailed}, []any{c.Run, c.Status})
}

func requestOf(t *testing.T, msg ledger.Message) ledger.RetryRequested {
	t.Helper()
	env, err := ledger.Decode(ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
	require.NoError(t, err)
	event, ok := env.Event.(ledger.RetryRequested)
	require.True(t, ok)
	return event
}

// someID is the id of a collection that does not exist.
func someID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
