package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// collected is a collection with what its tasks have to show.
type collected struct {
	Status string `json:"status"`
	Tasks  []struct {
		ID     string          `json:"id"`
		Queue  string          `json:"queue"`
		Status string          `json:"status"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code     string `json:"code"`
			Message  string `json:"message"`
			Audience string `json:"audience"`
		} `json:"error"`
	} `json:"tasks"`
}

// A chain through every runner, over two queues: what one gives the next one
// gets.
func TestEveryRunnerOfTheCatalog(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-runners-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("Bearer hush\n"), 0o600))
	var asked, together, most atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		for now := together.Add(1); ; {
			if seen := most.Load(); now <= seen || most.CompareAndSwap(seen, now) {
				break
			}
		}
		defer together.Add(-1)
		<-time.After(20 * time.Millisecond)
		if r.Header.Get("Authorization") != "Bearer hush" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		var task struct {
			Args     json.RawMessage `json:"args"`
			Previous json.RawMessage `json:"previous"`
		}
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &task)
		_ = json.NewEncoder(w).Encode(map[string]any{"args": task.Args, "previous": task.Previous, "key": r.Header.Get("Idempotency-Key")})
	}))
	t.Cleanup(srv.Close)
	catalog := write(t, "catalog.yaml", `types:
  make: {exec: {command: [echo, '{"made":1.0}']}, queue: gpu}
  wait: {sleep: {duration: 10ms}}
  call:
    http: {url: "`+srv.URL+`", headers_from: {Authorization: "`+secret+`"}, allow_private: true}
    result_schema: {type: object, required: [key]}
    max_concurrent: 1
  private: {http: {url: "`+srv.URL+`"}}
  odd: {http: {url: "`+srv.URL+`", headers_from: {Authorization: "`+secret+`"}, allow_private: true}, result_schema: {type: string}}
`)
	p := spawn(t, nil, "dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog)
	api := p.await(`API +(http://\S+)/v1`)[1]
	run := func(types ...string) collected {
		c := start(t, api, requestFile(t, strings.Join(types, "-"), types...))
		_, _, code := keten(t, "watch", "--api", api, "--timeout", patience.String(), c.ID)
		require.Contains(t, []int{0, 3}, code)
		var shown collected
		get(t, api+"/v1/collections/"+c.ID, &shown)
		return shown
	}

	c := run("make", "wait", "call")
	require.Equal(t, "succeeded", c.Status)
	require.Equal(t, []string{"gpu", "default", "default"}, []string{c.Tasks[0].Queue, c.Tasks[1].Queue, c.Tasks[2].Queue})
	require.JSONEq(t, `{"args":{},"previous":{"made":1.0},"key":"`+c.Tasks[2].ID+`"}`, string(c.Tasks[2].Result))

	before := asked.Load()
	c = run("private")
	require.Equal(t, "failed", c.Status)
	require.Equal(t, "config", c.Tasks[0].Error.Code)
	require.Contains(t, c.Tasks[0].Error.Message, "is not a public one")
	require.Equal(t, before, asked.Load(), "nothing was asked for")

	c = run("odd")
	require.Equal(t, "invalid_result", c.Tasks[0].Error.Code)

	// max_concurrent holds over collections.
	most.Store(0)
	var ids []string
	for range 5 {
		ids = append(ids, start(t, api, requestFile(t, "many", "call", "call")).ID)
	}
	for _, id := range ids {
		_, stderr, code := keten(t, "watch", "--api", api, "--timeout", patience.String(), id)
		require.Zero(t, code, stderr)
	}
	require.EqualValues(t, 1, most.Load())
	p.stop()
}

// A server that is asked may answer later, with the token and to the URL that it
// was given; the task passes what it says on.
func TestServerMayAnswerLater(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-runners-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	type work struct {
		Token string `json:"outcome_token"`
		URL   string `json:"outcome_url"`
	}
	given := make(chan work, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got work
		_ = json.NewDecoder(r.Body).Decode(&got)
		given <- got
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(srv.Close)
	catalog := write(t, "catalog.yaml", `types:
  approve: {http: {url: "`+srv.URL+`", deferred: true, allow_private: true}}
  show: {exec: {command: [sed, 's/.*"previous":\([^}]*}\).*/\1/']}}
`)
	p := spawn(t, nil, "dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog)
	api := p.await(`API +(http://\S+)/v1`)[1]
	c := start(t, api, requestFile(t, "later", "approve", "show"))
	var got work
	select {
	case got = <-given:
	case <-time.After(patience):
		require.FailNow(t, "nobody was asked")
	}
	require.Equal(t, api+"/v1/tasks/"+c.Tasks[0].ID+"/outcome", got.URL)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, got.URL, strings.NewReader(`{"status":"succeeded","result":{"approved":true}}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+got.Token)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Less(t, res.StatusCode, 300, string(text))
	_, stderr, code := keten(t, "watch", "--api", api, "--timeout", patience.String(), c.ID)
	require.Zero(t, code, stderr)
	var shown collected
	get(t, api+"/v1/collections/"+c.ID, &shown)
	require.JSONEq(t, `{"approved":true}`, string(shown.Tasks[1].Result))
	p.stop()
}

// What a command started dies with a keten that is killed, in whatever session
// it is, and its supervisor leaves with it.
func TestKillLeavesNothingOfACommandBehind(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-runners-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	catalog := write(t, "catalog.yaml", `types:
  family:
    exec: {command: [sh, -c, "echo $$ > main; echo $PPID > supervisor; (setsid sh -c 'echo $$ > session; exec sleep 600' &); sleep 600"]}
`)
	p := spawn(t, nil, "dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog)
	start(t, p.await(`API +(http://\S+)/v1`)[1], requestFile(t, "family", "family"))
	pids := map[string]string{}
	require.Eventually(t, func() bool {
		for _, name := range []string{"main", "supervisor", "session"} {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(catalog), name))
			if err != nil || len(b) == 0 {
				return false
			}
			pids[name] = strings.TrimSpace(string(b))
		}
		return true
	}, patience, 20*time.Millisecond)
	p.kill()
	for name, pid := range pids {
		require.Eventually(t, func() bool { return !alive(pid) }, patience, 20*time.Millisecond, "%s is still there", name)
	}
}
