package httpapi

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// lookWait bounds a look at the attempt's row. Before an outcome is appended it
// only saves a record that would be refused, so a read model that is away must
// not hold it up.
const lookWait = 500 * time.Millisecond

// outcomeTokenScheme names the tokens in the OpenAPI document.
const outcomeTokenScheme = "outcomeToken"

// An OutcomeRequest is what became of a deferred attempt.
type OutcomeRequest struct {
	_ struct{} `additionalProperties:"false"`

	Status       ledger.Status   `doc:"What became of it." enum:"succeeded,failed" example:"succeeded" json:"status"`
	Result       json.RawMessage `doc:"Only with succeeded. Any JSON that fits the type's result_schema: at most 256 KiB and 64 levels. Kept digit for digit; the next task gets it." example:"{\"approved\":true}" json:"result,omitempty"`
	Message      string          `doc:"Only with succeeded. For people, beside the result; at most 4,096 bytes." json:"message,omitempty" maxLength:"4096"`
	Error        *OutcomeError   `doc:"Only with failed, and needed then." json:"error,omitempty"`
	RetryAfterMS int64           `doc:"Only with failed: when the next attempt is to be made, instead of the task's back-off. Implies retryable." json:"retry_after_ms,omitempty" maximum:"86400000" minimum:"0"`
}

// An OutcomeError says why an attempt failed.
type OutcomeError struct {
	_ struct{} `additionalProperties:"false"`

	Code      string          `default:"failed" doc:"For programs." example:"rejected" json:"code,omitempty" maxLength:"200"`
	Message   string          `doc:"For people; at most 4,096 bytes." json:"message,omitempty" maxLength:"4096"`
	Detail    string          `doc:"For operators, such as the end of a log; at most 65,536 bytes." json:"detail,omitempty" maxLength:"65536"`
	Audience  ledger.Audience `default:"operator" doc:"Who can do something about it." enum:"user,operator" json:"audience,omitempty"`
	Retryable bool            `doc:"Whether another attempt may help: it is made by itself as long as the task's max_attempts allow." json:"retryable,omitempty"`
}

// A ReportedOutcome is a report as the ledger took it.
type ReportedOutcome struct {
	CollectionID uuid.UUID     `format:"uuid" json:"collection_id"`
	TaskID       uuid.UUID     `format:"uuid" json:"task_id"`
	Run          int           `json:"run" minimum:"1"`
	AttemptID    int64         `json:"attempt_id" minimum:"0"`
	Status       ledger.Status `doc:"As reported." enum:"succeeded,failed" json:"status"`
	Verdict      string        `doc:"accepted: it counts. pending: the verdict did not come within the wait; the same request again tells it." enum:"accepted,pending" json:"verdict"`
	RecordedAt   *time.Time    `doc:"When the ledger recorded the outcome; null while that is not known." json:"recorded_at"`
}

type outcomeInput struct {
	ID            string `doc:"The task's id." format:"uuid" path:"id"`
	Prefer        string `doc:"wait=n: wait at most n seconds (0 to 60, default 2) for the ledger's verdict." example:"wait=10" header:"Prefer"`
	Authorization string `header:"Authorization" hidden:"true"` // documented as a security scheme
}

type outcomeOutput struct {
	Status     int
	Position   string `doc:"A position of the ledger behind the outcome's record, for Keten-At-Least." example:"3:1042" header:"Keten-Position"`
	Verdict    string `doc:"accepted or pending, as in the body." enum:"accepted,pending" header:"Keten-Verdict"`
	Applied    string `doc:"wait=n when the request prefers it." header:"Preference-Applied"`
	RetryAfter string `doc:"When it is pending: seconds to wait before asking again." header:"Retry-After"`
	Body       ReportedOutcome
}

func (a *API) routeOutcome() {
	const path = "/v1/tasks/{id}/outcome"
	codes := []string{codeInvalidToken, codeAttemptClosed, codeRefused, codeNoOutcomes, codeOutcomeUnknown, codeOverloaded}
	register(a, huma.Operation{
		OperationID: "report-outcome", Method: http.MethodPost, Path: path, Tags: []string{"outcomes"},
		Summary: "Report the outcome of a deferred task",
		Description: "For workers and people outside, with the token that the task's handler handed out. The first outcome of an attempt counts. " +
			"It is safe to send the same request again: an equal outcome (status, result, message and error) is answered as the first time, another one 409. " +
			"409 also says that the attempt has ended otherwise, by its timeout or a cancel: whatever is still under way may be dropped.",
		Security:    []map[string][]string{{outcomeTokenScheme: {}}},
		RequestBody: requestBody[OutcomeRequest](a, true),
	}, codes, a.reportOutcome)
	op := a.documented(http.MethodPost, path)
	taken, pending := op.Responses["200"], *op.Responses["200"]
	taken.Description = "The outcome counts."
	pending.Description = "The outcome is in the ledger, its verdict is not known yet."
	op.Responses["202"] = &pending
}

// A report is an outcome under way into the ledger.
type report struct {
	claims    outcometoken.Claims
	eventID   uuid.UUID
	succeeded *ledger.TaskSucceeded // one of the two is nil
	failed    *ledger.TaskFailed
}

