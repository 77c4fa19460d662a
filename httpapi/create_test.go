package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/ledger"
)

// A create is answered with all ids, and what is shown later has the same.
func TestCreateIsShownAsItWasAnswered(t *testing.T) {
	t.Parallel()
	e := setup(t)
	r := e.call(t, http.MethodPost, "/v1/collections", chain(3))
	created := r.collection(t, http.StatusAccepted)
	require.Equal(t, "/v1/collections/"+created.ID.String(), r.header.Get("Location"))
	require.Equal(t, created.Position, r.header.Get("Keten-Position"))
	require.Equal(t, "accepted", r.header.Get("Keten-Verdict"))
	require.Len(t, created.Tasks, 3)
	require.Equal(t, ledger.StatusPending, created.Status)

	shown := e.get(t, created.ID, "Keten-At-Least", created.Position)
	require.NotNil(t, shown.CreatedAt)
	require.Equal(t, settled(created, shown), settled(shown, shown))
}

// settled is c without what the answer to a command cannot know or writes in
// another way.
func settled(c, shown httpapi.Collection) httpapi.Collection {
	c.CreatedAt, c.UpdatedAt, c.Position = shown.CreatedAt, shown.UpdatedAt, shown.Position
	c.Tasks = slices.Clone(c.Tasks)
	for i := range c.Tasks {
		c.Tasks[i].Args = json.RawMessage(strings.ReplaceAll(string(c.Tasks[i].Args), " ", ""))
	}
	return c
}

// Exactly one record is written, and it says who asked for what.
func TestCreateWritesOneRecord(t *testing.T) {
	t.Parallel()
	e := setup(t)
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	body := `{"name":"n","description":"d","labels":{"team":"web"},"tasks":[
		{"name":"key","type":"certificate.key","args":{ "domain":"shop.example" , "bits":4096 }},
		{"name":"own","type":"` + typeGo + `","args":[12345678901234567890.10],"description":"mine","queue":"gpu","timeout_ms":5,"max_attempts":7,"immutable":true}]}`
	r := e.call(t, http.MethodPost, "/v1/collections", body, "X-Request-Id", "req-1", "Traceparent", traceparent)
	c := r.collection(t, http.StatusAccepted)
	require.Equal(t, "req-1", r.header.Get("X-Request-Id"))

	created, records := events[ledger.CollectionCreated](t, e)
	require.Len(t, created, 1)
	got := created[0]
	require.Equal(t, c.ID, got.CollectionID)
	require.Equal(t, byte(7), byte(got.CollectionID.Version()))
	require.Equal(t, records[0].Partition, ledger.PartitionOf(got.CollectionID))
	require.LessOrEqual(t, got.AsOf, records[0].Offset)
	require.Equal(t, ledger.Actor{Kind: "anonymous", Address: "127.0.0.1", RequestID: "req-1"}, got.Actor)
	require.Equal(t, []any{"default", "n", "", "d", map[string]string{"team": "web"}, ""},
		[]any{got.Tenant, got.Name, got.Template, got.Description, got.Labels, got.IdempotencyKey})
	hash, err := ledger.RequestHash("POST /v1/collections", json.RawMessage(body))
	require.NoError(t, err)
	require.Equal(t, hash, got.RequestHash)
	require.Equal(t, []ledger.Task{
		{
			ID: c.Tasks[0].ID, Name: "key", Type: "certificate.key", Queue: "default", Description: "Create a private key",
			Args: json.RawMessage(`{"domain":"shop.example","bits":4096}`), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 3,
			Backoff: ledger.Backoff{InitialMS: 2000, Multiplier: 3, MaxMS: 60_000}, TimeoutMS: 30_000,
		},
		{
			ID: c.Tasks[1].ID, Index: 1, Name: "own", Type: typeGo, Queue: "gpu", Description: "mine",
			Args: json.RawMessage(`[12345678901234567890.10]`), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 7,
			Backoff: ledger.Backoff{InitialMS: 1000, Multiplier: 2, MaxMS: 300_000}, TimeoutMS: 5, Immutable: true,
		},
	}, got.Tasks)
	headers := map[string]string{}
	for _, h := range records[0].Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, r.header.Get("Keten-Command"), headers[ledger.HeaderID])
	require.Equal(t, "/keten/"+e.log.Info().LedgerID.String()+"/api", headers[ledger.HeaderSource])
	require.Equal(t, traceparent, headers[ledger.HeaderTraceparent])
}

