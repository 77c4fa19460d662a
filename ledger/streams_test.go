package ledger_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

var rewrite = flag.Bool("rewrite", false, "write what the fold says into the transcripts")

// TestStreams replays transcripts: every line is an event at the next offset,
// behind => stand the verdict and what changed. A line "at N" moves the next
// offset, "next WORKER [holding A,B]" asks Partition.Next.
func TestStreams(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/streams/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := replay(t, string(want))
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
				return
			}
			require.Equal(t, string(want), got, "to accept: go test ./ledger -run Streams -rewrite")
		})
	}
}

func replay(t *testing.T, text string) string {
	t.Helper()
	s := &stream{t: t, p: ledger.NewPartition(0)}
	var out strings.Builder
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		input, _, _ := strings.Cut(line, "=>")
		input = strings.TrimSpace(input)
		if input == "" || strings.HasPrefix(input, "#") {
			out.WriteString(line + "\n")
			continue
		}
		out.WriteString(fmt.Sprintf("%-60s => %s", input, s.do(input)) + "\n")
	}
	return out.String()
}

type stream struct {
	t      *testing.T
	p      *ledger.Partition
	offset int64
}

// fields reads "word key=value …".
func fields(input string) (string, map[string]string) {
	words := strings.Fields(input)
	m := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return words[0], m
}

func (s *stream) do(input string) string {
	word, f := fields(input)
	switch word {
	case "at":
		s.offset = num(strings.Fields(input)[1], 0)
		return "ok"
	case "next":
		return s.next(strings.Fields(input)[1], f)
	}
	r := record(s.t, 0, s.offset, s.event(word, f), f)
	out, err := s.p.Apply(r)
	if err != nil {
		return "halt: " + err.Error()
	}
	s.offset++
	return fmt.Sprintf("%d %s", r.Offset, describe(out))
}