func (r *report) partition() int32 { return ledger.PartitionOf(r.claims.Collection) }

func (r *report) event() ledger.Event {
	if r.succeeded != nil {
		return *r.succeeded
	}
	return *r.failed
}

// reportOutcome answers POST /v1/tasks/{id}/outcome. The token has all that the
// event needs, so that a projection that lags or is away holds nothing up.
func (a *API) reportOutcome(ctx context.Context, in *outcomeInput) (*outcomeOutput, error) {
	id, err := parseID("id", in.ID)
	if err != nil {
		return nil, err
	}
	claims, err := a.claimsFor(id, in.Authorization)
	if err != nil {
		return nil, err
	}
	r, err := a.newReport(ctx, claims)
	if err != nil {
		return nil, err
	}
	out, _, err := a.settled(ctx, r, lookWait)
	if out == nil && err == nil {
		out, err = a.submitReport(ctx, r, in.Prefer)
	}
	return out, err
}

// claimsFor checks the token of a request about a task.
func (a *API) claimsFor(task uuid.UUID, authorization string) (outcometoken.Claims, error) {
	if a.cfg.OutcomeKey == nil {
		return outcometoken.Claims{}, noOutcomes()
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return outcometoken.Claims{}, noToken()
	}
	claims, err := a.cfg.OutcomeKey.Verify(strings.TrimSpace(token), time.Now())
	switch {
	case err != nil:
		return claims, invalidToken(err.Error())
	case claims.Ledger != a.cfg.LedgerID:
		return claims, invalidToken("the token belongs to another ledger")
	case claims.Task != task:
		return claims, invalidToken("the token belongs to another task")
	}
	return claims, nil
}

// newReport reads the body of the request in ctx.
func (a *API) newReport(ctx context.Context, c outcometoken.Claims) (*report, error) {
	request, err := decode[OutcomeRequest](ctx)
	if err != nil {
		return nil, err
	}
	if fields := misplaced(request); len(fields) > 0 {
		return nil, badFields(codeInvalid, fields)
	}
	r := &report{claims: c}
	if r.eventID, err = reportID(c, infoOf(ctx).body); err != nil {
		return nil, badBody("", err)
	}
	if request.Status == ledger.StatusFailed {
		r.failed = failedEvent(c, request)
		return r, nil
	}
	r.succeeded = &ledger.TaskSucceeded{
		CollectionID: c.Collection, Tenant: c.Tenant, Run: c.Run, TaskID: c.Task, AttemptID: c.AttemptID, Worker: c.Worker,
		Result: request.Result, Message: request.Message,
	}
	return r, a.checkReported(c.Type, request.Result)
}

// misplaced says which members do not go with the status.
func misplaced(r *OutcomeRequest) []FieldError {
	var fields []FieldError
	refuse := func(there bool, path, message string) {
		if there {
			fields = append(fields, fieldError(path, message))
		}
	}
	switch r.Status {
	case ledger.StatusSucceeded:
		refuse(r.Error != nil, "/error", "goes with status failed only")
		refuse(r.RetryAfterMS != 0, "/retry_after_ms", "goes with status failed only")
	case ledger.StatusFailed:
		refuse(len(r.Result) > 0, "/result", "goes with status succeeded only")
		refuse(r.Message != "", "/message", "goes with status succeeded only; error has a message of its own")
		refuse(r.Error == nil, "/error", "is required with status failed")
	default:
		refuse(true, "/status", "must be succeeded or failed")
	}
	return fields
}

// checkReported holds a result to what an executor's would be held to: the gate
// of the ledger and the type's result_schema. A type that only a handler in Go
// knows has none.
func (a *API) checkReported(taskType string, result json.RawMessage) error {
	if len(result) > 0 {
		if err := ledger.CheckPayload(result); err != nil {
			return badBody("/result", err)
		}
	}
	err := a.cfg.Catalog.CheckResult(taskType, result)
	var invalid *catalog.ValidationError
	switch {
	case errors.As(err, &invalid):
		return badFields(codeInvalid, violations("/result", invalid))
	case errors.Is(err, catalog.ErrUnknownType):
		return nil
	}
	return err
}

// failedEvent fills in the defaults that a handler's error has, too.
func failedEvent(c outcometoken.Claims, r *OutcomeRequest) *ledger.TaskFailed {
	e := ledger.TaskError{
		Code: r.Error.Code, Message: r.Error.Message, Detail: r.Error.Detail, Audience: r.Error.Audience,
		Retryable: r.Error.Retryable || r.RetryAfterMS > 0,
	}
	if e.Code == "" {
		e.Code = "failed"
	}
	if e.Audience == "" {
		e.Audience = ledger.AudienceOperator
	}
	return &ledger.TaskFailed{
		CollectionID: c.Collection, Tenant: c.Tenant, Run: c.Run, TaskID: c.Task, AttemptID: c.AttemptID, Worker: c.Worker,
		Error: e, RetryAfterMS: r.RetryAfterMS,
	}
}

