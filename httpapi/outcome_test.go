package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/ledger"
)

// approval is a chain of two, whose first task has a result_schema.
const approval = `{"name":"n","tasks":[{"name":"ask","type":"approval"},{"name":"go","type":"` + typeGo + `"}]}`

const (
	approved = `{"status":"succeeded","result":{"by":"Ann","n":12345678901234567890},"message":"all is well"}`
	rejected = `{"status":"failed","error":{"code":"rejected","message":"not on Fridays","audience":"user"}}`
)

// An asked is an attempt whose outcome comes from outside.
type asked struct {
	e       *env
	id      uuid.UUID
	task    httpapi.Task
	attempt int64
	token   string
}

// ask starts the first task of a collection and makes its token; the attempt is
// not deferred yet.
func (e *env) ask(t *testing.T, body string) *asked {
	t.Helper()
	a := &asked{e: e, id: e.create(t, body).ID}
	a.again(t)
	return a
}

// again starts the task once more.
func (a *asked) again(t *testing.T) {
	t.Helper()
	a.task, a.attempt = a.e.hand.start(t, a.id)
	a.token = a.e.key.Mint(a.claims())
}

func (a *asked) claims() outcometoken.Claims {
	now := time.Now()
	return outcometoken.Claims{
		Ledger: a.e.log.Info().LedgerID, Tenant: "default", Collection: a.id, Run: 1, Task: a.task.ID, Type: a.task.Type,
		AttemptID: a.attempt, Worker: "hand", Issued: now, Expiry: now.Add(time.Hour),
	}
}

// deferred is ask with its TaskDeferred.
func (e *env) deferred(t *testing.T, body string) *asked {
	t.Helper()
	a := e.ask(t, body)
	a.later(t)
	return a
}

func (a *asked) later(t *testing.T) {
	t.Helper()
	a.e.write(t, ledger.PartitionOf(a.id), ledger.TaskDeferred{
		CollectionID: a.id, Tenant: "default", Run: 1, TaskID: a.task.ID, AttemptID: a.attempt, Worker: "hand",
	})
}

func (a *asked) path() string { return "/v1/tasks/" + a.task.ID.String() + "/outcome" }

func (a *asked) report(t *testing.T, body string, header ...string) reply {
	t.Helper()
	return a.e.call(t, http.MethodPost, a.path(), body, append(header, "Authorization", "Bearer "+a.token)...)
}

func (r reply) outcome(t *testing.T, status int) httpapi.ReportedOutcome {
	t.Helper()
	require.Equal(t, status, r.status, "%s", r.body)
	var o httpapi.ReportedOutcome
	r.into(t, &o)
	require.Equal(t, r.header.Get("Keten-Verdict"), o.Verdict)
	return o
}

// An outcome from outside is recorded in the name of the attempt's worker, and
// the chain goes on with its result. Whoever reports it again is answered as the
// first time, however it is written; who reports another one is told.
func TestReportedOutcomeCountsOnce(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := e.deferred(t, approval)
	first := a.report(t, approved)
	o := first.outcome(t, http.StatusOK)
	require.NotNil(t, o.RecordedAt)
	require.Equal(t, httpapi.ReportedOutcome{
		CollectionID: a.id, TaskID: a.task.ID, Run: 1, AttemptID: a.attempt, Status: ledger.StatusSucceeded, Verdict: "accepted",
		RecordedAt: o.RecordedAt,
	}, o)

	c := e.get(t, a.id, "Keten-At-Least", first.header.Get("Keten-Position"))
	require.Equal(t, []ledger.Status{ledger.StatusSucceeded, ledger.StatusPending}, statuses(c))
	require.Contains(t, string(c.Tasks[0].Result), `"n":12345678901234567890`)
	require.Equal(t, "all is well", *c.Tasks[0].Message)
	list, records := events[ledger.TaskSucceeded](t, e)
	require.Equal(t, []ledger.TaskSucceeded{{
		CollectionID: a.id, Tenant: "default", Run: 1, TaskID: a.task.ID, AttemptID: a.attempt, Worker: "hand",
		Result: json.RawMessage(`{"by":"Ann","n":12345678901234567890}`), Message: "all is well",
	}}, list)
	require.Equal(t, ledger.Source(e.log.Info().LedgerID, "api"), header(records[0], ledger.HeaderSource))

	before := len(e.records(t, t.Context()))
	for _, again := range []string{approved, `{"message": "all is well", "result": {"n": 12345678901234567890, "by": "Ann"}, "status": "succeeded"}`} {
		r := a.report(t, again)
		require.Equal(t, http.StatusOK, r.status, "%s", r.body)
		require.Equal(t, string(first.body), string(r.body))
	}
	for _, other := range []string{
		rejected, `{"status":"succeeded","result":{"by":"Ann","n":12345678901234567891},"message":"all is well"}`,
		`{"status":"succeeded","result":{"by":"Ann","n":12345678901234567890}}`,
	} {
		p := a.report(t, other).problem(t, http.StatusConflict, "attempt_closed")
		require.Contains(t, p.Detail, "has ended as succeeded")
	}
	require.Len(t, e.records(t, t.Context()), before)
}

