package ledger_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

// walk is a random history: two workers that claim, start, finish, fail and
// vanish, and an API that creates, cancels, retries and repeats.
type walk struct {
	*rapid.T
	p     *ledger.Partition
	past  []ledger.Record
	ended map[uuid.UUID]ledger.RunChange
	runs  map[uuid.UUID]int // the last one
	names []string
}

func (w *walk) apply(e ledger.Event) ledger.Outcome {
	return w.fold(record(w, 0, w.p.Position(), e, nil))
}

func (w *walk) fold(r ledger.Record) ledger.Outcome {
	out, err := w.p.Apply(r)
	require.NoError(w, err)
	w.past = append(w.past, r)
	for _, run := range out.Runs {
		w.runs[run.Collection] = run.Run
		delete(w.ended, run.Collection)
		if run.Status == ledger.StatusFailed || run.Status == ledger.StatusCanceled {
			w.ended[run.Collection] = run
		}
	}
	return out
}

func (w *walk) worker() string { return rapid.SampledFrom([]string{"w1", "w2"}).Draw(w.T, "worker") }

func (w *walk) pick() uuid.UUID {
	return collectionID(rapid.SampledFrom(w.names).Draw(w.T, "collection"))
}

// open returns the open attempt of a collection's run under way.
func (w *walk) open(id uuid.UUID) (ledger.Attempt, bool) {
	return w.p.OpenAttempt(ledger.RunID{Collection: id, Run: w.runs[id]})
}

func (w *walk) claim() {
	prev := int64(-1)
	if c, ok := w.p.Claim("default"); ok {
		prev = c.Offset
	}
	out := w.apply(ledger.PartitionClaimed{Queue: "default", Prev: prev, Worker: w.worker()})
	require.Equal(w, ledger.Accepted, out.Verdict)
}

func (w *walk) create() {
	id := w.pick()
	w.apply(ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: w.p.Position(),
		Tasks: tasks(id, map[string]string{"tasks": "3", "max": "2"}),
	})
}

// actNext does what Next proposes and expects it to be accepted.
func (w *walk) actNext() {
	worker := w.worker()
	held := rapid.Bool().Draw(w.T, "held")
	for _, a := range w.p.Next("default", worker, func(int64) bool { return held }) {
		out := w.apply(a.Event())
		require.Equal(w, ledger.Accepted, out.Verdict, "%+v: %s", a, out.Reason)
	}
}

func (w *walk) outcome() {
	a, ok := w.open(w.pick())
	if !ok {
		return
	}
	next, hasNext := w.p.StartAfter(ledger.RunID{Collection: a.Collection, Run: a.Run}, "default", a.Worker)
	if rapid.Bool().Draw(w.T, "success") {
		out := w.apply(ledger.TaskSucceeded{CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker, Result: json.RawMessage(`1`)})
		require.Equal(w, ledger.Accepted, out.Verdict)
		if hasNext {
			require.Equal(w, ledger.Accepted, w.apply(next.Event()).Verdict, "StartAfter is right once the attempt has succeeded")
		}
		return
	}
	out := w.apply(ledger.TaskFailed{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker,
		Error: ledger.TaskError{Code: "exit", Audience: "user", Retryable: rapid.Bool().Draw(w.T, "retryable")},
	})
	require.Equal(w, ledger.Accepted, out.Verdict)
}

func (w *walk) retry() {
	id := w.pick()
	run, ok := w.ended[id]
	if !ok {
		return
	}
	out := w.apply(ledger.RetryRequested{
		CollectionID: id, Tenant: "default", Run: run.Run + 1, Name: "n", RequestHash: strings.Repeat("0", 64),
		AsOf: w.p.Position(), TaskCount: 3, Tasks: tasks(id, map[string]string{"tasks": "3", "max": "2"}),
	})
	require.Equal(w, ledger.Accepted, out.Verdict, out.Reason)
}

func (w *walk) cancel() {
	id := w.pick()
	a, ok := w.open(id)
	if !ok {
		return
	}
	w.apply(ledger.CancelRequested{CollectionID: id, Tenant: "default", Run: a.Run, RequestHash: strings.Repeat("0", 64)})
}

// repeat appends an old record once more: it must change nothing, except for
// claims and starts, which compare with what stands now.
func (w *walk) repeat() {
	if len(w.past) == 0 {
		return
	}
	r := w.past[rapid.IntRange(0, len(w.past)-1).Draw(w.T, "old")]
	r.Offset = w.p.Position()
	active := w.p.Active()
	out := w.fold(r)
	require.NotEqual(w, ledger.Accepted, out.Verdict, "a repeated %s was accepted", out.Type)
	require.Equal(w, active, w.p.Active())
}

// Whatever Next or StartAfter proposes where the fold stands is accepted;
// repeated records never are.
func TestNextIsAcceptedAndRepeatsAreNot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := &walk{T: rt, p: ledger.NewPartition(0), ended: map[uuid.UUID]ledger.RunChange{}, runs: map[uuid.UUID]int{}, names: []string{"A", "B", "C"}}
		w.apply(ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: 10_000})
		w.claim()
		rt.Repeat(map[string]func(*rapid.T){
			"claim": func(*rapid.T) { w.claim() }, "create": func(*rapid.T) { w.create() }, "next": func(*rapid.T) { w.actNext() },
			"outcome": func(*rapid.T) { w.outcome() }, "outcome again": func(*rapid.T) { w.outcome() }, "retry": func(*rapid.T) { w.retry() },
			"cancel": func(*rapid.T) { w.cancel() }, "repeat": func(*rapid.T) { w.repeat() },
		})
	})
}

// Any log has one meaning: the records decide, not how they were read.
func TestChainHashTellsHistoriesApart(t *testing.T) {
	t.Parallel()
	fold := func(names ...string) [32]byte {
		p := ledger.NewPartition(0)
		for i, n := range names {
			_, err := p.Apply(ledger.Record{Offset: int64(i), Value: []byte(n)})
			require.NoError(t, err)
		}
		return p.ChainHash()
	}
	require.NotEqual(t, fold("a", "b"), fold("b", "a"))
	require.NotEqual(t, fold("a", "b"), fold("a"))
	require.NotEqual(t, fold("ab"), fold("a", "b"))
}