// reportID is a UUIDv7 that is the same whenever the same request is made about
// the same attempt: to readers of the log a repeated report is a repeated event.
// Its time is that of the token.
func reportID(c outcometoken.Claims, body []byte) (uuid.UUID, error) {
	attempt := c.Task.String() + " " + formatPosition(readmodel.Position{Partition: ledger.PartitionOf(c.Task), Offset: c.AttemptID})
	text, err := ledger.RequestHash("POST /v1/tasks/{id}/outcome "+attempt, body)
	if err != nil {
		return uuid.Nil, err
	}
	hash, err := hex.DecodeString(text)
	if err != nil {
		return uuid.Nil, err
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(c.Issued.UnixMilli()))
	id := uuid.UUID(hash[:16])
	copy(id[:6], ms[2:])
	id[6] = 7<<4 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id, nil
}

// submitReport appends a report and answers with its verdict.
func (a *API) submitReport(ctx context.Context, r *report, prefer string) (*outcomeOutput, error) {
	behind, err := a.appendEvent(ctx, r.eventID, r.partition(), r.event())
	if lost, ok := errors.AsType[*appendError](err); ok {
		return nil, reportLost(lost.err)
	}
	if err != nil {
		return nil, err
	}
	wait, applied := verdictWait(prefer)
	verdict, reason := a.awaitVerdict(ctx, behind, wait, func(ctx context.Context) (ledger.Verdict, ledger.Reason, error) {
		return a.store.Verdict(ctx, behind.Partition, behind.Offset-1)
	})
	out, err := a.judged(ctx, r, behind, verdict, reason)
	if err != nil {
		return nil, err
	}
	out.Applied = applied
	return out, nil
}

// judged answers for a report with this verdict, "" while it is not known.
func (a *API) judged(
	ctx context.Context, r *report, behind readmodel.Position, verdict ledger.Verdict, reason ledger.Reason,
) (*outcomeOutput, error) {
	if verdict == "" {
		return r.pending(behind), nil
	}
	out, known, err := a.settled(ctx, r, lookWait)
	switch {
	case verdict == ledger.Accepted && (out == nil || err != nil):
		return r.answer(behind), nil // only when it was recorded is not known
	case out != nil || err != nil: // it came too late, perhaps because the same one came before
		return out, err
	case !known: // whether it is the outcome that counts cannot be told now
		return r.pending(behind), nil
	}
	return nil, refused(verdict, reason)
}

// settled answers for an attempt that is closed: as the first time when it was by
// an equal outcome, else with a problem. It answers nothing for one that is open
// or not there, and when that cannot be learned within wait: known tells.
func (a *API) settled(ctx context.Context, r *report, wait time.Duration) (out *outcomeOutput, known bool, err error) {
	looking, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	row, at, err := a.store.Attempt(looking, r.claims.Tenant, r.claims.Task, r.claims.AttemptID)
	switch {
	case errors.Is(err, readmodel.ErrNotFound):
		return nil, true, nil
	case err != nil:
		a.logger.DebugContext(ctx, "attempt could not be read", slog.Any("error", err))
		return nil, false, nil
	case row.Status == ledger.StatusRunning, row.Status == ledger.StatusDeferred:
		return nil, true, nil
	case !r.equals(&row):
		return nil, true, attemptClosed(&row)
	}
	out = r.answer(at)
	out.Body.RecordedAt = row.FinishedAt
	return out, true, nil
}

// equals reports whether the attempt was closed by an outcome like this. Of
// retry_after_ms the row knows nothing.
func (r *report) equals(row *readmodel.Attempt) bool {
	if r.failed != nil {
		return row.Status == ledger.StatusFailed && row.Error != nil && *row.Error == r.failed.Error
	}
	return row.Status == ledger.StatusSucceeded && row.Message == r.succeeded.Message && sameJSON(row.Result, r.succeeded.Result)
}

// sameJSON compares values whatever the order of their members and their white
// space. No value is null.
func sameJSON(x, y json.RawMessage) bool {
	hashes := [2]string{}
	for i, v := range []json.RawMessage{x, y} {
		if len(v) == 0 {
			v = json.RawMessage("null")
		}
		var err error
		if hashes[i], err = ledger.RequestHash("", v); err != nil {
			return false // cannot be: both have passed the gate
		}
	}
	return hashes[0] == hashes[1]
}

// answer says that the outcome was accepted, at a position behind its record.
func (r *report) answer(behind readmodel.Position) *outcomeOutput {
	status := ledger.StatusSucceeded
	if r.failed != nil {
		status = ledger.StatusFailed
	}
	return &outcomeOutput{
		Status: http.StatusOK, Position: formatPosition(behind), Verdict: "accepted",
		Body: ReportedOutcome{
			CollectionID: r.claims.Collection, TaskID: r.claims.Task, Run: r.claims.Run, AttemptID: r.claims.AttemptID,
			Status: status, Verdict: "accepted",
		},
	}
}

// pending says that the outcome is in the ledger, and no more.
func (r *report) pending(behind readmodel.Position) *outcomeOutput {
	out := r.answer(behind)
	out.Status, out.RetryAfter = http.StatusAccepted, "1"
	out.Verdict, out.Body.Verdict = "pending", "pending"
	return out
}