// A template is filled in before anything is written.
func TestCreateFromTemplate(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.call(t, http.MethodPost, "/v1/templates/request-certificate",
		`{"input":{"domain":"shop.example"},"labels":{"a":"b"}}`).collection(t, http.StatusAccepted)
	require.Equal(t, "request-certificate", c.Name)
	require.Equal(t, "request-certificate", *c.Template)
	require.Equal(t, "Request a certificate", c.Description)
	require.Len(t, c.Tasks, 2)
	require.JSONEq(t, `{"domain":"shop.example"}`, string(c.Tasks[0].Args))
	require.Equal(t, ledger.OnInterruptFail, c.Tasks[1].OnInterrupt)
	require.True(t, c.Tasks[1].Immutable)
	require.Equal(t, "Install it", c.Tasks[1].Description)

	c = e.call(t, http.MethodPost, "/v1/templates/request-certificate",
		`{"input":{"domain":"shop.example"},"name":"mine","description":"another"}`).collection(t, http.StatusAccepted)
	require.Equal(t, []string{"mine", "another"}, []string{c.Name, c.Description})
}

// Repeated with its key, a create gives the same collection and writes nothing
// more; another body under the key is refused.
func TestCreateWithAKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	e := setup(t)
	const key = "order 4711"
	first := e.call(t, http.MethodPost, "/v1/collections", chain(2), "Idempotency-Key", key)
	created := first.collection(t, http.StatusAccepted)
	e.hand.succeed(t, created.ID, `1`) // what has happened since does not show
	before := len(e.records(t, t.Context()))

	again := e.call(t, http.MethodPost, "/v1/collections", strings.ReplaceAll(chain(2), ",", " , "), "Idempotency-Key", key)
	repeated := again.collection(t, http.StatusAccepted)
	require.Equal(t, settled(created, repeated), settled(repeated, repeated))
	for _, name := range []string{"Location", "Keten-Command", "Keten-Verdict"} {
		require.Equal(t, first.header.Get(name), again.header.Get(name))
	}
	e.call(t, http.MethodPost, "/v1/collections", chain(3), "Idempotency-Key", key).
		problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	e.call(t, http.MethodPost, "/v1/templates/request-certificate", `{"input":{"domain":"shop.example"}}`, "Idempotency-Key", key).
		problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	require.Len(t, e.records(t, t.Context()), before)
}

// However many creates with one key race, through several API processes, there
// is one collection and all are told of it.
func TestCreatesThatRaceWithAKeyAreOne(t *testing.T) {
	t.Parallel()
	e := setup(t)
	other, _ := e.newAPI(t, e.store, settings{})
	urls := []string{e.url, serve(t, other)}
	var group sync.WaitGroup
	replies := make([]reply, 16)
	errs := make([]error, len(replies))
	for i := range replies {
		group.Go(func() {
			replies[i], errs[i] = e.send(t.Context(), http.MethodPost, urls[i%2]+"/v1/collections", chain(2), "Idempotency-Key", "k", "Prefer", "wait=30")
		})
	}
	group.Wait()
	for i, r := range replies {
		require.NoError(t, errs[i])
		require.Equal(t, replies[0].collection(t, http.StatusAccepted).ID, r.collection(t, http.StatusAccepted).ID)
		require.Equal(t, replies[0].header.Get("Keten-Command"), r.header.Get("Keten-Command"))
	}
	var page httpapi.CollectionPage
	e.call(t, http.MethodGet, "/v1/collections", "").into(t, &page)
	require.Len(t, page.Collections, 1)
	require.Equal(t, httpapi.Counts{Pending: 1}, page.Counts)
}

