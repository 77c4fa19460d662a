package main_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/internal/pgtest"
)

const example = "../../examples/certificates"

// The demo's story on the stack it brings along.
func TestStoryOnTheEmbeddedStack(t *testing.T) {
	t.Parallel()
	p := spawn(t, nil, "demo", "--example", example)
	broker := p.await(`Broker \(embedded, single node\) (\S+),`)[1]
	api := p.await(`The API stays up at (\S+) `)[1]
	checkStory(t, api, []string{broker}, "keten")
	p.stop()
}

// The same story on Apache Kafka and PostgreSQL.
func TestStoryOnKafka(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Brokers(t)
	prefix := "story-" + uuid.NewString()[:8]
	p := spawn(t, nil, "demo", "--example", example, "--kafka-brokers", strings.Join(brokers, ","), "--database-url", pgtest.URL(t), "--prefix", prefix)
	api := p.await(`The API stays up at (\S+) `)[1]
	checkStory(t, api, brokers, prefix)
	p.stop()
}

// checkStory looks at what the demo left: in the API, and in the topic as any
// Kafka consumer sees it.
func checkStory(t *testing.T, api string, brokers []string, prefix string) {
	t.Helper()
	var list struct {
		Collections []resource `json:"collections"`
	}
	get(t, api+"/v1/collections?limit=100", &list)
	require.GreaterOrEqual(t, len(list.Collections), 3)
	retried := ""
	for _, c := range list.Collections {
		require.Equal(t, "succeeded", c.Status, c.Name)
		if c.Run == 2 {
			require.Empty(t, retried, "one collection was retried")
			retried = c.ID
		}
	}
	var c resource
	get(t, api+"/v1/collections/"+retried, &c)
	var attempts []int
	for _, k := range c.Tasks {
		attempts = append(attempts, k.Attempts)
	}
	require.Equal(t, []int{1, 1, 2, 1, 1}, attempts, "failed at task 3; tasks 1 and 2 did not run again")

	counts, ids := map[string]int{}, map[string]string{}
	for _, r := range consume(t, brokers, prefix+".ledger") {
		for _, h := range []string{"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"} {
			require.NotEmpty(t, r.Headers[h], "%s has no header %s", r.Type, h)
		}
		counts[r.Type]++
		if r.Key != retried {
			continue
		}
		counts["of the retried: "+r.Type]++
		for _, v := range anySlice(r.Value["tasks"]) {
			task, _ := v.(map[string]any)
			index, id := fmt.Sprint(task["index"]), fmt.Sprint(task["id"])
			require.Contains(t, []string{"", id}, ids[index], "task %s has the same id in every event", index)
			ids[index] = id
		}
	}
	require.Equal(t, 1, counts["RetryRequested"], "a retry is one record")
	require.Equal(t, len(list.Collections), counts["CollectionCreated"])
	require.Equal(t, 6, counts["of the retried: TaskStarted"])
	require.Equal(t, 1, counts["of the retried: TaskFailed"])
	require.Equal(t, 5, counts["of the retried: TaskSucceeded"])
	require.Len(t, ids, 5)
	for _, k := range c.Tasks {
		require.Equal(t, k.ID, ids[strconv.Itoa(indexOf(c, k.ID))])
	}
}

func indexOf(c resource, id string) int {
	for i, k := range c.Tasks {
		if k.ID == id {
			return i
		}
	}
	return -1
}

func anySlice(v any) []any {
	s, _ := v.([]any)
	return s
}
