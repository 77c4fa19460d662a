// Package worker_test runs the example's worker as a process beside a real
// executor, API and projector.
package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/projector"
)

const (
	patience = 60 * time.Second
	secret   = "a secret of the worker and Keten"
)

// A system is Keten in this process, with the worker outside.
type system struct {
	url    string // of the API
	public string // of the API as the worker calls it
	worker *worker
	// lose is how many reports of the worker's reach the API without their answer
	// reaching the worker; refuse is how many are answered 503 without.
	lose, refuse atomic.Int32
	reports      atomic.Int32
}

func setup(t *testing.T) *system {
	t.Helper()
	return setupWith(t, startWorker(t))
}

func setupWith(t *testing.T, w *worker) *system {
	t.Helper()
	s := &system{worker: w}
	id, prefix := executor.NewWorkerID("default"), "worker-"+uuid.NewString()[:8]
	cfg := eventlog.Config{
		Brokers: kafkatest.Brokers(t), Prefix: prefix, ClientID: id, AllowSingleReplica: true, Logger: slog.New(slog.DiscardHandler),
	}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 2})
	require.NoError(t, err)
	log, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(log.Close)
	store, err := readmodel.Open(t.Context(), readmodel.Config{URL: pgtest.URL(t), Logger: cfg.Logger})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	require.NoError(t, store.Migrate(t.Context()))
	key, err := outcometoken.ParseKey(outcometoken.GenerateKey())
	require.NoError(t, err)

	metrics, info := prometheus.NewRegistry(), log.Info()
	api, err := httpapi.New(httpapi.Config{
		Store: store, Appender: log, KnownTypes: []string{"text.count", "echo"}, LedgerID: info.LedgerID, Partitions: info.Partitions,
		Window: info.Window, OutcomeKey: key, Logger: cfg.Logger, Registerer: metrics, Gatherer: metrics,
	})
	require.NoError(t, err)
	server := httptest.NewServer(api.Handler())
	t.Cleanup(server.Close)
	s.url, s.public = server.URL, s.network(t, server.URL)

	reg := executor.NewRegistry()
	reg.HandleRaw("text.count", s.send)
	reg.HandleRaw("echo", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) { return t.Previous, nil })
	x, err := executor.New(executor.Config{Log: log, Registry: reg, Worker: id, OutcomeKey: key, Logger: cfg.Logger})
	require.NoError(t, err)
	p, err := projector.New(projector.Config{Log: log, Store: store, Logger: cfg.Logger})
	require.NoError(t, err)
	for _, run := range []func(context.Context) error{store.Run, p.Run, x.Run} {
		background(t, run)
	}
	return s
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

// network is the way from the worker to the API, on which requests and answers
// get lost.
func (s *system) network(t *testing.T, api string) string {
	t.Helper()
	target, err := url.Parse(api)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.reports.Add(1)
		switch {
		case s.refuse.Add(-1) >= 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case s.lose.Add(-1) >= 0:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(server.Close)
	return server.URL
}

// send hands a task to the worker, twice, as an executor does that got no answer
// the first time.
func (s *system) send(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
	token, err := t.OutcomeToken()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{
		"args": t.Args, "previous": t.Previous, "collection_id": t.Collection, "task_id": t.TaskID, "run": t.Run, "attempt": t.Attempt,
		"fence": t.Fence, "outcome_token": token, "outcome_url": s.public + "/v1/tasks/" + t.TaskID.String() + "/outcome",
	})
	if err != nil {
		return nil, err
	}
	for range 2 {
		if status, err := s.worker.post(ctx, body, "Bearer "+secret); err != nil || status != http.StatusAccepted {
			return nil, errors.Join(err, fmt.Errorf("the worker answered %d", status))
		}
	}
	return nil, executor.ErrPending
}

// A worker is the example's process.
type worker struct {
	cmd    *exec.Cmd
	url    string
	output bytes.Buffer // safe to read once it has ended
	gone   chan struct{}
	ended  error // valid once gone is closed
}