func header(r ledger.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// A failure from outside is one like any: with the defaults of a handler's, and
// followed by another attempt where it says so.
func TestReportedFailure(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := e.deferred(t, approval)
	failed := `{"status":"failed","error":{"message":"busy","detail":"line 1"},"retry_after_ms":60000}`
	a.report(t, failed).outcome(t, http.StatusOK)
	require.Equal(t, []ledger.Status{ledger.StatusWaiting, ledger.StatusPending}, statuses(e.get(t, a.id)))
	list, _ := events[ledger.TaskFailed](t, e)
	require.Equal(t, ledger.TaskError{Code: "failed", Message: "busy", Detail: "line 1", Audience: ledger.AudienceOperator, Retryable: true}, list[0].Error)
	require.Equal(t, int64(60_000), list[0].RetryAfterMS)
	require.Nil(t, list[0].ByClaim)

	old := *a
	a.again(t)
	require.Equal(t, ledger.StatusFailed, old.report(t, failed).outcome(t, http.StatusOK).Status, "the first attempt's is still known")
	old.report(t, approved).problem(t, http.StatusConflict, "attempt_closed")
	a.report(t, rejected).outcome(t, http.StatusOK)
	c := e.get(t, a.id)
	require.Equal(t, ledger.StatusFailed, c.Status)
	require.Equal(t, &httpapi.TaskError{Code: "rejected", Message: "not on Fridays", Audience: ledger.AudienceUser}, c.Error)
}

// The world outside can be faster than the record of the deferral.
func TestOutcomeBeforeTheDeferral(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := e.ask(t, approval)
	a.report(t, approved).outcome(t, http.StatusOK)
	a.later(t)
	require.Equal(t, []ledger.Status{ledger.StatusSucceeded, ledger.StatusPending}, statuses(e.get(t, a.id)))
	a.report(t, approved).outcome(t, http.StatusOK)
}

// Only who has the token of the attempt may report, and only as long as it is
// good.
func TestBadOutcomeTokens(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a, other := e.deferred(t, approval), e.deferred(t, approval)
	stranger, err := outcometoken.ParseKey(outcometoken.GenerateKey())
	require.NoError(t, err)
	expired, elsewhere := a.claims(), a.claims()
	expired.Expiry = time.Now()
	elsewhere.Ledger = uuid.New()
	tampered := "A"
	if strings.HasSuffix(a.token, "A") {
		tampered = "E"
	}
	e.nothingIsAppended(t)
	for name, tt := range map[string]struct{ header, detail string }{
		"another scheme":           {"Basic " + a.token, "Send the token"},
		"the token alone":          {a.token, "Send the token"},
		"no token":                 {"Bearer ", "not an outcome token"},
		"an API key":               {"Bearer keten_1_secret", "not an outcome token"},
		"a tampered one":           {"Bearer " + a.token[:len(a.token)-1] + tampered, "no key here has made it"},
		"one of another key":       {"Bearer " + stranger.Mint(a.claims()), "no key here has made it"},
		"an expired one":           {"Bearer " + e.key.Mint(expired), "expired at"},
		"one of another task":      {"Bearer " + other.token, "another task"},
		"one of another ledger":    {"Bearer " + e.key.Mint(elsewhere), "another ledger"},
		"two tokens in one header": {"Bearer " + a.token + " " + a.token, "no key here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := e.call(t, http.MethodPost, a.path(), approved, "Authorization", tt.header)
			p := r.problem(t, http.StatusUnauthorized, "invalid_token")
			require.Contains(t, p.Detail, tt.detail)
			require.NotContains(t, p.Detail, a.token)
			require.True(t, strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer"))
		})
	}
	t.Run("no header", func(t *testing.T) {
		t.Parallel()
		r := e.call(t, http.MethodPost, a.path(), approved)
		r.problem(t, http.StatusUnauthorized, "invalid_token")
		require.Equal(t, "Bearer", r.header.Get("WWW-Authenticate"))
	})
	t.Run("no task", func(t *testing.T) {
		t.Parallel()
		e.call(t, http.MethodPost, "/v1/tasks/1/outcome", approved, "Authorization", "Bearer "+a.token).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	})
}

// What the ledger, or the type, would not take is refused with its place before
// anything is appended; the attempt stays open.
func TestBadOutcomes(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := e.deferred(t, approval)
	deep := strings.Repeat("[", 65) + strings.Repeat("]", 65)
	e.nothingIsAppended(t)
	for name, tt := range map[string]struct {
		body   string
		status int
		errors []httpapi.FieldError
	}{
		"no status":             {`{}`, 422, []httpapi.FieldError{at("/status", "must be succeeded or failed")}},
		"another status":        {`{"status":"canceled"}`, 422, []httpapi.FieldError{at("/status", "must be succeeded or failed")}},
		"a failed success":      {`{"status":"succeeded","error":{},"retry_after_ms":1}`, 422, []httpapi.FieldError{at("/error", "goes with status failed only"), at("/retry_after_ms", "goes with status failed only")}},
		"a failure with result": {`{"status":"failed","result":1,"message":"m"}`, 422, []httpapi.FieldError{at("/result", "goes with status succeeded only"), at("/message", "goes with status succeeded only; error has a message of its own"), at("/error", "is required with status failed")}},
		"no result":             {`{"status":"succeeded"}`, 422, []httpapi.FieldError{at("/result", "is of the wrong type: got null, want object")}},
		"another shape":         {`{"status":"succeeded","result":{"by":1}}`, 422, []httpapi.FieldError{at("/result/by", "is of the wrong type: got number, want string")}},
		"U+0000":                {`{"status":"succeeded","result":{"by":"\u0000"}}`, 422, []httpapi.FieldError{at("/result/by", "contains U+0000")}},
		"too deep":              {`{"status":"succeeded","result":` + deep + `}`, 422, []httpapi.FieldError{at("/result"+strings.Repeat("/0", 64), "is nested deeper than 64 levels")}},
		"too large":             {`{"status":"succeeded","result":{"by":"` + strings.Repeat("x", 256<<10) + `"}}`, 422, []httpapi.FieldError{at("/result", "is 262153 bytes long, at most 262144 are allowed")}},
		"a long message":        {`{"status":"succeeded","result":{"by":""},"message":"` + strings.Repeat("x", 4097) + `"}`, 422, []httpapi.FieldError{at("/message", "is 4097 bytes long, at most 4096 are allowed")}},
		"a long code":           {`{"status":"failed","error":{"code":"` + strings.Repeat("x", 201) + `"}}`, 422, []httpapi.FieldError{at("/error/code", "is 201 bytes long, at most 200 are allowed")}},
		"another audience":      {`{"status":"failed","error":{"audience":"everybody"}}`, 422, []httpapi.FieldError{at("/error/audience", `is "everybody", want user or operator`)}},
		"a negative wait":       {`{"status":"failed","error":{},"retry_after_ms":-1}`, 422, []httpapi.FieldError{at("/retry_after_ms", "is -1, want 0 to 86400000")}},
		"a long wait":           {`{"status":"failed","error":{},"retry_after_ms":86400001}`, 422, []httpapi.FieldError{at("/retry_after_ms", "is 86400001, want 0 to 86400000")}},
		"an unknown member":     {`{"status":"failed","error":{"code":"x","cause":"y"}}`, 422, []httpapi.FieldError{at("/error/cause", "is not a known member")}},
		"half a document":       {`{"status":"failed"`, 400, nil},
		"a member twice":        {`{"status":"failed","status":"succeeded"}`, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code := "invalid_request"
			if tt.status == 400 {
				code = "malformed_json"
			}
			p := a.report(t, tt.body).problem(t, tt.status, code)
			if tt.errors != nil {
				require.Equal(t, tt.errors, p.Errors)
			}
		})
	}
}

