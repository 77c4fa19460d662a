package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// patience bounds what a test waits for that no call can wait for.
const patience = time.Minute

func outputPath(collection, task uuid.UUID) string {
	return fmt.Sprintf("/v1/collections/%s/tasks/%s/output", collection, task)
}

func (e *env) output(t *testing.T, collection, task uuid.UUID, query string) httpapi.TaskOutput {
	t.Helper()
	r := e.call(t, http.MethodGet, outputPath(collection, task)+"?"+query, "")
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	var out httpapi.TaskOutput
	r.into(t, &out)
	return out
}

func lineTexts(out httpapi.TaskOutput) []string {
	texts := []string{}
	for _, l := range out.Lines {
		texts = append(texts, l.Text)
	}
	return texts
}

// say writes output of an attempt as its executor would, lines and then a
// progress, and waits until it is shown.
func (e *env) say(t *testing.T, collection, task uuid.UUID, attempt, seq int64, percent int, lines ...string) {
	t.Helper()
	r := eventlog.OutputRecord{CollectionID: collection, TaskID: task, Run: 1, AttemptID: attempt}
	add := func(entry eventlog.OutputEntry) {
		entry.Seq, entry.At = seq+int64(len(r.Entries)), time.Now().UTC()
		r.Entries = append(r.Entries, entry)
	}
	for _, line := range lines {
		add(eventlog.OutputEntry{Kind: eventlog.OutputLine, Text: line})
	}
	add(eventlog.OutputEntry{Kind: eventlog.OutputProgress, Percent: percent, Text: "working"})
	value, err := eventlog.EncodeOutput(r)
	require.NoError(t, err)
	e.log.AppendOutput(ledger.PartitionOf(collection), nil, value)
	require.Eventually(t, func() bool {
		p := e.output(t, collection, task, fmt.Sprintf("attempt=%d", attempt)).Progress
		return p != nil && p.Percent == percent
	}, patience, 10*time.Millisecond)
}

// What a running task says is shown with the collection, with the task and in
// pages of its own.
func TestShowWhatATaskSays(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(2))
	first := c.Tasks[0].ID
	none := e.output(t, c.ID, first, "")
	require.Equal(t, httpapi.TaskOutput{CollectionID: c.ID, TaskID: first, Lines: []httpapi.OutputLine{}}, none)

	_, attempt := e.hand.start(t, c.ID)
	begun := e.output(t, c.ID, first, "")
	require.Equal(t, &httpapi.OutputAttempt{ID: attempt, Number: 1, Run: 1, Status: "running"}, begun.Attempt)
	require.Nil(t, begun.Progress)
	require.Nil(t, e.get(t, c.ID).Tasks[0].Progress)

	e.say(t, c.ID, first, attempt, 0, 40, "one", "two", "three")
	c = e.get(t, c.ID)
	require.Equal(t, 40, c.Tasks[0].Progress.Percent)
	require.Equal(t, "working", c.Tasks[0].Progress.Text)
	require.WithinDuration(t, time.Now(), c.Tasks[0].Progress.At, patience)
	require.Nil(t, c.Tasks[1].Progress)
	detail := e.getTask(t, c.ID, first)
	require.Equal(t, c.Tasks[0].Progress, detail.Progress)
	require.Equal(t, c.Tasks[0].Progress, detail.AllAttempts[0].Progress)

	page := e.output(t, c.ID, first, "limit=2&after="+url.QueryEscape(*begun.NextAfter))
	require.Equal(t, []string{"one", "two"}, lineTexts(page))
	require.True(t, page.More)
	page = e.output(t, c.ID, first, "after="+url.QueryEscape(*page.NextAfter))
	require.Equal(t, []string{"three"}, lineTexts(page))
	require.Equal(t, []bool{false, false}, []bool{page.More, page.Cut})
	require.Equal(t, c.Tasks[0].Progress, page.Progress)

	// Once it has ended, only its attempt shows how far it came.
	e.write(t, ledger.PartitionOf(c.ID), ledger.TaskSucceeded{
		CollectionID: c.ID, Tenant: "default", Run: 1, TaskID: first, AttemptID: attempt, Worker: "hand",
	})
	require.Nil(t, e.get(t, c.ID).Tasks[0].Progress)
	detail = e.getTask(t, c.ID, first)
	require.Nil(t, detail.Progress)
	require.Equal(t, 40, detail.AllAttempts[0].Progress.Percent)
	require.Equal(t, ledger.StatusSucceeded, e.output(t, c.ID, first, "").Attempt.Status)
	require.Equal(t, []string{"three"}, lineTexts(e.output(t, c.ID, first, "after="+url.QueryEscape(mustNext(t, e, c.ID, first)))))
}

// mustNext is the cursor behind the first two lines.
func mustNext(t *testing.T, e *env, collection, task uuid.UUID) string {
	t.Helper()
	return *e.output(t, collection, task, "limit=2").NextAfter
}

// What was said by an attempt beyond its bounds is marked.
func TestShowThatOutputWasCut(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(1))
	task, attempt := e.hand.start(t, c.ID)
	lines := make([]string, 600)
	e.say(t, c.ID, task.ID, attempt, 0, 1, lines...)
	e.say(t, c.ID, task.ID, attempt, 1000, 2, lines...)
	page := e.output(t, c.ID, task.ID, "limit=1000")
	require.Len(t, page.Lines, 1000)
	require.True(t, page.Cut)
	require.False(t, e.output(t, c.ID, task.ID, "").Cut, "the mark stands at the end")
}

func TestOutputThatIsNotThere(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c, other := e.create(t, chain(1)), e.create(t, chain(1))
	task, attempt := e.hand.start(t, c.ID)
	otherTask, _ := e.hand.start(t, other.ID)
	path := outputPath(c.ID, task.ID)
	for _, p := range []string{
		outputPath(uuid.New(), task.ID), outputPath(c.ID, uuid.New()), outputPath(c.ID, otherTask.ID),
		path + fmt.Sprintf("?attempt=%d", attempt+1000),
	} {
		e.call(t, http.MethodGet, p, "").problem(t, http.StatusNotFound, "not_found")
	}
	foreign := *e.output(t, other.ID, otherTask.ID, "").NextAfter
	for query, location := range map[string]string{
		"after=x": "query.after", "after=AAAA": "query.after", "after=" + foreign + "A": "query.after",
		"after=":                     "query.after",
		"limit=0":                    "query.limit",
		"limit=1001":                 "query.limit",
		"attempt=0":                  "query.attempt",
		"attempt=x":                  "query.attempt",
		"attempt=1&after=" + foreign: "query.after",
		fmt.Sprintf("attempt=%d&after=!", attempt): "query.after",
		"aftr=x": "query.aftr",
		fmt.Sprintf("attempt=%d&attempt=1", attempt): "query.attempt",
	} {
		p := e.call(t, http.MethodGet, path+"?"+query, "").problem(t, http.StatusUnprocessableEntity, "invalid_request")
		require.Equal(t, location, p.Errors[0].Location, query)
	}
	e.call(t, http.MethodGet, "/v1/collections/"+c.ID.String()+"/tasks/x/output", "").problem(t, http.StatusUnprocessableEntity, "invalid_request")
}
