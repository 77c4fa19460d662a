package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/ledger"
)

func (e *env) list(t *testing.T, query string) httpapi.CollectionPage {
	t.Helper()
	r := e.call(t, http.MethodGet, "/v1/collections?"+query, "")
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	var page httpapi.CollectionPage
	r.into(t, &page)
	return page
}

func listed(p httpapi.CollectionPage) []uuid.UUID {
	list := []uuid.UUID{}
	for i := range p.Collections {
		list = append(list, p.Collections[i].ID)
	}
	return list
}

// A collection that failed says where, why and after how long.
func TestShowAFailedCollection(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failed := e.failed(t)
	require.Equal(t, &httpapi.CurrentTask{Name: "t1", Type: typeGo, Attempt: 1}, failed.CurrentTask)
	require.Equal(t, []int{3, 1, 1}, []int{failed.TaskCount, failed.TasksDone, failed.Run})
	want := &httpapi.TaskError{Code: "exit", Message: "no challenge", Detail: "line 1\nline 2", Audience: ledger.AudienceUser}
	require.Equal(t, want, failed.Error)
	require.Equal(t, want, failed.Tasks[1].Error)
	require.NotNil(t, failed.FinishedAt)
	require.Equal(t, []ledger.Status{ledger.StatusSucceeded, ledger.StatusFailed, ledger.StatusPending}, statuses(failed))
	require.JSONEq(t, `{"n":12345678901234567890}`, string(failed.Tasks[0].Result))
	require.Equal(t, "done", *failed.Tasks[0].Message)
	require.Equal(t, "hand", *failed.Tasks[1].Worker)
	require.GreaterOrEqual(t, *failed.Tasks[1].DurationMS, int64(0))
	require.Nil(t, failed.Tasks[2].Worker)
	require.Equal(t, "null", string(failed.Tasks[2].Result))

	summary := e.list(t, "status=failed").Collections[0]
	require.Empty(t, summary.Error.Detail)
	summary.Error.Detail, summary.Position = failed.Error.Detail, failed.Position
	require.Equal(t, failed.CollectionSummary, summary)
}

// A task is shown with all its attempts, over all runs.
func TestShowATaskWithItsAttempts(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failed := e.failed(t)
	e.call(t, http.MethodPost, retryPath(failed.ID), `{}`).collection(t, http.StatusAccepted)
	e.hand.succeed(t, failed.ID, `"ok"`)
	path := fmt.Sprintf("/v1/collections/%s/tasks/%s", failed.ID, failed.Tasks[1].ID)
	r := e.call(t, http.MethodGet, path, "")
	require.NotEmpty(t, r.header.Get("Keten-Position"))
	var task httpapi.TaskDetail
	r.into(t, &task)
	require.Equal(t, failed.ID, task.CollectionID)
	require.Equal(t, []any{ledger.StatusSucceeded, 2, 2}, []any{task.Status, task.Attempts, task.Run})
	require.Len(t, task.AllAttempts, 2)
	first, second := task.AllAttempts[0], task.AllAttempts[1]
	require.Equal(t, []any{1, 1, ledger.StatusFailed, "exit"}, []any{first.Number, first.Run, first.Status, first.Error.Code})
	require.Equal(t, []any{2, 2, ledger.StatusSucceeded, `"ok"`}, []any{second.Number, second.Run, second.Status, string(second.Result)})
	require.Less(t, first.ID, second.ID)
	require.Nil(t, second.Error)

	other := e.create(t, chain(1)) // a task is shown below its own collection only
	e.call(t, http.MethodGet, fmt.Sprintf("/v1/collections/%s/tasks/%s", other.ID, failed.Tasks[1].ID), "").
		problem(t, http.StatusNotFound, "not_found")
}

// Filters narrow the list, counts do not care.
func TestListFilters(t *testing.T) {
	t.Parallel()
	e := setup(t)
	web := e.create(t, `{"name":"web","labels":{"team":"web","env":"prod"},"tasks":[{"name":"a","type":"`+typeGo+`"}]}`)
	db := e.create(t, `{"name":"db","labels":{"team":"db"},"tasks":[{"name":"a","type":"certificate.key","args":{"domain":"shop"}}]}`)
	done := e.create(t, chain(1))
	e.hand.succeed(t, done.ID, `1`)
	e.hand.fail(t, db.ID)
	created := e.get(t, done.ID).CreatedAt.Format(time.RFC3339Nano)

	for query, want := range map[string][]uuid.UUID{
		"":                                    {done.ID, db.ID, web.ID},
		"status=failed":                       {db.ID},
		"status=failed&status=succeeded":      {done.ID, db.ID},
		"name=web":                            {web.ID},
		"name=we":                             {},
		"label=team:web":                      {web.ID},
		"label=team:web&label=env:prod":       {web.ID},
		"label=team:web&label=env:test":       {},
		"failed_type=certificate.key":         {db.ID},
		"failed_type=" + typeGo:               {},
		"created_after=2999-01-01T00:00:00Z":  {},
		"created_before=2001-01-01T00:00:00Z": {},
		"created_after=" + created:            {done.ID},
		"created_before=" + created:           {db.ID, web.ID},
		"status=pending&name=web&limit=500":   {web.ID},
	} {
		page := e.list(t, query)
		require.Equal(t, want, listed(page), query)
		require.Equal(t, httpapi.Counts{Pending: 1, Succeeded: 1, Failed: 1}, page.Counts, query)
		require.Nil(t, page.NextCursor, query)
	}
}