func (s *stream) next(worker string, f map[string]string) string {
	holding := map[int64]bool{}
	for a := range strings.SplitSeq(f["holding"], ",") {
		if a != "" {
			holding[num(a, 0)] = true
		}
	}
	var parts []string
	for _, a := range s.p.Next("default", worker, func(id int64) bool { return holding[id] }) {
		text := fmt.Sprintf("start attempt=%d", a.Attempt)
		if a.Kind == ledger.ActionFail {
			text = fmt.Sprintf("fail(%s) attempt_id=%d retryable=%t", a.Error.Code, a.AttemptID, a.Error.Retryable)
		}
		parts = append(parts, fmt.Sprintf("%s %s base=%d wait=%d", taskName(a.Collection, a.TaskID), text, a.BaseMS, a.WaitMS))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}

// collectionID is the plain id of the transcripts' collections A, B, …
func collectionID(name string) uuid.UUID {
	return ledger.NewCollectionID(0, time.UnixMilli(1_700_000_000_000), [8]byte{name[0]})
}

func num(s string, fallback int64) int64 {
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func tasks(id uuid.UUID, f map[string]string) []ledger.Task {
	n, from := int(num(f["tasks"], 2)), int(num(f["from"], 0))
	var list []ledger.Task
	for i := from; i < n; i++ {
		list = append(list, ledger.Task{
			ID: ledger.TaskID(id, ledger.KindTask, i), Index: i, Name: "t" + strconv.Itoa(i), Type: "noop", Queue: "default",
			Args: json.RawMessage(`{}`), OnInterrupt: ledger.OnInterrupt(or(f["on"], "restart")),
			MaxAttempts: int(num(f["max"], 1)), Backoff: ledger.Backoff{InitialMS: 1000, Multiplier: 2, MaxMS: 300_000},
			TimeoutMS: 60_000, Attempts: int(num(f["attempts"], 0)),
		})
	}
	return list
}

func (s *stream) event(word string, f map[string]string) ledger.Event {
	id := collectionID(or(f["c"], "A"))
	task := ledger.TaskID(id, ledger.KindTask, int(num(f["t"], 0)))
	hash := strings.Repeat("a", 64)
	run := int(num(f["run"], 1))
	tenant, worker := or(f["tenant"], "default"), or(f["worker"], "w1")
	switch word {
	case "LedgerOpened":
		return ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: int32(num(f["partitions"], 1)), Rules: int(num(f["rules"], ledger.Rules)), Window: num(f["window"], 100)}
	case "CollectionCreated":
		return ledger.CollectionCreated{CollectionID: id, Tenant: tenant, Name: "n", RequestHash: hash, AsOf: num(f["as_of"], s.offset), OrderingKey: f["lane"], Tasks: tasks(id, f)}
	case "RetryRequested":
		return ledger.RetryRequested{CollectionID: id, Tenant: tenant, Run: int(num(f["run"], 2)), Name: "n", RequestHash: hash, AsOf: num(f["as_of"], s.offset), TaskCount: int(num(f["tasks"], 2)), Tasks: tasks(id, f), OrderingKey: f["lane"], Input: json.RawMessage(or(f["input"], "null"))}
	case "CancelRequested":
		return ledger.CancelRequested{CollectionID: id, Tenant: tenant, Run: run, RequestHash: hash}
	case "PartitionClaimed":
		return ledger.PartitionClaimed{Queue: or(f["queue"], "default"), Prev: num(f["prev"], -1), Worker: worker}
	case "PartitionReleased":
		return ledger.PartitionReleased{Queue: "default", Worker: worker, Running: []int64{}}
	case "RulesActivated":
		return ledger.RulesActivated{Rules: int(num(f["rules"], 1))}
	case "TaskStarted":
		return ledger.TaskStarted{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, Attempt: int(num(f["attempt"], 1)), Claim: num(f["claim"], 1), Worker: worker}
	case "TaskSucceeded":
		return ledger.TaskSucceeded{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: num(f["id"], 0), Worker: worker, Result: json.RawMessage(or(f["result"], `"r`+or(f["t"], "0")+`"`))}
	case "TaskFailed":
		return ledger.TaskFailed{
			CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: num(f["id"], 0), Worker: worker, ByClaim: byClaim(f), RetryAfterMS: num(f["after"], 0),
			Error: ledger.TaskError{Code: or(f["code"], "exit"), Audience: ledger.AudienceUser, Retryable: f["retryable"] == "true"},
		}
	case "TaskDeferred":
		return ledger.TaskDeferred{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: num(f["id"], 0), Worker: worker}
	}
	s.t.Fatalf("unknown event %q", word)
	return nil
}

func byClaim(f map[string]string) *int64 {
	if f["by"] == "" {
		return nil
	}
	n := num(f["by"], 0)
	return &n
}

// record encodes an event at an offset; time is 1000 × offset. With raw=X the
// value is replaced, with type=X the ce_type, with foreign=1 the headers go.
func record(t require.TestingT, partition int32, offset int64, e ledger.Event, f map[string]string) ledger.Record {
	id, err := uuid.Parse(fmt.Sprintf("018c0000-0000-7000-8000-%012x", offset))
	require.NoError(t, err)
	m, err := ledger.Encode(partition, ledger.Meta{EventID: id, Source: "/keten/test/test", Time: time.UnixMilli(0)}, e)
	require.NoError(t, err)
	r := ledger.Record{Partition: partition, Offset: offset, LeaderEpoch: 0, TimeMS: 1000 * offset, Key: m.Key, Value: m.Value, Headers: m.Headers}
	if raw, ok := f["raw"]; ok {
		r.Value = []byte(raw)
	}
	if f["foreign"] != "" {
		r.Headers = nil
	}
	if typ, ok := f["type"]; ok {
		for i := range r.Headers {
			if r.Headers[i].Key == ledger.HeaderType {
				r.Headers[i].Value = []byte(typ)
			}
		}
	}
	return r
}

func taskName(c, task uuid.UUID) string {
	for i := range ledger.MaxTasks {
		if ledger.TaskID(c, ledger.KindTask, i) == task {
			return fmt.Sprintf("%s.t%d", name(c), i)
		}
	}
	return task.String()
}

func name(c uuid.UUID) string { return string(rune(c[8]&0x3f | 0x40)) }

func describe(o ledger.Outcome) string {
	s := string(o.Verdict)
	if o.Reason != "" {
		s += "(" + string(o.Reason) + ")"
	}
	var parts []string
	for _, a := range o.Attempts {
		parts = append(parts, fmt.Sprintf("@%d %s", a.ID, a.Status))
	}
	for _, tc := range o.Tasks {
		parts = append(parts, fmt.Sprintf("%s %s/%d", taskName(tc.Collection, tc.ID), tc.Status, tc.Attempts))
	}
	for _, r := range o.Runs {
		text := fmt.Sprintf("%s run%d %s", name(r.Collection), r.Run, r.Status)
		if r.FailedTask != uuid.Nil {
			text += " at " + taskName(r.Collection, r.FailedTask)
		}
		parts = append(parts, text)
	}
	sort.Strings(parts)
	return strings.TrimSpace(s + " " + strings.Join(parts, ", "))
}