// An attempt that has ended otherwise takes no outcome: who reports one learns
// how it ended.
func TestOutcomeOfAClosedAttempt(t *testing.T) {
	t.Parallel()
	e := setup(t, func(s *settings) { s.partitions = 1 })
	for name, tt := range map[string]struct {
		ends   func(t *testing.T, a *asked)
		detail string
	}{
		"timeout":    {func(t *testing.T, a *asked) { a.fail(t, ledger.CodeTimeout) }, "failed (timeout)"},
		"canceled":   {func(t *testing.T, a *asked) { a.cancel(t); a.fail(t, ledger.CodeCanceled) }, "failed (canceled)"},
		"superseded": {func(t *testing.T, a *asked) { a.supersede(t) }, "superseded"},
	} {
		// One after the other: they share the claim of the one partition.
		a := e.ask(t, approval)
		tt.ends(t, a)
		before := len(e.records(t, t.Context()))
		for range 2 {
			p := a.report(t, approved).problem(t, http.StatusConflict, "attempt_closed")
			require.Contains(t, p.Detail, tt.detail, name)
		}
		require.Len(t, e.records(t, t.Context()), before, name)
	}
	// The fold decides also where nothing was known before: here of an attempt
	// that never was.
	a := e.deferred(t, approval)
	claims := a.claims()
	claims.AttemptID += 1000
	a.token = e.key.Mint(claims)
	p := a.report(t, approved).problem(t, http.StatusConflict, "refused")
	require.Contains(t, p.Detail, "stale: attempt")
}

