package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// A RetryRequest asks for another run of what did not succeed.
type RetryRequest struct {
	_ struct{} `additionalProperties:"false"`

	Run    *int   `doc:"The run to be retried, as it was shown; another one meanwhile is a conflict. Default: the current one." example:"1" json:"run,omitempty" minimum:"1"`
	Reason string `doc:"Why, for the history." example:"challenge file is in place now" json:"reason,omitempty" maxLength:"4096"`
}

type retryInput struct {
	CommandHeaders

	ID string `doc:"The collection's id." format:"uuid" path:"id"`
}

// A retrial is one request to retry while it is decided.
type retrial struct {
	id      uuid.UUID
	request *RetryRequest
	key     string
	hash    string
	// run is the run to be retried. Without one in the request it is what the
	// first look shows: deciding again must not retry a run that nobody has
	// seen fail.
	run int
}

// retry answers POST /v1/collections/{id}/retry.
func (a *API) retry(ctx context.Context, in *retryInput) (*commandOutput, error) {
	id, err := parseID("id", in.ID)
	if err != nil {
		return nil, err
	}
	request, err := decode[RetryRequest](ctx)
	if err != nil {
		return nil, err
	}
	if err := checkRetryRequest(request, in.Key); err != nil {
		return nil, err
	}
	r := &retrial{id: id, request: request, key: in.Key}
	if request.Run != nil {
		r.run = *request.Run
	}
	if r.hash, err = ledger.RequestHash("POST "+collectionPath(id)+"/retry", infoOf(ctx).body); err != nil {
		return nil, badBody("", err)
	}
	return a.command(ctx, in.Prefer, func(ctx context.Context) (*proposal, *commandOutput, error) {
		return a.decideRetry(ctx, r)
	})
}

func checkRetryRequest(r *RetryRequest, key string) error {
	if r.Run != nil && *r.Run < 1 {
		return badFields(codeInvalid, []FieldError{fieldError("/run", "must be at least 1")})
	}
	if err := ledger.CheckText("/reason", r.Reason, ledger.MaxMessageBytes); err != nil {
		return badBody("", err)
	}
	if err := ledger.CheckText("", key, ledger.MaxKeyBytes); err != nil {
		return badParameter("header."+headerIdempotencyKey, "%v", err)
	}
	return nil
}

// decideRetry looks at the row and proposes the retry of its failed run.
func (a *API) decideRetry(ctx context.Context, r *retrial) (*proposal, *commandOutput, error) {
	row, asOf, err := a.store.ForCommand(ctx, defaultTenant, r.id)
	switch {
	case err != nil:
		return nil, nil, err
	case row == nil:
		return nil, nil, noSuchCollection()
	}
	if out, err := a.retriedBefore(ctx, r, row); err != nil || out != nil {
		return nil, out, err
	}
	if r.run == 0 {
		r.run = row.Run
	}
	switch {
	case r.run != row.Run:
		return nil, nil, runChanged(r.run, row.Run, row.Status)
	case !retryable(row.Status):
		return nil, nil, notRetryable(row.Status)
	}
	first := firstUndone(row)
	if first == len(row.Tasks) { // no run ends otherwise with all tasks succeeded
		return nil, nil, notRetryable(row.Status)
	}
	if err := a.checkWindow(ctx, ledger.PartitionOf(r.id), asOf); err != nil {
		return nil, nil, err
	}
	return &proposal{
		partition: ledger.PartitionOf(r.id),
		event:     retryEvent(ctx, r, row, first, asOf),
		answer:    retriedCollection(row, first),
	}, nil, nil
}

// retriedBefore answers a retry that was taken before under the same
// Idempotency-Key.
func (a *API) retriedBefore(ctx context.Context, r *retrial, row *readmodel.Collection) (*commandOutput, error) {
	if r.key == "" {
		return nil, nil
	}
	runs, err := a.store.Runs(ctx, defaultTenant, r.id)
	if err != nil {
		return nil, err
	}
	for i := range runs {
		switch {
		case runs[i].Run == 1 || runs[i].IdempotencyKey != r.key:
		case runs[i].RequestHash != r.hash:
			return nil, keyReused()
		default:
			return &commandOutput{
				Status: http.StatusAccepted, Location: collectionPath(r.id), Position: formatPosition(row.Position),
				Command: runs[i].EventID.String(), Verdict: "accepted", Body: newCollection(row),
			}, nil
		}
	}
	return nil, nil
}

// firstUndone is the index of the first task that has not succeeded.
func firstUndone(row *readmodel.Collection) int {
	for i := range row.Tasks {
		if row.Tasks[i].Status != ledger.StatusSucceeded {
			return i
		}
	}
	return len(row.Tasks)
}

// retryEvent carries the suffix from first on: all that is needed to run it.
func retryEvent(ctx context.Context, r *retrial, row *readmodel.Collection, first int, asOf int64) ledger.RetryRequested {
	suffix := make([]ledger.Task, 0, len(row.Tasks)-first)
	for i := first; i < len(row.Tasks); i++ {
		t := row.Tasks[i].Definition
		t.Attempts = row.Tasks[i].Attempts
		suffix = append(suffix, t)
	}
	var input json.RawMessage
	if first > 0 {
		input = row.Tasks[first-1].Result
	}
	return ledger.RetryRequested{
		CollectionID: r.id, Tenant: defaultTenant, Run: row.Run + 1, AsOf: asOf, Name: row.Name, Template: row.Template,
		Labels: row.Labels, OrderingKey: row.OrderingKey, IdempotencyKey: r.key, RequestHash: r.hash,
		Reason: r.request.Reason, Actor: infoOf(ctx).actor(), Input: input, TaskCount: len(row.Tasks), Tasks: suffix,
	}
}
