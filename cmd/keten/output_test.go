package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/ledger"
)

// What a task says while it runs is printed by the client, once, as it comes.
func TestClientShowsOutput(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-output-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	catalog := write(t, "catalog.yaml", `types:
  gated: {description: waits for a file, exec: {command: [sh, -c, "while [ ! -e `+dir+`/go ]; do sleep 0.1; done"]}}
`)
	p := spawn(t, nil, "dev", "--data-dir", dir+"/data", "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog)
	api := p.await(`API +(http://\S+)/v1`)[1]
	broker := p.await(`Kafka +(\S+) `)[1]
	stdout, stderr, code := keten(t, "start", "--api", api, "--file", requestFile(t, "gated", "gated"), "-o", "json")
	require.Zero(t, code, stderr)
	var c resource
	require.NoError(t, json.Unmarshal([]byte(stdout), &c))
	task := c.Tasks[0]
	out := &spoken{t: t, broker: broker, collection: c.ID, task: task.ID, attempt: runningAttempt(t, api, c.ID, task.ID)}

	watch, follow := spawn(t, nil, "watch", "--api", api, c.ID), spawn(t, nil, "output", "--api", api, "--follow", c.ID)
	out.say("progress", 40, "proving")
	watch.await(`running +40 % proving`)
	for i := range 3 {
		out.say("line", 0, fmt.Sprint("line ", i, "\x1b[31m"))
		follow.await(fmt.Sprint(task.Name, ` \| line `, i, `\[31m$`))
	}
	stdout, stderr, code = keten(t, "show", "--api", api, c.ID)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "40 % proving")
	stdout, stderr, code = keten(t, "list", "--api", api)
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "40 %", "lists are without")
	for _, args := range [][]string{{c.ID, task.Name}, {c.ID, task.ID}, {c.ID, task.Name, "--attempt", "1"}} {
		stdout, stderr, code = keten(t, append([]string{"output", "--api", api}, args...)...)
		require.Zero(t, code, stderr)
		require.Equal(t, "line 0[31m\nline 1[31m\nline 2[31m\n", stdout)
	}
	stdout, _, _ = keten(t, "output", "--api", api, "-o", "json", c.ID)
	require.Equal(t, 3, strings.Count(stdout, `"attempt":1`))
	_, stderr, code = keten(t, "output", "--api", api, "--follow", "--timeout", "1s", c.ID)
	require.Equal(t, 5, code, stderr)

	for code, args := range map[int][]string{6: {c.ID, "nothing"}, 2: {c.ID, "--attempt", "1"}} {
		_, stderr, got := keten(t, append([]string{"output", "--api", api}, args...)...)
		require.Equal(t, code, got, stderr)
	}
	_, stderr, code = keten(t, "output", "--api", api, c.ID, task.Name, "--attempt", "7")
	require.Equal(t, 6, code, stderr)
	require.Contains(t, stderr, "has no attempt 7")

	out.say("cut", 0, "")
	follow.await("what followed was too much and is left out")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	<-follow.done
	require.NoError(t, follow.ended, follow.output())
	require.Equal(t, 3, strings.Count(follow.output(), "| line"), "each once")
	p.stop()
}

// runningAttempt waits for the first attempt of a task.
func runningAttempt(t *testing.T, api, collection, task string) (id int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		var detail struct {
			AllAttempts []struct {
				ID int64 `json:"id"`
			} `json:"all_attempts"`
		}
		get(t, api+"/v1/collections/"+collection+"/tasks/"+task, &detail)
		if len(detail.AllAttempts) > 0 {
			id = detail.AllAttempts[0].ID
		}
		return id > 0
	}, patience, 50*time.Millisecond)
	return id
}

// spoken writes to the output topic what an attempt says, as the reference
// describes it.
type spoken struct {
	t                        *testing.T
	broker, collection, task string
	attempt                  int64
	seq                      int
}

func (s *spoken) say(kind string, percent int, text string) {
	s.t.Helper()
	value, err := json.Marshal(map[string]any{
		"version": 1, "collection_id": s.collection, "task_id": s.task, "run": 1, "attempt_id": s.attempt,
		"entries": []any{map[string]any{"seq": s.seq, "kind": kind, "percent": percent, "text": text, "at": time.Now()}},
	})
	require.NoError(s.t, err)
	s.seq++
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.broker), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(s.t, err)
	defer cl.Close()
	partition := ledger.PartitionOf(uuid.MustParse(s.collection))
	require.NoError(s.t, cl.ProduceSync(s.t.Context(), &kgo.Record{Topic: "keten.output", Partition: partition, Value: value}).FirstErr())
}