func (a *asked) fail(t *testing.T, code string) {
	t.Helper()
	a.later(t)
	claim := a.e.hand.claims[0]
	a.e.write(t, 0, ledger.TaskFailed{
		CollectionID: a.id, Tenant: "default", Run: 1, TaskID: a.task.ID, AttemptID: a.attempt, Worker: "hand", ByClaim: &claim,
		Error: ledger.TaskError{Code: code, Audience: ledger.AudienceOperator},
	})
}

func (a *asked) cancel(t *testing.T) {
	t.Helper()
	a.e.write(t, 0, ledger.CancelRequested{CollectionID: a.id, Tenant: "default", Run: 1, RequestHash: strings.Repeat("0", 64)})
}

func (a *asked) supersede(t *testing.T) {
	t.Helper()
	a.e.hand.claims[0] = a.e.write(t, 0, ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: a.e.hand.claims[0], Worker: "hand"})
	a.e.hand.start(t, a.id)
}

// Of different outcomes at once exactly one counts; those who reported it all
// hear so, the others hear that they were late.
func TestRacingOutcomes(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := e.deferred(t, approval)
	const each = 8
	bodies := []string{approved, rejected, `{"status":"succeeded","result":{"by":"Bob"}}`}
	replies := make([]reply, each*len(bodies))
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() {
			var err error
			replies[i], err = e.send(t.Context(), http.MethodPost, e.url+a.path(), bodies[i%len(bodies)], "Authorization", "Bearer "+a.token, "Prefer", "wait=30")
			require.NoError(t, err)
		})
	}
	wg.Wait()
	statuses, answers := map[int]map[int]int{}, map[string]bool{}
	for i, r := range replies {
		e.doc.check(t, http.MethodPost, a.path(), r)
		if statuses[i%len(bodies)] == nil {
			statuses[i%len(bodies)] = map[int]int{}
		}
		statuses[i%len(bodies)][r.status]++
		if r.status == http.StatusOK {
			answers[string(r.body)] = true
		}
	}
	won := 0
	for _, byStatus := range statuses {
		require.Len(t, byStatus, 1, "%v", statuses)
		won += byStatus[http.StatusOK]
		require.Equal(t, each, byStatus[http.StatusOK]+byStatus[http.StatusConflict])
	}
	require.Equal(t, each, won)
	require.Len(t, answers, 1, "all of them are answered alike")
}

