package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/internal/pgtest"
)

// journal writes a catalog whose tasks note every start in a file, and of which
// the type "gate" then waits until a file "open" is there.
func journal(t *testing.T) (catalog string, starts func() []string, open func()) {
	t.Helper()
	dir := t.TempDir()
	script := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nset -eu\n"+text), 0o700))
	}
	// one line a start: task id, attempt and pid; the line is short, so appending it is atomic
	note := `input=$(cat)
field() { printf '%s' "$input" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
printf '%s %s %s\n' "$(field task_id)" "$(field attempt)" "$$" >> starts
`
	script("step.sh", note+"echo '{\"ok\":true}'\n")
	script("gate.sh", note+"while [ ! -e open ]; do sleep 0.05; done\necho '{\"passed\":true}'\n")
	catalog = filepath.Join(dir, "catalog.yaml")
	require.NoError(t, os.WriteFile(catalog, []byte(`types:
  step: {description: notes its start, exec: {command: [./step.sh]}}
  gate: {description: waits for a file, exec: {command: [./gate.sh]}}
`), 0o600))
	starts = func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "starts"))
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	open = func() { require.NoError(t, os.WriteFile(filepath.Join(dir, "open"), nil, 0o600)) }
	return catalog, starts, open
}

func requestFile(t *testing.T, name string, types ...string) string {
	t.Helper()
	var tasks []map[string]any
	for i, typ := range types {
		tasks = append(tasks, map[string]any{"name": fmt.Sprintf("t%d", i), "type": typ, "args": map[string]any{}})
	}
	b, err := json.Marshal(map[string]any{"name": name, "tasks": tasks})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "request.json")
	require.NoError(t, os.WriteFile(file, b, 0o600))
	return file
}

func start(t *testing.T, api, file string) resource {
	t.Helper()
	stdout, stderr, code := keten(t, "start", "--api", api, "-o", "json", "--file", file)
	require.Zero(t, code, stderr)
	var c resource
	require.NoError(t, json.Unmarshal([]byte(stdout), &c))
	return c
}

// kill -9 of keten dev in the middle of a task; the collection goes on and ends.
func TestDevSurvivesKillInTheMiddleOfATask(t *testing.T) {
	t.Parallel()
	catalog, starts, open := journal(t)
	dir, remove, err := devstack.Scratch("keten-crash-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	args := []string{"dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog}
	api := `API +(http://\S+)/v1`

	p := spawn(t, nil, args...)
	c := start(t, p.await(api)[1], requestFile(t, "killed", "step", "gate", "step"))
	require.Eventually(t, func() bool { return len(starts()) == 2 }, patience, 20*time.Millisecond, "the gate has started")
	p.kill()
	gate := strings.Fields(starts()[1])
	require.Eventually(t, func() bool { return !alive(gate[2]) }, patience, 20*time.Millisecond, "the task's process does not outlive the executor")

	p = spawn(t, nil, args...)
	url := p.await(api)[1]
	broker, database := p.await(`Kafka +(\S+)`)[1], p.await(`Postgres +(\S+)`)[1]
	require.Eventually(t, func() bool { return len(starts()) == 3 }, patience, 20*time.Millisecond, "the gate is started again")
	open()
	_, stderr, code := keten(t, "watch", "--api", url, "--timeout", patience.String(), c.ID)
	require.Zero(t, code, stderr)

	var after resource
	get(t, url+"/v1/collections/"+c.ID, &after)
	var attempts []int
	for i, k := range after.Tasks {
		require.Equal(t, c.Tasks[i].ID, k.ID)
		attempts = append(attempts, k.Attempts)
	}
	require.Equal(t, []int{1, 2, 1}, attempts)
	require.Len(t, starts(), 4, "step, gate, gate again, step")
	var task struct {
		Attempts []struct {
			Status string `json:"status"`
		} `json:"all_attempts"`
	}
	get(t, url+"/v1/collections/"+c.ID+"/tasks/"+c.Tasks[1].ID, &task)
	require.Len(t, task.Attempts, 2)
	require.Equal(t, "superseded", task.Attempts[0].Status)
	require.Equal(t, "succeeded", task.Attempts[1].Status)

	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	var events, rows int
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from keten.events`).Scan(&events))
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from keten.attempts`).Scan(&rows))
	require.Equal(t, len(consume(t, []string{broker}, "keten.ledger")), events, "every record is one row")
	require.Equal(t, 4, rows)
	p.stop()
}

func alive(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// Two executors and two projectors side by side do no harm.
func TestTwoExecutorsAndTwoProjectors(t *testing.T) {
	t.Parallel()
	brokers, db := kafkatest.Brokers(t), pgtest.URL(t)
	catalog, starts, open := journal(t)
	open()
	prefix := "pairs-" + uuid.NewString()[:8]
	common := []string{"--kafka-brokers", strings.Join(brokers, ","), "--prefix", prefix, "--allow-single-replica", "--database-url", db}
	_, stderr, code := keten(t, append([]string{"init", "--partitions", "6"}, common...)...)
	require.Zero(t, code, stderr)
	serve := func(role string) *process {
		p := spawn(t, nil, append([]string{"serve", "--roles", role, "--catalog", catalog, "--http-addr", "127.0.0.1:0"}, common...)...)
		return p
	}
	url := serve("api").await(`url=(http://\S+)`)[1]
	var servers []*process
	for _, role := range []string{"executor", "executor", "projector", "projector"} {
		servers = append(servers, serve(role))
	}
	file := requestFile(t, "pair", "step", "gate", "step", "step")
	const n = 40
	ids := make([]string, 0, n)
	for range n {
		ids = append(ids, start(t, url, file).ID)
	}
	_, stderr, code = keten(t, append([]string{"watch", "--api", url, "--timeout", patience.String()}, ids...)...)
	require.Zero(t, code, stderr)
	for _, p := range servers {
		p.stop()
	}

	seen := map[string]int{}
	for _, line := range starts() {
		f := strings.Fields(line)
		seen[f[0]+" "+f[1]]++
	}
	for attempt, count := range seen {
		require.Equal(t, 1, count, "attempt %s was started more than once", attempt)
	}
	conn, err := pgx.Connect(t.Context(), db)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	count := func(sql string) (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	require.Equal(t, n, count(`select count(*) from keten.collections where status = 'succeeded'`))
	require.Equal(t, 4*n, count(`select count(*) from keten.tasks where status = 'succeeded'`))
	require.Equal(t, 4*n, count(`select count(*) from keten.attempts where status = 'succeeded'`))
	require.Equal(t, len(consume(t, brokers, prefix+".ledger")), count(`select count(*) from keten.events`), "every record is one row")
}