func startWorker(t *testing.T, args ...string) *worker {
	t.Helper()
	return startScript(t, "worker.py", args...)
}

// startScript runs a program that ends in the worker's main.
func startScript(t *testing.T, script string, args ...string) *worker {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("the example is in Python 3, which is not installed")
	}
	require.NoError(t, err)
	w := &worker{gone: make(chan struct{})}
	w.cmd = exec.Command(python, append([]string{"-B", script, "--port", "0", "--threads", "2", "--waiting", "2"}, args...)...)
	w.cmd.Env = append(os.Environ(), "WORKER_SECRET="+secret, "PYTHONPATH=.")
	w.cmd.Stderr = &w.output
	out, err := w.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.cmd.Start())
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // it may have ended
		<-w.gone
		if t.Failed() {
			t.Logf("the worker said:\n%s", w.output.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		w.ended = w.cmd.Wait()
		close(w.gone)
	}()
	require.NoError(t, err)
	w.url = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	return w
}

func (w *worker) post(ctx context.Context, body []byte, authorization string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/tasks", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", authorization)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// call talks to the API as a client does.
func (s *system) call(t *testing.T, method, path, body string) httpapi.Collection {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Prefer", "wait=60")
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Less(t, res.StatusCode, 300, "%s", text)
	var c httpapi.Collection
	require.NoError(t, json.Unmarshal(text, &c))
	return c
}

func (s *system) create(t *testing.T, args string) string {
	t.Helper()
	return s.createTimed(t, args, time.Hour)
}

func (s *system) createTimed(t *testing.T, args string, timeout time.Duration) string {
	t.Helper()
	c := s.call(t, http.MethodPost, "/v1/collections", fmt.Sprintf(
		`{"name":"n","tasks":[{"name":"count","type":"text.count","args":%s,"timeout_ms":%d},{"name":"echo","type":"echo"}]}`, args, timeout.Milliseconds()))
	return "/v1/collections/" + c.ID.String()
}

func (s *system) ended(t *testing.T, path string) httpapi.Collection {
	t.Helper()
	return s.call(t, http.MethodGet, path+"?wait=60s", "")
}

// The worker's results go into the chain, its failures to whom they concern,
// whatever is lost on the way.
func TestWorker(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.refuse.Store(1)
	s.lose.Store(1)
	c := s.ended(t, s.create(t, `{"text":"one two\nthree"}`))
	require.Equal(t, ledger.StatusSucceeded, c.Status)
	require.JSONEq(t, `{"words":3,"characters":13}`, string(c.Tasks[1].Result))
	require.Equal(t, 1, c.Tasks[0].Attempts)
	require.Eventually(t, func() bool { return s.reports.Load() == 3 }, patience, 10*time.Millisecond, "refused, lost, answered")

	c = s.ended(t, s.create(t, `{"text":" "}`))
	require.Equal(t, ledger.StatusFailed, c.Status)
	require.Equal(t, &httpapi.TaskError{Code: "empty_text", Message: "there is no text to count", Audience: ledger.AudienceUser}, c.Error)

	c = s.ended(t, s.create(t, `{"text":5}`))
	require.Equal(t, "exception", c.Error.Code)
	require.Contains(t, c.Error.Message, "AttributeError")
	require.Equal(t, ledger.AudienceOperator, c.Error.Audience)
}

