package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// The least time between two reads of one long-poll grows from pollPauseFirst
// to pollPauseMost: a short run is answered at once, and a busy partition does
// not make every reader of it read without end.
const (
	pollPauseFirst = time.Millisecond
	pollPauseMost  = 50 * time.Millisecond
)

// ReadHeaders are the headers that every read takes.
type ReadHeaders struct {
	AtLeast string `doc:"A position from Keten-Position: the answer is not older. 503 when the read model does not get there in 5 s." example:"3:1042" header:"Keten-At-Least"`
}

type listInput struct {
	ReadHeaders

	Status        []ledger.Status `doc:"Only these; may be repeated." enum:"pending,running,succeeded,failed,canceled" nullable:"false" query:"status,explode"`
	Name          string          `doc:"Only collections of exactly this name." maxLength:"200" query:"name"`
	Label         []string        `doc:"Only collections with this label, as name:value; may be repeated, and all must be there." example:"[\"team:web\"]" nullable:"false" query:"label,explode"`
	FailedType    string          `doc:"Only collections whose last run failed at a task of this type." maxLength:"200" query:"failed_type"`
	CreatedAfter  time.Time       `doc:"Only collections created then or later." query:"created_after"`
	CreatedBefore time.Time       `doc:"Only collections created earlier." query:"created_before"`
	Cursor        string          `doc:"next_cursor of the page before." maxLength:"200" query:"cursor"`
	Limit         int             `default:"50" doc:"At most this many." maximum:"500" minimum:"1" query:"limit"`
}

// A CollectionPage is a part of a list.
type CollectionPage struct {
	Collections []CollectionSummary `doc:"Newest first." json:"collections" nullable:"false"`
	NextCursor  *string             `doc:"For the next page; null on the last." json:"next_cursor"`
	Counts      Counts              `doc:"All collections by status, whatever the filters." json:"counts"`
}

// Counts says how many collections are in each status.
type Counts struct {
	Pending   int64 `json:"pending"   minimum:"0"`
	Running   int64 `json:"running"   minimum:"0"`
	Succeeded int64 `json:"succeeded" minimum:"0"`
	Failed    int64 `json:"failed"    minimum:"0"`
	Canceled  int64 `json:"canceled"  minimum:"0"`
}

type listOutput struct{ Body CollectionPage }

// list answers GET /v1/collections.
func (a *API) list(ctx context.Context, in *listInput) (*listOutput, error) {
	labels, err := parseLabels(in.Label)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"name": in.Name, "failed_type": in.FailedType} {
		if err := checkFilter(name, value); err != nil {
			return nil, err
		}
	}
	if err := a.waitAtLeast(ctx, in.AtLeast); err != nil {
		return nil, err
	}
	page, err := a.store.Collections(ctx, readmodel.Filter{
		Tenant: defaultTenant, Status: in.Status, Name: in.Name, FailedType: in.FailedType, Labels: labels,
		CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore, Cursor: in.Cursor, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := &listOutput{Body: CollectionPage{
		Collections: make([]CollectionSummary, len(page.Collections)),
		NextCursor:  optional(page.NextCursor),
		Counts: Counts{
			Pending: page.Counts[ledger.StatusPending], Running: page.Counts[ledger.StatusRunning],
			Succeeded: page.Counts[ledger.StatusSucceeded], Failed: page.Counts[ledger.StatusFailed],
			Canceled: page.Counts[ledger.StatusCanceled],
		},
	}}
	for i := range page.Collections {
		out.Body.Collections[i] = newSummary(&page.Collections[i])
	}
	return out, nil
}

type getInput struct {
	ReadHeaders

	ID   string `doc:"The collection's id." format:"uuid" path:"id"`
	Wait string `doc:"Wait this long, at most 60s, for the last run to end; then answer with what there is." example:"30s" query:"wait"`
}

type collectionOutput struct {
	Position string `doc:"A position of the ledger that the answer shows, for Keten-At-Least." example:"3:1042" header:"Keten-Position"`
	Body     Collection
}

// get answers GET /v1/collections/{id}.
func (a *API) get(ctx context.Context, in *getInput) (*collectionOutput, error) {
	id, err := parseID("id", in.ID)
	if err != nil {
		return nil, err
	}
	wait, err := pollWait(in.Wait)
	if err != nil {
		return nil, err
	}
	if err := a.waitAtLeast(ctx, in.AtLeast); err != nil {
		return nil, err
	}
	c, err := a.store.Collection(ctx, defaultTenant, id)
	if err == nil && wait > 0 {
		c, err = a.untilEnded(ctx, c, wait)
	}
	if err != nil {
		return nil, err
	}
	out := &collectionOutput{Position: formatPosition(c.Position), Body: newCollection(&c)}
	a.addProgress(ctx, &c, out.Body.Tasks)
	return out, nil
}

// untilEnded reads c again whenever its partition moves, until its run has
// ended or the time is over.
func (a *API) untilEnded(ctx context.Context, c readmodel.Collection, wait time.Duration) (readmodel.Collection, error) {
	polling, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	least := pollPauseFirst
	for c.Status == ledger.StatusPending || c.Status == ledger.StatusRunning {
		if _, err := a.store.WaitChange(polling, c.Position); err != nil {
			break
		}
		pause(polling, least)
		least = min(2*least, pollPauseMost)
		next, err := a.store.Collection(ctx, defaultTenant, c.ID)
		if err != nil {
			return c, err
		}
		c = next
	}
	return c, ctx.Err()
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

type getTaskInput struct {
	ReadHeaders

	ID   string `doc:"The collection's id." format:"uuid" path:"id"`
	Task string `doc:"The task's id." format:"uuid" path:"task"`
}

type taskOutput struct {
	Position string `doc:"A position of the ledger that the answer shows, for Keten-At-Least." example:"3:1042" header:"Keten-Position"`
	Body     TaskDetail
}

// getTask answers GET /v1/collections/{id}/tasks/{task}.
func (a *API) getTask(ctx context.Context, in *getTaskInput) (*taskOutput, error) {
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
	c, err := a.store.Collection(ctx, defaultTenant, id)
	if err != nil {
		return nil, err
	}
	task := findTask(&c, taskID)
	if task == nil {
		return nil, noSuchTask()
	}
	attempts, err := a.store.Attempts(ctx, defaultTenant, taskID)
	if err != nil {
		return nil, err
	}
	out := &taskOutput{
		Position: formatPosition(c.Position),
		Body:     TaskDetail{Task: newTask(task), CollectionID: id, AllAttempts: make([]Attempt, len(attempts))},
	}
	for i := range attempts {
		out.Body.AllAttempts[i] = newAttempt(&attempts[i])
	}
	a.addAttemptProgress(ctx, &out.Body)
	return out, nil
}

func findTask(c *readmodel.Collection, id uuid.UUID) *readmodel.Task {
	for i := range c.Tasks {
		if c.Tasks[i].Definition.ID == id {
			return &c.Tasks[i]
		}
	}
	return nil
}
