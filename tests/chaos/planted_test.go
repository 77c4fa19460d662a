package chaos_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/ledger"
)

// A history is a ledger of one partition and its journal, written by hand.
type history struct {
	t       *testing.T
	began   time.Time
	records []*kgo.Record
	notes   []note
	plan    plan
}

const (
	worker = "default/one"
	other  = "default/other"
)

// newHistory is a collection of two tasks, of which the second may run once, from
// its beginning to its end: offsets 3 and 5 are the starts.
func newHistory(t *testing.T) *history {
	h := &history{t: t, began: time.UnixMilli(1_790_000_000_000)}
	h.plan = planFor(rand.New(rand.NewPCG(1, 0)), newCollectionID(0)) // only its shape is used
	h.plan.tasks = h.plan.tasks[:2]
	for i := range h.plan.tasks {
		task := &h.plan.tasks[i]
		task.Type, task.OnInterrupt, task.MaxAttempts = "work", ledger.OnInterruptRestart, 1
		task.Args = taskArgs{Step: i}.encode()
	}
	h.plan.tasks[1].OnInterrupt = ledger.OnInterruptFail
	h.add(ledger.LedgerOpened{LedgerID: uuid.New(), Partitions: 1, Rules: ledger.Rules, Window: ledger.DefaultWindow})
	h.add(ledger.CollectionCreated{
		CollectionID: h.plan.id, Tenant: "default", Name: "load", RequestHash: strings.Repeat("a", 64), AsOf: 1, Tasks: h.plan.tasks,
	})
	h.add(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: -1, Worker: worker})
	for i, offset := range []int64{3, 5} {
		h.started(i, 2, worker)
		h.note(phaseStart, i, offset)
		h.note(phaseSuccess, i, offset)
		h.succeeded(i, offset)
	}
	return h
}

func (h *history) add(e ledger.Event) {
	msg, err := encode(0, e)
	require.NoError(h.t, err)
	r := &kgo.Record{Offset: int64(len(h.records)), Key: msg.Key, Value: msg.Value, Timestamp: h.began.Add(time.Duration(len(h.records)) * time.Second)}
	for _, x := range msg.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader(x))
	}
	h.records = append(h.records, r)
}

func (h *history) started(task int, claim int64, worker string) {
	h.add(ledger.TaskStarted{
		CollectionID: h.plan.id, Tenant: "default", Run: 1, TaskID: h.plan.tasks[task].ID, Attempt: 1, Claim: claim, Worker: worker,
	})
}

func (h *history) succeeded(task int, attempt int64) {
	h.add(ledger.TaskSucceeded{
		CollectionID: h.plan.id, Tenant: "default", Run: 1, TaskID: h.plan.tasks[task].ID, AttemptID: attempt, Worker: worker,
		Result: json.RawMessage(`{"index":0}`),
	})
}

// note says that a handler did something right behind the last record.
func (h *history) note(phase string, task int, attempt int64) {
	h.notes = append(h.notes, note{
		Phase: phase, Collection: h.plan.id, Task: h.plan.tasks[task].ID, Run: 1, Attempt: 1, Fence: attempt, PID: 1, Worker: worker,
		seq: len(h.notes), at: h.began.Add(time.Duration(len(h.records)) * time.Second),
	})
}

// What these tests look for they find: each plant breaks one promise.
func TestPlantedViolationsAreFound(t *testing.T) {
	t.Parallel()
	plants := map[string]struct {
		plant func(h *history)
		want  string // "" for none
	}{
		"nothing": {func(*history) {}, ""},
		"a handler without an accepted start": {func(h *history) {
			h.notes[0].Fence = 4
		}, "which was never accepted"},
		"a handler that begins before its record": {func(h *history) {
			h.notes[0].at = h.began
		}, "before its record"},
		"a handler that begins twice": {func(h *history) {
			h.notes = slices.Insert(h.notes, 1, h.notes[1], h.notes[0])
		}, "began 2 times"},
		"a handler beside itself": {func(h *history) {
			h.notes = slices.Insert(h.notes, 1, h.notes[0])
		}, "while attempt 3 of the same task ran"},
		"a handler of another worker": {func(h *history) {
			h.notes[0].Worker = other
		}, "the record says"},
		"a wrong input": {func(h *history) {
			h.notes[3].Phase, h.notes[3].Text = phaseFailure, "task 1 got the result of task 7"
		}, "a wrong input"},
		"a collection that has not ended": {func(h *history) {
			h.records = h.records[:len(h.records)-1]
		}, "still open"},
		"a collection that is missing": {func(h *history) {
			h.plan.id = newCollectionID(0)
		}, "is not in the ledger"},
		"a record that breaks the format": {func(h *history) {
			h.started(0, 2, worker)
			h.records[7].Key = nil
		}, "is invalid"},
		"a task that succeeds and begins again": {func(h *history) {
			h.note(phaseStart, 1, 5)
		}, "began again as attempt 5"},
		"a failure that nobody asked for": {func(h *history) {
			h.records = h.records[:6]
			h.add(ledger.TaskFailed{
				CollectionID: h.plan.id, Tenant: "default", Run: 1, TaskID: h.plan.tasks[1].ID, AttemptID: 5, Worker: worker,
				Error: ledger.TaskError{Code: ledger.CodeLost, Audience: ledger.AudienceOperator},
			})
		}, `ended as "failed" (lost)`},
		"an attempt that was given up": {func(h *history) {
			h.records = h.records[:6]
			h.add(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: 2, Worker: other})
			claim := int64(6)
			h.add(ledger.TaskFailed{
				CollectionID: h.plan.id, Tenant: "default", Run: 1, TaskID: h.plan.tasks[1].ID, AttemptID: 5, Worker: other, ByClaim: &claim,
				Error: ledger.TaskError{Code: ledger.CodeInterrupted, Audience: ledger.AudienceOperator},
			})
		}, "was given up (failed), and its handler had ended"},
	}
	for name, tt := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t)
			tt.plant(h)
			j := judge(map[int32][]*kgo.Record{0: h.records}, h.notes, []plan{h.plan})
			j.checkFinished()
			j.checkUninterrupted()
			var found []string
			for _, f := range j.findings {
				found = append(found, f.text)
			}
			if tt.want == "" {
				require.Empty(t, found)
				return
			}
			require.Contains(t, strings.Join(found, "\n"), tt.want)
		})
	}
}

// The two folds do not share a mistake about what counts: where the second one is
// told a lie, they differ.
func TestFoldsThatDifferAreFound(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.started(1, 2, worker) // refused, as the run has ended
	h.succeeded(1, 5)
	h.add(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: 1, Worker: other}) // refused, it names no claim
	second := newAudit()
	fold := ledger.NewPartition(0)
	for _, r := range h.records {
		out, err := fold.Apply(ledgerRecord(r))
		require.NoError(t, err)
		accepted, err := second.judge(r)
		require.NoError(t, err)
		require.Equal(t, r.Offset < 7, accepted)
		require.Equal(t, accepted, out.Verdict == ledger.Accepted)
	}
	second = newAudit()
	second.runs[h.plan.id] = &auditRun{}
	accepted, err := second.judge(h.records[1])
	require.NoError(t, err)
	require.False(t, accepted)
}