// An outcome that breaks a rule of the API ends the attempt all the same, as a
// failure that says so: the task does not hang until it times out.
func TestWorkerReportsWhatBreaksARule(t *testing.T) {
	t.Parallel()
	s := setupWith(t, startScript(t, "testdata/rulebreaker.py"))
	for does, want := range map[string]struct{ code, message string }{
		"raise long":       {"exception", "^ValueError: \u00e9+$"},
		"raise nul":        {"exception", `^ValueError: a\?b$`},
		"raise surrogate":  {"exception", `^ValueError: a\?b$`},
		"fail code":        {"x+", "^why$"},
		"fail audience":    {"invalid_result", "^the outcome was refused with 422: "},
		"result large":     {"invalid_result", "^the outcome was refused with 422: "},
		"result larger":    {"invalid_result", "^the outcome was refused with 413: it is [0-9]+ bytes long"},
		"result surrogate": {"invalid_result", "^the outcome was refused with 4(00|22): "},
		"result no json":   {"exception", "^TypeError: "},
	} {
		c := s.ended(t, s.create(t, fmt.Sprintf(`{"do":%q}`, does)))
		require.Equal(t, ledger.StatusFailed, c.Status, does)
		require.Regexp(t, "^"+want.code+"$", c.Error.Code, does)
		require.LessOrEqual(t, len(c.Error.Code), 200, does)
		require.Regexp(t, want.message, c.Error.Message, does)
		require.LessOrEqual(t, len(c.Error.Message), ledger.MaxMessageBytes, does)
	}
}

// A worker that is told to stop finishes what it took, reports it, and ends.
func TestWorkerStops(t *testing.T) {
	t.Parallel()
	s := setup(t)
	path := s.create(t, `{"text":"one two","seconds":1}`)
	require.Eventually(t, func() bool { return s.call(t, http.MethodGet, path, "").Tasks[0].Status == ledger.StatusWaiting }, patience, 10*time.Millisecond)
	require.NoError(t, s.worker.cmd.Process.Signal(syscall.SIGTERM))
	<-s.worker.gone
	require.NoError(t, s.worker.ended, "%s", s.worker.output.String())
	c := s.ended(t, path)
	require.Equal(t, ledger.StatusSucceeded, c.Status, "%s", s.worker.output.String())
	require.Equal(t, 1, c.Tasks[0].Attempts)
}

// An attempt whose outcome does not come in time has failed, and the worker that
// reports it all the same is told.
func TestWorkerIsLate(t *testing.T) {
	t.Parallel()
	s := setup(t)
	c := s.ended(t, s.createTimed(t, `{"text":"one two","seconds":6}`, 3*time.Second))
	require.Equal(t, ledger.StatusFailed, c.Status)
	require.Equal(t, ledger.CodeTimeout, c.Error.Code)
	require.Equal(t, "no outcome came from outside in time", c.Error.Message)
	require.NoError(t, s.worker.cmd.Process.Signal(syscall.SIGTERM))
	<-s.worker.gone
	require.NoError(t, s.worker.ended)
	require.Regexp(t, `came too late: .*"attempt_closed".*failed \(timeout\)`, s.worker.output.String())
	require.Equal(t, int32(1), s.reports.Load())
}

// The worker takes work from Keten only, and no more than it can hold; it sends
// the token nowhere else than where it was told to.
func TestWorkerRefuses(t *testing.T) {
	t.Parallel()
	w := startWorker(t, "--api", "http://127.0.0.1:1/")
	task := func(fence int, url string) string {
		return fmt.Sprintf(`{"args":{"text":"x","seconds":60},"task_id":"t","run":1,"attempt":1,"fence":%d,"outcome_token":"k","outcome_url":%q}`, fence, url)
	}
	const here = "http://127.0.0.1:1/v1/tasks/t/outcome"
	for body, status := range map[string]int{
		"": 400, "[]": 400, `{"args":{}}`: 400, task(0, "http://127.0.0.1:10/v1/tasks/t/outcome"): 400,
	} {
		got, err := w.post(t.Context(), []byte(body), "Bearer "+secret)
		require.NoError(t, err)
		require.Equal(t, status, got, "%.80s", body)
	}
	for _, authorization := range []string{"", secret, "Bearer x"} {
		got, err := w.post(t.Context(), []byte(task(0, here)), authorization)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, got)
	}
	accepted := 0
	for fence := range 8 {
		got, err := w.post(t.Context(), []byte(task(fence, here)), "Bearer "+secret)
		require.NoError(t, err)
		if got == http.StatusServiceUnavailable {
			break
		}
		require.Equal(t, http.StatusAccepted, got)
		accepted++
	}
	require.GreaterOrEqual(t, accepted, 2)
	require.LessOrEqual(t, accepted, 4, "two threads, two that wait")
}
