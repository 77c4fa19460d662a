package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// progressWait bounds how long tables of output that do not answer, such as ones
// that are locked, hold up an answer about state.
const progressWait = 2 * time.Second

// A Progress is how far an attempt has come, by its handler's own word.
type Progress struct {
	Percent int       `maximum:"100" minimum:"0" json:"percent"`
	Text    string    `doc:"What it is doing." json:"text"`
	At      time.Time `doc:"By the worker's clock." json:"at"`
}

// An OutputLine is one line of an attempt's log.
type OutputLine struct {
	Seq  int64     `doc:"Grows with every line of the attempt, with gaps." minimum:"0" json:"seq"`
	At   time.Time `doc:"By the worker's clock." json:"at"`
	Text string    `json:"text"`
}

// A TaskOutput is a part of what one attempt said.
type TaskOutput struct {
	CollectionID uuid.UUID      `format:"uuid" json:"collection_id"`
	TaskID       uuid.UUID      `format:"uuid" json:"task_id"`
	Attempt      *OutputAttempt `doc:"Whose output this is; null when the task was never started." json:"attempt"`
	Progress     *Progress      `doc:"The newest; null when the handler has said nothing of it." json:"progress"`
	Lines        []OutputLine   `doc:"Oldest first." json:"lines" nullable:"false"`
	NextAfter    *string        `doc:"Sent as after it brings the lines behind these, also those that are not there yet. Null without an attempt." json:"next_after"`
	More         bool           `doc:"Whether there are lines behind these now." json:"more"`
	Cut          bool           `doc:"Whether lines behind these were left out because the attempt said too much: 1,000 lines and 256 KiB are kept." json:"cut"`
}

// An OutputAttempt names an attempt.
type OutputAttempt struct {
	ID     int64         `doc:"As in all_attempts of the task." minimum:"0" json:"id"`
	Number int           `doc:"From 1, over all runs." minimum:"1" json:"number"`
	Run    int           `minimum:"1" json:"run"`
	Status ledger.Status `enum:"running,deferred,succeeded,failed,superseded,not_started" json:"status"`
}

// TransformSchema implements [huma.SchemaTransformer].
func (TaskOutput) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return withNull(s, "attempt", "progress")
}

type getOutputInput struct {
	ReadHeaders

	ID      string `doc:"The collection's id." format:"uuid" path:"id"`
	Task    string `doc:"The task's id." format:"uuid" path:"task"`
	Attempt int64  `doc:"The attempt's id; the newest one's when it is not there." minimum:"1" query:"attempt"`
	After   string `doc:"next_after of the page before." maxLength:"200" query:"after"`
	Limit   int    `default:"100" doc:"At most this many lines." maximum:"1000" minimum:"1" query:"limit"`
}

type getOutputOutput struct{ Body TaskOutput }

func (a *API) routeOutput() {
	register(a, huma.Operation{
		OperationID: "get-task-output", Method: http.MethodGet, Path: "/v1/collections/{id}/tasks/{task}/output", Tags: []string{"collections"},
		Summary: "Show what an attempt of a task says",
		Description: "Log lines and progress, visible while the task runs and for 45 days. They are no part of the ledger: " +
			"some may be missing, and they may come a moment later than the attempt's end.",
	}, []string{codeNotFound, codeUnavailable, codeBehind}, a.getOutput)
}