// Without waiting, the answer says where the verdict will be.
func TestCreateWithoutWaitingForTheVerdict(t *testing.T) {
	t.Parallel()
	e := setup(t)
	r := e.call(t, http.MethodPost, "/v1/collections", chain(1), "Prefer", "respond-async, wait=0")
	created := r.collection(t, http.StatusAccepted)
	require.Equal(t, "pending", r.header.Get("Keten-Verdict"))
	require.Equal(t, "wait=0", r.header.Get("Preference-Applied"))
	link := "/v1/commands/" + r.header.Get("Keten-Command")
	require.Equal(t, `<`+link+`>; rel="status"`, r.header.Get("Link"))

	var command httpapi.Command
	answer := e.call(t, http.MethodGet, link, "", "Keten-At-Least", r.header.Get("Keten-Position"))
	require.Equal(t, http.StatusOK, answer.status)
	answer.into(t, &command)
	require.Equal(t, httpapi.Command{
		EventID: uuid.MustParse(r.header.Get("Keten-Command")), CollectionID: created.ID, Type: "keten.v1.CollectionCreated",
		Verdict: ledger.Accepted, Position: r.header.Get("Keten-Position"),
	}, command)
}

// A projection that stands still holds up no plain create: the answer comes
// when the wait is over, and the record is there.
func TestCreateDoesNotNeedTheReadModel(t *testing.T) {
	t.Parallel()
	p := &proxy{}
	e := setup(t, func(s *settings) { s.database = p.database })
	e.stopProjecting(t)
	p.cut()
	r := e.call(t, http.MethodPost, "/v1/collections", chain(1), "Prefer", "wait=1")
	created := r.collection(t, http.StatusAccepted)
	require.Equal(t, "pending", r.header.Get("Keten-Verdict"))
	e.call(t, http.MethodPost, "/v1/collections", chain(1), "Idempotency-Key", "k").problem(t, http.StatusServiceUnavailable, "unavailable")
	e.call(t, http.MethodGet, "/v1/collections/"+created.ID.String(), "").problem(t, http.StatusServiceUnavailable, "unavailable")
	e.call(t, http.MethodGet, "/v1/collections", "").problem(t, http.StatusServiceUnavailable, "unavailable")
	e.call(t, http.MethodPost, "/v1/collections/"+created.ID.String()+"/retry", "").problem(t, http.StatusServiceUnavailable, "unavailable")
	e.call(t, http.MethodGet, "/readyz", "").problem(t, http.StatusServiceUnavailable, "not_ready")
	require.Equal(t, http.StatusOK, e.call(t, http.MethodGet, "/healthz", "").status)

	p.mend()
	e.project(t)
	require.Equal(t, created.ID, e.get(t, created.ID, "Keten-At-Least", r.header.Get("Keten-Position")).ID)
	require.Len(t, e.records(t, t.Context()), int(e.log.Info().Partitions)+1)
}

// faults is an appender that misbehaves on demand and else is the real one.
type faults struct {
	httpapi.Appender

	appendErr error
	endErr    error
	ends      func(end int64) int64
	before    func(context.Context, ledger.Message) // each append
	appends   atomic.Int64
}

func (f *faults) use(s *settings) {
	s.appender = func(a httpapi.Appender) httpapi.Appender {
		f.Appender = a
		return f
	}
}

func (f *faults) AppendWait(ctx context.Context, msg ledger.Message) (int64, error) {
	f.appends.Add(1)
	if f.before != nil {
		f.before(ctx, msg)
	}
	if f.appendErr != nil {
		return 0, f.appendErr
	}
	return f.Appender.AppendWait(ctx, msg)
}

func (f *faults) End(ctx context.Context, partition int32) (int64, error) {
	if f.endErr != nil {
		return 0, f.endErr
	}
	end, err := f.Appender.End(ctx, partition)
	if f.ends != nil {
		end = f.ends(end)
	}
	return end, err
}