// A read model that is behind, or away, holds no outcome up: it is in the ledger,
// and the same request learns the verdict later. The repeated record is the same
// event, for whoever reads the log.
func TestOutcomeWithoutReadModel(t *testing.T) {
	t.Parallel()
	p := &proxy{}
	e := setup(t, func(s *settings) { s.database = p.database })
	a, late := e.deferred(t, approval), e.deferred(t, approval)
	e.stopProjecting(t)
	for range 2 {
		r := a.report(t, approved, "Prefer", "wait=0")
		o := r.outcome(t, http.StatusAccepted)
		require.Equal(t, "pending", o.Verdict)
		require.Nil(t, o.RecordedAt)
		require.Equal(t, "1", r.header.Get("Retry-After"))
	}
	require.Equal(t, "pending", a.report(t, rejected, "Prefer", "wait=0").outcome(t, http.StatusAccepted).Verdict)
	p.cut()
	late.report(t, approved, "Prefer", "wait=1").outcome(t, http.StatusAccepted)
	_, records := events[ledger.TaskSucceeded](t, e)
	require.Len(t, records, 3)
	eventIDs := map[string]map[string]bool{} // by collection
	for _, r := range records {
		id, subject := header(r, ledger.HeaderID), header(r, ledger.HeaderSubject)
		require.Equal(t, uuid.Version(7), uuid.MustParse(id).Version())
		if eventIDs[subject] == nil {
			eventIDs[subject] = map[string]bool{}
		}
		eventIDs[subject][id] = true
	}
	require.Len(t, eventIDs[a.id.String()], 1, "two records")
	require.Len(t, eventIDs[late.id.String()], 1)
	require.NotEqual(t, eventIDs[a.id.String()], eventIDs[late.id.String()])

	p.mend()
	e.project(t)
	first := a.report(t, approved)
	require.NotNil(t, first.outcome(t, http.StatusOK).RecordedAt)
	require.Equal(t, string(first.body), string(a.report(t, approved).body))
	a.report(t, rejected).problem(t, http.StatusConflict, "attempt_closed")
	require.Equal(t, ledger.StatusSucceeded, late.report(t, approved).outcome(t, http.StatusOK).Status)
}

// What went wrong while appending decides what a worker is told; the same request
// again does no harm.
func TestOutcomeAppendErrors(t *testing.T) {
	t.Parallel()
	f := &faults{}
	e := setup(t, f.use)
	a := e.deferred(t, approval)
	f.appendErr = errors.New("no ack in time")
	r := a.report(t, approved)
	require.Contains(t, r.problem(t, http.StatusServiceUnavailable, "outcome_unknown").Detail, "safe to send the same request again")
	require.NotEmpty(t, r.header.Get("Retry-After"))
	f.appendErr = overloaded{errors.New("full")}
	a.report(t, approved).problem(t, http.StatusServiceUnavailable, "overloaded")

	// The record lands, and its acknowledgement does not arrive.
	f.appendErr = nil
	f.before = func(ctx context.Context, msg ledger.Message) {
		_, err := f.Appender.AppendWait(ctx, msg)
		require.NoError(t, err)
	}
	a.report(t, approved).outcome(t, http.StatusOK)
	_, records := events[ledger.TaskSucceeded](t, e)
	require.Len(t, records, 2)
	require.Equal(t, header(records[0], ledger.HeaderID), header(records[1], ledger.HeaderID))
}

func TestOutcomesWithoutKey(t *testing.T) {
	t.Parallel()
	e := setup(t, func(s *settings) { s.noKey = true })
	a := e.deferred(t, approval)
	a.report(t, approved).problem(t, http.StatusNotImplemented, "outcomes_not_configured")
}

// A finally task can be deferred like any, though no collection shows it.
func TestOutcomeOfAFinallyTask(t *testing.T) {
	t.Parallel()
	e := setup(t)
	a := &asked{e: e, id: ledger.NewCollectionID(0, time.Now(), [8]byte{1})}
	task := ledger.Task{
		Name: "a", Type: typeGo, Queue: ledger.DefaultQueue, OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 1,
		Backoff: ledger.Backoff{InitialMS: 1, Multiplier: 1, MaxMS: 1}, TimeoutMS: 1000, ID: ledger.TaskID(a.id, ledger.KindTask, 0),
	}
	tell := task
	tell.ID = ledger.TaskID(a.id, ledger.KindFinally, 0)
	end, err := e.log.End(t.Context(), 0)
	require.NoError(t, err)
	e.write(t, 0, ledger.CollectionCreated{
		CollectionID: a.id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: end,
		Tasks: []ledger.Task{task}, Finally: []ledger.Task{tell},
	})
	e.hand.succeed(t, a.id, `1`)
	a.task = httpapi.Task{ID: tell.ID, Type: typeGo}
	a.attempt = e.write(t, 0, ledger.TaskStarted{
		CollectionID: a.id, Tenant: "default", Run: 1, TaskID: tell.ID, Attempt: 1, Claim: e.hand.claims[0], Worker: "hand",
	})
	a.token = e.key.Mint(a.claims())
	first := a.report(t, `{"status":"succeeded"}`)
	first.outcome(t, http.StatusOK)
	require.Equal(t, string(first.body), string(a.report(t, `{"status":"succeeded","result":null}`).body))
}
