package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

const testCatalog = `
types:
  certificate.key:
    description: Create a private key
    exec: {command: ["true"]}
    args_schema:
      type: object
      required: [domain]
      additionalProperties: false
      properties: {domain: {type: string, minLength: 3}, bits: {type: integer}}
    timeout: 30s
    max_attempts: 3
    backoff: {initial: 2s, multiplier: 3, max: 1m}
  once:
    exec: {command: ["true"]}
    on_interrupt: fail
  approval:
    exec: {command: ["true"]}
    result_schema: {type: object, required: [by], properties: {by: {type: string}}}
    max_attempts: 2
templates:
  request-certificate:
    description: Request a certificate
    input_schema:
      type: object
      required: [domain]
      additionalProperties: false
      properties: {domain: {$ref: "#/$defs/domain"}, default: {$ref: "#/$defs/domain"}}
      $defs: {domain: {type: string, minLength: 3}}
    tasks:
      - {name: key, type: certificate.key, args: {domain: "${input.domain}"}}
      - {name: install, type: once, description: Install it, args: {domain: "${input.domain}"}, immutable: true}
`

// typeGo is a type that only a handler in Go knows.
const typeGo = "go.step"

// An env is an API on a ledger of its own, a database of its own and a
// projector between them.
type env struct {
	brokers  []string
	prefix   string
	log      *eventlog.Log
	database string
	store    *readmodel.Store
	types    *catalog.Catalog
	api      *httpapi.API
	metrics  *prometheus.Registry
	url      string
	doc      *document
	key      *outcometoken.Key

	hand       *hand
	projecting atomic.Pointer[projecting]
}

type settings struct {
	partitions int32
	window     int64
	brokers    func(t *testing.T) []string // default: one in memory
	database   func(t *testing.T, url string) string
	appender   func(httpapi.Appender) httpapi.Appender
	ready      func(context.Context) error
	noKey      bool         // for outcome tokens
	logger     *slog.Logger // default: logger()
}

func setup(t *testing.T, change ...func(*settings)) *env {
	t.Helper()
	s := settings{partitions: 3, window: ledger.DefaultWindow}
	for _, f := range change {
		f(&s)
	}
	e := &env{database: pgtest.URL(t)}
	e.hand = &hand{e: e, claims: map[int32]int64{}}
	if s.brokers == nil {
		s.brokers = inMemory
	}
	e.brokers = s.brokers(t)
	e.prefix = "httpapi-" + uuid.NewString()
	cfg := e.config("")
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: s.partitions, Window: s.window})
	require.NoError(t, err)
	e.log, err = eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(e.log.Close)

	if s.database != nil {
		e.database = s.database(t, e.database)
	}
	e.store = e.openStore(t)
	require.NoError(t, e.store.Migrate(t.Context()))
	background(t, e.store.Run)
	e.types, err = catalog.Parse("test.yaml", []byte(testCatalog))
	require.NoError(t, err)
	e.doc = newDocument(t, e.types)
	e.key, err = outcometoken.ParseKey(outcometoken.GenerateKey())
	require.NoError(t, err)
	e.api, e.metrics = e.newAPI(t, e.store, s)
	e.url = serve(t, e.api)
	e.project(t)
	return e
}

// inMemory is a broker of the test's own.
func inMemory(t *testing.T) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

func (e *env) config(clientID string) eventlog.Config {
	return eventlog.Config{Brokers: e.brokers, Prefix: e.prefix, ClientID: clientID, AllowSingleReplica: true, Logger: logger()}
}