type overloaded struct{ error }

func (overloaded) Overloaded() bool { return true }

// What went wrong while appending decides whether repeating can do harm.
func TestAppendErrors(t *testing.T) {
	t.Parallel()
	f := &faults{}
	e := setup(t, f.use)
	post := func() reply { return e.call(t, http.MethodPost, "/v1/collections", chain(1)) }

	f.appendErr = errors.New("no ack in time")
	r := post()
	p := r.problem(t, http.StatusServiceUnavailable, "outcome_unknown")
	require.Contains(t, p.Detail, "/v1/commands/"+r.header.Get("Keten-Command"))
	require.NotEmpty(t, r.header.Get("Retry-After"))

	f.appendErr = overloaded{errors.New("full")}
	require.NotEmpty(t, post().header.Get("Retry-After"))
	post().problem(t, http.StatusServiceUnavailable, "overloaded")

	f.appendErr, f.endErr = nil, errors.New("no broker")
	before := f.appends.Load()
	post().problem(t, http.StatusServiceUnavailable, "unavailable")
	require.Equal(t, before, f.appends.Load())
}

// A plain create whose log end was too old by the time it landed is made again
// under a new id, and given up after a few times.
func TestStaleCreateIsMadeAgain(t *testing.T) {
	t.Parallel()
	f := &faults{}
	e := setup(t, f.use, func(s *settings) { s.partitions, s.window = 1, 2 })
	for range 4 {
		e.create(t, chain(1))
	}
	asked := 0
	f.ends = func(end int64) int64 {
		if asked++; asked == 1 {
			return 0
		}
		return end
	}
	c := e.create(t, chain(1))
	created, _ := events[ledger.CollectionCreated](t, e)
	require.Len(t, created, 6)
	require.NotEqual(t, created[4].CollectionID, c.ID)
	require.Equal(t, created[5].CollectionID, c.ID)

	f.ends = func(int64) int64 { return 0 }
	r := e.call(t, http.MethodPost, "/v1/collections", chain(1))
	r.problem(t, http.StatusServiceUnavailable, "contended")
	require.NotEmpty(t, r.header.Get("Retry-After"))
	created, _ = events[ledger.CollectionCreated](t, e)
	require.Len(t, created, 10)

	f.ends = func(end int64) int64 { return end + 100 }
	e.call(t, http.MethodPost, "/v1/collections", chain(1)).problem(t, http.StatusServiceUnavailable, "history_lost")
	var page httpapi.CollectionPage
	e.call(t, http.MethodGet, "/v1/collections", "").into(t, &page)
	require.Len(t, page.Collections, 5)
}

// On a read model more than a window behind nothing is decided; plain creates
// go on.
func TestKeyedCreateNeedsAReadModelWithinTheWindow(t *testing.T) {
	t.Parallel()
	f := &faults{}
	e := setup(t, f.use, func(s *settings) { s.partitions, s.window = 1, 3 })
	c := e.failed(t)
	e.stopProjecting(t)
	for range 4 {
		e.call(t, http.MethodPost, "/v1/collections", chain(1), "Prefer", "wait=0").collection(t, http.StatusAccepted)
	}
	before := f.appends.Load()
	r := e.call(t, http.MethodPost, "/v1/collections", chain(1), "Idempotency-Key", "k")
	r.problem(t, http.StatusServiceUnavailable, "projection_behind")
	require.NotEmpty(t, r.header.Get("Retry-After"))
	e.call(t, http.MethodPost, "/v1/collections/"+c.ID.String()+"/retry", `{}`).problem(t, http.StatusServiceUnavailable, "projection_behind")
	require.Equal(t, before, f.appends.Load())
	e.project(t)
	require.Eventually(t, func() bool {
		r := e.call(t, http.MethodPost, "/v1/collections", chain(1), "Idempotency-Key", "k")
		return r.status == http.StatusAccepted
	}, waitLong, waitTick)
}
