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

// TestStreams replays transcripts: every line is an event at the next offset;
// behind => stand the verdict, what changed, and which other runs it wakes. A
// line "at N" moves the next offset, "next WORKER [queue=Q] [holding=A,B]" asks
// Partition.Next, "input" shows what an open attempt is handed, "size" what is
// remembered.
//
// Each transcript is replayed twice, the second time on a fold that is restored
// from its own snapshot before every line: it must read the same.
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
			replay := func(cut bool) string {
				s := &stream{t: t, p: ledger.NewPartition(0), names: map[uuid.UUID]string{}}
				return s.replay(string(want), cut)
			}
			got := replay(false)
			if *rewrite {
				// At once, since the golden states are taken from the same files.
				require.NoError(t, os.WriteFile(file+".new", []byte(got), 0o600))
				require.NoError(t, os.Rename(file+".new", file))
				return
			}
			require.Equal(t, string(want), got, "to accept: go test ./ledger -run Streams -rewrite")
			require.Equal(t, string(want), replay(true), "restored before every line")
		})
	}
}

// TestStatesAreGolden pins the state that each transcript ends in, letter for
// letter: hashes, snapshot encoding and all. A difference without a change of
// the transcript is a change of what a snapshot says, which takes a new codec
// version: other processes read snapshots of this one.
func TestStatesAreGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/streams/*.txt")
	require.NoError(t, err)
	var got strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		s := &stream{t: t, p: ledger.NewPartition(0), names: map[uuid.UUID]string{}}
		s.replay(string(text), false)
		fmt.Fprintf(&got, "%x %s\n", s.p.StateHash(), strings.TrimSuffix(filepath.Base(file), ".txt"))
	}
	const golden = "testdata/states.txt"
	if *rewrite {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
		return
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String(), "to accept: go test ./ledger -run 'Streams|Golden' -rewrite")
}

func (s *stream) replay(text string, cut bool) string {
	s.t.Helper()
	var out strings.Builder
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		input, _, _ := strings.Cut(line, "=>")
		input = strings.TrimSpace(input)
		if input == "" || strings.HasPrefix(input, "#") {
			out.WriteString(line + "\n")
			continue
		}
		if cut {
			s.p = restored(s.t, s.p)
		}
		out.WriteString(fmt.Sprintf("%-60s => %s", input, s.do(input)) + "\n")
	}
	return out.String()
}

// restored returns a fold that knows nothing but the snapshot of another.
func restored(t require.TestingT, p *ledger.Partition) *ledger.Partition {
	snapshot := p.Snapshot()
	q, err := ledger.Restore(snapshot)
	require.NoError(t, err)
	require.Equal(t, p.StateHash(), q.StateHash())
	require.Equal(t, snapshot, q.Snapshot())
	return q
}

type stream struct {
	t      *testing.T
	p      *ledger.Partition
	offset int64
	names  map[uuid.UUID]string
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
	case "input":
		return s.input(f)
	case "size":
		return fmt.Sprintf("%d active, %d ending", s.p.Active(), s.p.Ending())
	}
	r := record(s.t, 0, s.offset, s.event(word, f), f)
	out, err := s.p.Apply(r)
	if err != nil {
		return "halt: " + err.Error()
	}
	s.offset++
	return fmt.Sprintf("%d %s", r.Offset, s.describe(out, r))
}

func (s *stream) next(worker string, f map[string]string) string {
	holding := map[int64]bool{}
	for _, a := range nums(f["holding"]) {
		holding[a] = true
	}
	var parts []string
	for _, a := range s.p.Next(or(f["queue"], "default"), worker, func(id int64) bool { return holding[id] }) {
		text := fmt.Sprintf("start attempt=%d", a.Attempt)
		if a.Kind == ledger.ActionFail {
			text = fmt.Sprintf("fail(%s) attempt_id=%d retryable=%t", a.Error.Code, a.AttemptID, a.Error.Retryable)
		}
		parts = append(parts, fmt.Sprintf("%s %s base=%d wait=%d", s.taskName(a.Collection, a.TaskID), text, a.BaseMS, a.WaitMS))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}

func (s *stream) input(f map[string]string) string {
	id := ledger.RunID{Collection: s.collection(f), Run: int(num(f["run"], 1))}
	a, ok := s.p.OpenAttempt(id)
	if !ok {
		return "nothing is open"
	}
	return s.taskName(a.Collection, a.Task.ID) + " gets " + or(string(a.Input), "nothing")
}

// collection is the id that a line is about: of its name, and of its
// Idempotency-Key when it has one.
func (s *stream) collection(f map[string]string) uuid.UUID {
	id := collectionID(or(f["c"], "A"))
	if f["key"] != "" {
		id = ledger.KeyedCollectionID(or(f["tenant"], "default"), f["lane"], f["key"], 0)
	}
	s.names[id] = or(f["c"], "A")
	return id
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

func nums(list string) []int64 {
	var all []int64
	for n := range strings.SplitSeq(list, ",") {
		if n != "" {
			all = append(all, num(n, 0))
		}
	}
	return all
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func tasks(id uuid.UUID, f map[string]string) []ledger.Task {
	return definitions(id, ledger.KindTask, int(num(f["from"], 0)), int(num(f["tasks"], 2)), f)
}

func finally(id uuid.UUID, f map[string]string) []ledger.Task {
	return definitions(id, ledger.KindFinally, 0, int(num(f["finally"], 0)), map[string]string{
		"max": f["fmax"], "on": f["fon"], "queue": f["fqueue"], "immutable": f["fimmutable"],
	})
}

func definitions(id uuid.UUID, kind ledger.Kind, from, to int, f map[string]string) []ledger.Task {
	var list []ledger.Task
	for i := from; i < to; i++ {
		list = append(list, ledger.Task{
			ID: ledger.TaskID(id, kind, i), Index: i, Name: "t" + strconv.Itoa(i), Type: "noop", Queue: or(f["queue"], "default"),
			Args: json.RawMessage(`{}`), OnInterrupt: ledger.OnInterrupt(or(f["on"], "restart")), Immutable: f["immutable"] != "",
			MaxAttempts: int(num(f["max"], 1)), Backoff: ledger.Backoff{InitialMS: 1000, Multiplier: 2, MaxMS: 300_000},
			TimeoutMS: 60_000, Attempts: int(num(f["attempts"], 0)),
		})
	}
	return list
}

func (s *stream) event(word string, f map[string]string) ledger.Event {
	id := s.collection(f)
	task := ledger.TaskID(id, ledger.KindTask, int(num(f["t"], 0)))
	if f["f"] != "" {
		task = ledger.TaskID(id, ledger.KindFinally, int(num(f["f"], 0)))
	}
	hash := strings.Repeat("a", 64)
	run := int(num(f["run"], 1))
	tenant, worker, queue := or(f["tenant"], "default"), or(f["worker"], "w1"), or(f["queue"], "default")
	switch word {
	case "LedgerOpened":
		return ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: int32(num(f["partitions"], 1)), Rules: int(num(f["rules"], ledger.Rules)), Window: num(f["window"], 100)}
	case "RulesActivated":
		return ledger.RulesActivated{Rules: int(num(f["rules"], 1))}
	case "CollectionCreated":
		return ledger.CollectionCreated{CollectionID: id, Tenant: tenant, Name: "n", RequestHash: hash, AsOf: num(f["as_of"], s.offset), OrderingKey: f["lane"], IdempotencyKey: f["key"], Tasks: tasks(id, f), Finally: finally(id, f)}
	case "RetryRequested":
		return ledger.RetryRequested{CollectionID: id, Tenant: tenant, Run: int(num(f["run"], 2)), Name: "n", RequestHash: hash, AsOf: num(f["as_of"], s.offset), TaskCount: int(num(f["tasks"], 2)), Tasks: tasks(id, f), OrderingKey: f["lane"], Input: json.RawMessage(or(f["input"], "null")), Finally: finally(id, f)}
	case "CancelRequested":
		return ledger.CancelRequested{CollectionID: id, Tenant: tenant, Run: run, RequestHash: hash}
	case "PartitionClaimed":
		return ledger.PartitionClaimed{Queue: queue, Prev: num(f["prev"], -1), Worker: worker}
	case "PartitionReleased":
		return ledger.PartitionReleased{Queue: queue, Claim: num(f["claim"], 1), Worker: worker, Running: nums(f["running"]), GraceMS: num(f["grace"], 0)}
	case "TaskStarted":
		return ledger.TaskStarted{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, Attempt: int(num(f["attempt"], 1)), Claim: num(f["claim"], 1), Worker: worker}
	case "TaskSucceeded":
		return ledger.TaskSucceeded{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: num(f["id"], 0), Worker: worker, Result: json.RawMessage(or(f["result"], `"r`+or(f["t"], "0")+`"`))}
	case "TaskFailed":
		return ledger.TaskFailed{
			CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: num(f["id"], 0), Worker: worker, ByClaim: byClaim(f), RetryAfterMS: num(f["after"], 0),
			Error: ledger.TaskError{Code: or(f["code"], "exit"), Message: f["message"], Audience: ledger.AudienceUser, Retryable: f["retryable"] == "true"},
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

func (s *stream) taskName(c, task uuid.UUID) string {
	for i := range ledger.MaxTasks {
		switch task {
		case ledger.TaskID(c, ledger.KindTask, i):
			return fmt.Sprintf("%s.t%d", s.names[c], i)
		case ledger.TaskID(c, ledger.KindFinally, i):
			return fmt.Sprintf("%s.f%d", s.names[c], i)
		}
	}
	return task.String()
}

func (s *stream) describe(o ledger.Outcome, r ledger.Record) string {
	text := string(o.Verdict)
	if o.Reason != "" {
		text += "(" + string(o.Reason) + ")"
	}
	var parts []string
	for _, a := range o.Attempts {
		parts = append(parts, fmt.Sprintf("@%d %s", a.ID, a.Status))
	}
	for _, tc := range o.Tasks {
		parts = append(parts, fmt.Sprintf("%s %s/%d", s.taskName(tc.Collection, tc.ID), tc.Status, tc.Attempts))
	}
	for _, run := range o.Runs {
		part := fmt.Sprintf("%s run%d %s", s.names[run.Collection], run.Run, run.Status)
		if run.FailedTask != uuid.Nil {
			part += " at " + s.taskName(run.Collection, run.FailedTask)
		}
		parts = append(parts, part)
	}
	sort.Strings(parts)
	for _, id := range o.Touched {
		if id.Collection.String() != string(r.Key) {
			parts = append(parts, fmt.Sprintf("wakes %s run%d", s.names[id.Collection], id.Run))
		}
	}
	return strings.TrimSpace(text + " " + strings.Join(parts, ", "))
}