// getOutput answers GET /v1/collections/{id}/tasks/{task}/output.
func (a *API) getOutput(ctx context.Context, in *getOutputInput) (*getOutputOutput, error) {
	id, err := parseID("id", in.ID)
	if err != nil {
		return nil, err
	}
	taskID, err := parseID("task", in.Task)
	if err != nil {
		return nil, err
	}
	if err := a.waitAtLeast(ctx, in.AtLeast); err != nil {
		return nil, err
	}
	filter := readmodel.OutputFilter{
		Tenant: defaultTenant, Collection: id, Task: taskID, Attempt: in.Attempt, After: in.After, Limit: in.Limit,
	}
	if in.Attempt == 0 {
		filter.Attempt = -1
	}
	page, err := a.store.Output(ctx, filter)
	switch {
	case errors.Is(err, readmodel.ErrBadCursor):
		return nil, badParameter("query.after", "is not a next_after of this attempt")
	case errors.Is(err, readmodel.ErrNoTask):
		return nil, noSuchTask()
	case errors.Is(err, readmodel.ErrNoAttempt):
		return nil, noSuchAttempt()
	case err != nil:
		return nil, err
	}
	return &getOutputOutput{Body: newTaskOutput(id, taskID, page)}, nil
}

func newTaskOutput(collection, task uuid.UUID, page readmodel.OutputPage) TaskOutput {
	out := TaskOutput{
		CollectionID: collection, TaskID: task, Lines: make([]OutputLine, len(page.Lines)),
		NextAfter: optional(page.Next), More: page.More, Cut: page.Cut,
	}
	for i, l := range page.Lines {
		out.Lines[i] = OutputLine(l)
	}
	if at := page.Attempt; at != nil {
		out.Attempt = &OutputAttempt{ID: at.ID, Number: at.Number, Run: at.Run, Status: at.Status}
	}
	if page.Progress != nil {
		out.Progress = newProgress(*page.Progress)
	}
	return out
}

func newProgress(p readmodel.Progress) *Progress {
	return &Progress{Percent: p.Percent, Text: p.Text, At: p.At}
}

// addProgress shows how far the running tasks of c have come. out are those of
// c.
func (a *API) addProgress(ctx context.Context, c *readmodel.Collection, out []Task) {
	var running []int64
	for i := range c.Tasks {
		if c.Tasks[i].Status == ledger.StatusRunning {
			running = append(running, c.Tasks[i].AttemptID)
		}
	}
	if len(running) == 0 {
		return
	}
	progress := a.progress(ctx, c.ID, running)
	for i := range c.Tasks {
		if p, ok := progress[c.Tasks[i].AttemptID]; ok && c.Tasks[i].Status == ledger.StatusRunning {
			out[i].Progress = newProgress(p)
		}
	}
}

// addAttemptProgress shows how far a task's attempts have come or came.
func (a *API) addAttemptProgress(ctx context.Context, detail *TaskDetail) {
	ids := make([]int64, len(detail.AllAttempts))
	for i := range detail.AllAttempts {
		ids[i] = detail.AllAttempts[i].ID
	}
	if len(ids) == 0 {
		return
	}
	progress := a.progress(ctx, detail.CollectionID, ids)
	for i := range detail.AllAttempts {
		at := &detail.AllAttempts[i]
		p, ok := progress[at.ID]
		if !ok {
			continue
		}
		at.Progress = newProgress(p)
		if at.Status == ledger.StatusRunning && detail.Status == ledger.StatusRunning {
			detail.Progress = at.Progress
		}
	}
}

// progress reads how far attempts have come. It is an extra: when it cannot be
// read, what is known of state is answered without it. That is logged when it
// begins and when it is over, not with each request.
func (a *API) progress(ctx context.Context, collection uuid.UUID, attempts []int64) map[int64]readmodel.Progress {
	reading, cancel := context.WithTimeout(ctx, progressWait)
	defer cancel()
	progress, err := a.store.Progress(reading, ledger.PartitionOf(collection), attempts)
	switch {
	case ctx.Err() != nil: // the client went away, which says nothing of the tables
	case err == nil:
		if a.progressFails.CompareAndSwap(true, false) {
			a.logger.InfoContext(ctx, "progress of tasks is read again")
		}
	case a.progressFails.CompareAndSwap(false, true):
		a.logger.WarnContext(ctx, "progress of tasks cannot be read; answers are given without it", slog.Any("error", err))
	}
	return progress
}