func (e *env) openStore(t *testing.T) *readmodel.Store {
	t.Helper()
	store, err := readmodel.Open(t.Context(), readmodel.Config{URL: e.database, Logger: logger()})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

func (e *env) newAPI(t *testing.T, store *readmodel.Store, s settings) (*httpapi.API, *prometheus.Registry) {
	t.Helper()
	var appender httpapi.Appender = e.log
	if s.appender != nil {
		appender = s.appender(appender)
	}
	key := e.key
	if s.noKey {
		key = nil
	}
	if s.logger == nil {
		s.logger = logger()
	}
	info, metrics := e.log.Info(), prometheus.NewRegistry()
	api, err := httpapi.New(httpapi.Config{
		Store: store, Appender: appender, Catalog: e.types, KnownTypes: []string{typeGo},
		LedgerID: info.LedgerID, Partitions: info.Partitions, Window: info.Window, SingleReplica: info.SingleReplica,
		Logger: s.logger, Registerer: metrics, Gatherer: metrics, Ready: s.ready, OutcomeKey: key,
	})
	require.NoError(t, err)
	return api, metrics
}

func serve(t *testing.T, api *httpapi.API) string {
	t.Helper()
	server := httptest.NewUnstartedServer(api.Handler())
	server.Config = api.NewServer()
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

func logger() *slog.Logger {
	if os.Getenv("KETEN_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// A reply is an answer whose body has been read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request and holds the answer against the OpenAPI document: a
// status or a body that it does not know fails the test. A busy machine may take
// longer over a verdict than a client waits by default.
func (e *env) call(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	if method == http.MethodPost && !slices.Contains(header, "Prefer") {
		header = append(header, "Prefer", "wait=30")
	}
	r, err := e.send(t.Context(), method, e.url+path, body, header...)
	require.NoError(t, err)
	e.doc.check(t, method, path, r)
	return r
}

// fetch gets what the document does not describe.
func (e *env) fetch(t *testing.T, path string, header ...string) reply {
	t.Helper()
	r, err := e.send(t.Context(), http.MethodGet, e.url+path, "", header...)
	require.NoError(t, err)
	return r
}

func (e *env) send(ctx context.Context, method, url, body string, header ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header[http.CanonicalHeaderKey(header[i])] = append(req.Header[http.CanonicalHeaderKey(header[i])], header[i+1])
	}
	if values := req.Header["Content-Type"]; len(values) > 1 {
		req.Header["Content-Type"] = values[1:]
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return reply{status: res.StatusCode, header: res.Header, body: answer}, err
}

func (r reply) into(t *testing.T, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	require.NoError(t, d.Decode(v), "%s", r.body)
}

func (r reply) collection(t *testing.T, status int) httpapi.Collection {
	t.Helper()
	require.Equal(t, status, r.status, "%s", r.body)
	var c httpapi.Collection
	r.into(t, &c)
	return c
}

// problem reads a problem and checks what holds for all of them.
func (r reply) problem(t *testing.T, status int, code string) httpapi.Problem {
	t.Helper()
	require.Equal(t, status, r.status, "%s", r.body)
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
	var p httpapi.Problem
	r.into(t, &p)
	require.Equal(t, code, p.Code, "%s", r.body)
	require.Equal(t, status, p.Status)
	require.Equal(t, "urn:keten:problem:"+code, p.Type)
	require.NotEmpty(t, p.Title)
	require.Equal(t, r.header.Get("X-Request-Id"), p.RequestID)
	return p
}

// chain is the body of a create with n tasks that only Go knows.
func chain(n int) string {
	tasks := make([]string, n)
	for i := range tasks {
		tasks[i] = `{"name":"t` + string(rune('0'+i)) + `","type":"` + typeGo + `","args":{"i":` + string(rune('0'+i)) + `}}`
	}
	return `{"name":"chain","tasks":[` + strings.Join(tasks, ",") + `]}`
}

// create starts a chain and waits until the read model has it.
func (e *env) create(t *testing.T, body string, header ...string) httpapi.Collection {
	t.Helper()
	r := e.call(t, http.MethodPost, "/v1/collections", body, header...)
	c := r.collection(t, http.StatusAccepted)
	require.Equal(t, "accepted", r.header.Get("Keten-Verdict"))
	return c
}

func (e *env) get(t *testing.T, id uuid.UUID, header ...string) httpapi.Collection {
	t.Helper()
	return e.call(t, http.MethodGet, "/v1/collections/"+id.String(), "", header...).collection(t, http.StatusOK)
}

// records reads all of the ledger that was written so far.
func (e *env) records(t *testing.T, ctx context.Context) []ledger.Record {
	t.Helper()
	ends, err := e.log.Ends(ctx)
	require.NoError(t, err)
	from := map[int32]eventlog.Start{}
	for p := range ends {
		from[p] = eventlog.Start{LeaderEpoch: -1}
	}
	reader, err := e.log.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(t, err)
	defer reader.Close()
	var records []ledger.Record
	left := int64(0)
	for _, end := range ends {
		left += end
	}
	for int64(len(records)) < left {
		fetched, err := reader.Poll(ctx, 1000)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			records = append(records, f.Records...)
		}
	}
	return records
}

// events returns the decoded events of a type, with their records.
func events[E ledger.Event](t *testing.T, e *env) (list []E, records []ledger.Record) {
	t.Helper()
	for _, r := range e.records(t, t.Context()) {
		env, err := ledger.Decode(r)
		require.NoError(t, err)
		if event, ok := env.Event.(E); ok {
			list, records = append(list, event), append(records, r)
		}
	}
	return list, records
}

// A hand does an executor's work one event at a time, so that a test decides
// what happens when.
type hand struct {
	e      *env
	claims map[int32]int64
}

// write appends an event, waits until it is projected, and returns its offset.
func (e *env) write(t *testing.T, partition int32, event ledger.Event) int64 {
	t.Helper()
	meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: ledger.Source(e.log.Info().LedgerID, "test"), Time: time.Now()}
	msg, err := ledger.Encode(partition, meta, event)
	require.NoError(t, err)
	offset, err := e.log.AppendWait(t.Context(), msg)
	require.NoError(t, err)
	if e.projecting.Load() == nil {
		return offset
	}
	require.NoError(t, e.store.WaitFor(t.Context(), readmodel.Position{Partition: partition, Offset: offset + 1}))
	outcome, err := e.store.CommandOutcome(t.Context(), meta.EventID)
	if !errors.Is(err, readmodel.ErrNotFound) { // only commands have one
		require.NoError(t, err)
		require.Equal(t, ledger.Accepted, outcome.Verdict, "%s: %s", event.EventName(), outcome.Reason)
	}
	return offset
}

// start starts the collection's next task and returns the attempt's id.
func (h *hand) start(t *testing.T, id uuid.UUID) (task httpapi.Task, attempt int64) {
	t.Helper()
	p := ledger.PartitionOf(id)
	if _, ok := h.claims[p]; !ok {
		h.claims[p] = h.e.write(t, p, ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: -1, Worker: "hand"})
	}
	c := h.e.get(t, id)
	task = c.Tasks[c.TasksDone]
	attempt = h.e.write(t, p, ledger.TaskStarted{
		CollectionID: id, Tenant: "default", Run: c.Run, TaskID: task.ID, Attempt: task.Attempts + 1, Claim: h.claims[p], Worker: "hand",
	})
	return task, attempt
}

func (h *hand) succeed(t *testing.T, id uuid.UUID, result string) {
	t.Helper()
	task, attempt := h.start(t, id)
	h.e.write(t, ledger.PartitionOf(id), ledger.TaskSucceeded{
		CollectionID: id, Tenant: "default", Run: h.e.get(t, id).Run, TaskID: task.ID, AttemptID: attempt, Worker: "hand",
		Result: json.RawMessage(result), Message: "done",
	})
}

func (h *hand) fail(t *testing.T, id uuid.UUID) {
	t.Helper()
	task, attempt := h.start(t, id)
	h.e.write(t, ledger.PartitionOf(id), ledger.TaskFailed{
		CollectionID: id, Tenant: "default", Run: h.e.get(t, id).Run, TaskID: task.ID, AttemptID: attempt, Worker: "hand",
		Error: ledger.TaskError{Code: "exit", Message: "no challenge", Detail: "line 1\nline 2", Audience: ledger.AudienceUser},
	})
}

// failed is a chain of three that failed at its second task.
func (e *env) failed(t *testing.T) httpapi.Collection {
	t.Helper()
	c := e.create(t, chain(3))
	e.hand.succeed(t, c.ID, `{"n":12345678901234567890}`)
	e.hand.fail(t, c.ID)
	c = e.get(t, c.ID)
	require.Equal(t, ledger.StatusFailed, c.Status)
	return c
}