// Pages follow each other without a gap while new collections arrive.
func TestListPages(t *testing.T) {
	t.Parallel()
	e := setup(t)
	var want []uuid.UUID
	for range 7 {
		want = append([]uuid.UUID{e.create(t, chain(1)).ID}, want...)
	}
	var got []uuid.UUID
	query := "limit=3"
	for range 3 {
		page := e.list(t, query)
		got = append(got, listed(page)...)
		e.create(t, chain(1))
		if page.NextCursor != nil {
			query = "limit=3&cursor=" + url.QueryEscape(*page.NextCursor)
		}
	}
	require.Equal(t, want, got)
}

// A long-poll is answered when the run ends.
func TestWaitForTheEnd(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(2))
	polled := make(chan reply, 1)
	errs := make(chan error, 1)
	go func() {
		r, err := e.send(context.WithoutCancel(t.Context()), http.MethodGet, e.url+"/v1/collections/"+c.ID.String()+"?wait=60s", "")
		errs <- err
		polled <- r
	}()
	e.hand.succeed(t, c.ID, `1`)
	require.Empty(t, polled)
	e.hand.fail(t, c.ID)
	require.NoError(t, <-errs)
	ended := (<-polled).collection(t, http.StatusOK)
	require.Equal(t, ledger.StatusFailed, ended.Status)
	require.Equal(t, ledger.StatusFailed, e.call(t, http.MethodGet, "/v1/collections/"+c.ID.String()+"?wait=60s", "").
		collection(t, http.StatusOK).Status, "one that has ended is shown at once")

	c = e.create(t, chain(1))
	start := time.Now()
	r := e.call(t, http.MethodGet, "/v1/collections/"+c.ID.String()+"?wait=300ms", "")
	require.Equal(t, ledger.StatusPending, r.collection(t, http.StatusOK).Status)
	require.GreaterOrEqual(t, time.Since(start), 300*time.Millisecond)
}

// A read waits for the position it names, and is never older.
func TestReadAtLeast(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(1))
	e.stopProjecting(t)
	p := ledger.PartitionOf(c.ID)
	hash, err := ledger.RequestHash("test", json.RawMessage(`{}`))
	require.NoError(t, err)
	offset := e.write(t, p, ledger.CancelRequested{CollectionID: c.ID, Tenant: "default", Run: 1, RequestHash: hash})
	position := fmt.Sprintf("%d:%d", p, offset+1)
	require.Equal(t, ledger.StatusPending, e.get(t, c.ID).Status)

	read := make(chan reply, 1)
	go func() {
		r, err := e.send(context.WithoutCancel(t.Context()), http.MethodGet, e.url+"/v1/collections/"+c.ID.String(), "", "Keten-At-Least", position)
		r.body = append(r.body, fmt.Sprint(err)[:0]...)
		read <- r
	}()
	e.project(t)
	require.Equal(t, ledger.StatusCanceled, (<-read).collection(t, http.StatusOK).Status)

	beyond := fmt.Sprintf("%d:%d", p, offset+1000)
	for _, path := range []string{"/v1/collections/" + c.ID.String(), "/v1/collections", "/v1/positions"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			r := e.call(t, http.MethodGet, path, "", "Keten-At-Least", beyond)
			r.problem(t, http.StatusServiceUnavailable, "projection_behind")
			require.NotEmpty(t, r.header.Get("Retry-After"))
		})
	}
}

// Positions tell how far the read model is.
func TestPositions(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(1))
	r := e.call(t, http.MethodGet, "/v1/positions", "", "Keten-At-Least", c.Position)
	var p httpapi.Positions
	r.into(t, &p)
	info := e.log.Info()
	require.Equal(t, info.LedgerID, p.LedgerID)
	require.Equal(t, info.Partitions, p.Partitions)
	require.Equal(t, info.Window, p.Window)
	require.Contains(t, p.Positions, c.Position)
}

// A verdict is shown to whom it belongs, whatever it is.
func TestCommandThatWasRefused(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(1))
	hash, err := ledger.RequestHash("test", json.RawMessage(`{}`))
	require.NoError(t, err)
	send := func(tenant string) string {
		meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Time: time.Now()}
		msg, err := ledger.Encode(ledger.PartitionOf(c.ID), meta, ledger.CancelRequested{CollectionID: c.ID, Tenant: tenant, Run: 7, RequestHash: hash})
		require.NoError(t, err)
		offset, err := e.log.AppendWait(t.Context(), msg)
		require.NoError(t, err)
		e.get(t, c.ID, "Keten-At-Least", fmt.Sprintf("%d:%d", msg.Partition, offset+1))
		return "/v1/commands/" + meta.EventID.String()
	}
	var command httpapi.Command
	e.call(t, http.MethodGet, send("default"), "").into(t, &command)
	require.Equal(t, ledger.Stale, command.Verdict)
	require.Equal(t, "closed", *command.Reason)
	e.call(t, http.MethodGet, send("other"), "").problem(t, http.StatusNotFound, "not_found")
}
