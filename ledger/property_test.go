package ledger_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

// walk is a random history: two workers that claim two queues, start, finish,
// fail, defer, release and vanish, and an API that creates in and out of lanes,
// cancels, retries and repeats.
type walk struct {
	*rapid.T
	p     *ledger.Partition
	past  []ledger.Record
	ended map[uuid.UUID]ledger.RunChange
	runs  map[uuid.UUID]int // the last one
	names []string
}

const walkWindow = 40

func newWalk(t *rapid.T) *walk {
	w := &walk{
		T: t, p: ledger.NewPartition(0), ended: map[uuid.UUID]ledger.RunChange{}, runs: map[uuid.UUID]int{},
		names: strings.Split("A B C D E F G H", " "),
	}
	w.apply(ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: walkWindow})
	w.claim()
	return w
}

func (w *walk) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"claim": func(*rapid.T) { w.claim() }, "create": func(*rapid.T) { w.create() }, "next": func(*rapid.T) { w.actNext() },
		"outcome": func(*rapid.T) { w.outcome() }, "outcome again": func(*rapid.T) { w.outcome() }, "retry": func(*rapid.T) { w.retry() },
		"cancel": func(*rapid.T) { w.cancel() }, "release": func(*rapid.T) { w.release() }, "defer": func(*rapid.T) { w.deferOutcome() },
		"repeat": func(*rapid.T) { w.repeat() }, "foreign": func(*rapid.T) { w.foreign() },
	}
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

func (w *walk) queue() string {
	return rapid.SampledFrom([]string{"default", "default", "gpu"}).Draw(w.T, "queue")
}

func (w *walk) pick() uuid.UUID {
	return collectionID(rapid.SampledFrom(w.names).Draw(w.T, "collection"))
}

// open returns the open attempt of a collection's run, mostly the last one.
func (w *walk) open(id uuid.UUID) (ledger.Attempt, bool) {
	run := w.runs[id] - rapid.IntRange(0, 1).Draw(w.T, "runs back")
	return w.p.OpenAttempt(ledger.RunID{Collection: id, Run: run})
}

func (w *walk) claim() {
	queue, prev := w.queue(), int64(-1)
	if c, ok := w.p.Claim(queue); ok {
		prev = c.Offset
	}
	out := w.apply(ledger.PartitionClaimed{Queue: queue, Prev: prev, Worker: w.worker()})
	require.Equal(w, ledger.Accepted, out.Verdict)
}

// fieldsOf are how a collection is made: its tasks' queue, its lane, its finally
// tasks; the same for all of its runs.
func fieldsOf(id uuid.UUID) map[string]string {
	switch id[8] % 4 {
	case 1: // A, E
		return map[string]string{"tasks": "3", "max": "2", "lane": "x", "finally": "1", "fmax": "2"}
	case 2: // B, F
		return map[string]string{"tasks": "3", "max": "2", "lane": "x"}
	case 3: // C, G
		return map[string]string{"tasks": "3", "on": "fail", "finally": "2"}
	}
	return map[string]string{"tasks": "3", "max": "2", "queue": "gpu"}
}

func (w *walk) create() {
	id := w.pick()
	if w.runs[id] > 0 {
		return // an honest author gives a new as_of to a new id only
	}
	f := fieldsOf(id)
	w.apply(ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: w.p.Position(),
		OrderingKey: f["lane"], Tasks: tasks(id, f), Finally: finally(id, f),
	})
}

func (w *walk) retry() {
	id := w.pick()
	run, ok := w.ended[id]
	if !ok {
		return
	}
	f := fieldsOf(id)
	out := w.apply(ledger.RetryRequested{
		CollectionID: id, Tenant: "default", Run: run.Run + 1, Name: "n", RequestHash: strings.Repeat("0", 64),
		AsOf: w.p.Position(), TaskCount: 3, OrderingKey: f["lane"], Tasks: tasks(id, f), Finally: finally(id, f),
	})
	require.Equal(w, ledger.Accepted, out.Verdict, out.Reason)
}

// actNext does what Next proposes and expects it to be accepted.
func (w *walk) actNext() {
	queue, worker := w.queue(), w.worker()
	held := rapid.Bool().Draw(w.T, "held")
	for _, a := range w.p.Next(queue, worker, func(int64) bool { return held }) {
		alone, ok := w.p.NextFor(a.RunID(), queue, worker, func(int64) bool { return held })
		if !ok {
			continue // one before it has ended its run, or moved its lane
		}
		out := w.apply(alone.Event())
		require.Equal(w, ledger.Accepted, out.Verdict, "%+v: %s", alone, out.Reason)
	}
}

func (w *walk) outcome() {
	a, ok := w.open(w.pick())
	if !ok {
		return
	}
	id := ledger.RunID{Collection: a.Collection, Run: a.Run}
	next, hasNext := w.p.StartAfter(id, a.Task.Queue, a.Worker)
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
		RetryAfterMS: rapid.Int64Range(0, 1).Draw(w.T, "retry after"),
		Error:        ledger.TaskError{Code: "exit", Message: "m", Audience: "user", Retryable: rapid.Bool().Draw(w.T, "retryable")},
	})
	require.Equal(w, ledger.Accepted, out.Verdict)
}

func (w *walk) deferOutcome() {
	a, ok := w.open(w.pick())
	if !ok {
		return
	}
	out := w.apply(ledger.TaskDeferred{CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker})
	if a.Deferred {
		require.Equal(w, ledger.Duplicate, out.Verdict)
		return
	}
	require.Equal(w, ledger.Accepted, out.Verdict)
}

func (w *walk) cancel() {
	a, ok := w.open(w.pick())
	if !ok {
		return
	}
	w.apply(ledger.CancelRequested{CollectionID: a.Collection, Tenant: "default", Run: a.Run, RequestHash: strings.Repeat("0", 64)})
}

// release gives back a claim, the current one or an older one, with some of the
// open attempts listed.
func (w *walk) release() {
	queue := w.queue()
	c, ok := w.p.Claim(queue)
	if !ok {
		return
	}
	var running []int64
	for _, name := range w.names {
		if a, ok := w.open(collectionID(name)); ok && rapid.Bool().Draw(w.T, "listed") {
			running = append(running, a.ID)
		}
	}
	claim := max(c.Offset-rapid.Int64Range(0, 1).Draw(w.T, "older"), 0)
	out := w.apply(ledger.PartitionReleased{Queue: queue, Claim: claim, Worker: c.Worker, Running: running, GraceMS: rapid.Int64Range(0, 2).Draw(w.T, "grace")})
	if c.Released && claim == c.Offset {
		require.Equal(w, ledger.Duplicate, out.Verdict)
		return
	}
	require.Equal(w, ledger.Accepted, out.Verdict)
}

// repeat appends an old record once more. Nothing that is repeated is accepted
// again, but for the release of an older claim, which says again what drains.
func (w *walk) repeat() {
	r := w.past[rapid.IntRange(0, len(w.past)-1).Draw(w.T, "old")]
	r.Offset = w.p.Position()
	if string(r.Headers[2].Value) == "keten.v1.PartitionReleased" {
		return
	}
	before := meaning(w, w.p)
	out := w.fold(r)
	require.NotEqual(w, ledger.Accepted, out.Verdict, "a repeated %s was accepted", out.Type)
	require.Equal(w, before, meaning(w, w.p))
}

func (w *walk) foreign() {
	before := meaning(w, w.p)
	out := w.fold(ledger.Record{
		Offset: w.p.Position(), Value: rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(w.T, "bytes"),
		Headers: []ledger.Header{{Key: "a"}, {Key: "b"}, {Key: ledger.HeaderType, Value: []byte("com.example.thing")}},
	})
	require.Equal(w, ledger.Foreign, out.Verdict)
	require.Equal(w, before, meaning(w, w.p))
}

// meaning is what a fold has to say about the work to be done: all that a
// record which is refused must leave alone.
func meaning(t require.TestingT, p *ledger.Partition) string {
	var b strings.Builder
	for _, queue := range []string{"default", "gpu"} {
		c, _ := p.Claim(queue)
		fmt.Fprintf(&b, "%s %+v\n", queue, c)
		for _, worker := range []string{"w1", "w2"} {
			for _, a := range p.Next(queue, worker, func(int64) bool { return false }) {
				fmt.Fprintf(&b, "%+v\n", a)
				open, ok := p.OpenAttempt(a.RunID())
				fmt.Fprintf(&b, "%t %+v\n", ok, open)
			}
		}
	}
	fmt.Fprintf(&b, "%d active, %d ending", p.Active(), p.Ending())
	return b.String()
}

// Whatever Next or StartAfter proposes where the fold stands is accepted;
// repeated records never are; foreign ones change nothing.
func TestNextIsAcceptedAndRepeatsAreNot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt)
		rt.Repeat(w.actions())
	})
}

// Any log has one meaning, wherever a reader begins: a fold that was restored
// from a snapshot, at every prefix, gives the same outcomes and the same state
// as one that read everything. This is what lets a reader resume.
func TestRestoreAndTailIsFullReplay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt)
		rt.Repeat(w.actions())
		var resumed []*ledger.Partition // one for every prefix
		full := ledger.NewPartition(0)
		for _, r := range w.past {
			resumed = append(resumed, restored(rt, full))
			want, err := full.Apply(r)
			require.NoError(rt, err)
			wantMeaning := meaning(rt, full)
			for at, p := range resumed {
				got, err := p.Apply(r)
				require.NoError(rt, err)
				require.Equal(rt, shown(rt, want), shown(rt, got), "offset %d, restored before %d", r.Offset, at)
				require.Equal(rt, wantMeaning, meaning(rt, p), "offset %d, restored before %d", r.Offset, at)
			}
			if len(resumed) > 12 {
				resumed = slices.Delete(resumed, 0, 1) // some prefixes are enough for each record
			}
		}
		for _, p := range resumed {
			require.Equal(rt, full.StateHash(), p.StateHash())
		}
		require.Equal(rt, w.p.StateHash(), full.StateHash())
	})
}

func shown(t require.TestingT, o ledger.Outcome) string {
	b, err := json.Marshal(o)
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "null", "[]") // its lists may be nil or empty
}

// Where foreign records stand between ours, and in which order, means nothing
// to ours.
func TestForeignRecordsMeanNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt)
		rt.Repeat(w.actions())
		swapped := slices.Clone(w.past)
		foreign := indexes(swapped, func(r ledger.Record) bool { return len(r.Key) == 0 && r.Headers[0].Key == "a" })
		for i, j := range rapid.Permutation(foreign).Draw(rt, "order") {
			swapped[foreign[i]] = w.past[j]
			swapped[foreign[i]].Offset = w.past[foreign[i]].Offset
		}
		p := ledger.NewPartition(0)
		for _, r := range swapped {
			_, err := p.Apply(r)
			require.NoError(rt, err)
		}
		require.Equal(rt, meaning(rt, w.p), meaning(rt, p))
	})
}

func indexes(records []ledger.Record, is func(ledger.Record) bool) []int {
	var list []int
	for i, r := range records {
		if is(r) {
			list = append(list, i)
		}
	}
	return list
}

// A snapshot is as large as what is active and the window, however long the
// history was.
func TestSnapshotsDoNotGrowWithHistory(t *testing.T) {
	t.Parallel()
	p := ledger.NewPartition(0)
	apply := func(e ledger.Event) ledger.Outcome {
		out, err := p.Apply(record(t, 0, p.Position(), e, nil))
		require.NoError(t, err)
		require.Equal(t, ledger.Accepted, out.Verdict, out.Reason)
		return out
	}
	apply(ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: 100})
	sizes := map[int]int{}
	for i := range 2_000 {
		id := collectionID("A")
		id[9], id[10] = byte(i>>8), byte(i)
		apply(ledger.CollectionCreated{
			CollectionID: id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: p.Position(), OrderingKey: "x",
			Tasks: tasks(id, nil),
		})
		apply(ledger.CancelRequested{CollectionID: id, Tenant: "default", Run: 1, RequestHash: strings.Repeat("0", 64)})
		sizes[i] = len(p.Snapshot())
	}
	require.InDelta(t, sizes[400], sizes[1_999], 200, "only the offsets have grown")
}

// Damaged snapshots are refused, not half used, and never panic.
func FuzzRestore(f *testing.F) {
	p := ledger.NewPartition(0)
	f.Add(p.Snapshot(), 3, byte(1))
	for i, e := range []ledger.Event{
		ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: 10},
		ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "w1"},
		ledger.CollectionCreated{
			CollectionID: collectionID("A"), Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: 1, OrderingKey: "x",
			Tasks: tasks(collectionID("A"), nil), Finally: finally(collectionID("A"), map[string]string{"finally": "2"}),
		},
		started(collectionID("A")),
	} {
		_, err := p.Apply(record(f, 0, int64(i), e, nil))
		require.NoError(f, err)
	}
	f.Add(p.Snapshot(), 40, byte(0xff))
	f.Fuzz(func(t *testing.T, snapshot []byte, at int, flip byte) {
		if at >= 0 && at < len(snapshot) {
			snapshot = slices.Clone(snapshot)
			snapshot[at] ^= flip
		}
		q, err := ledger.Restore(snapshot)
		if err != nil {
			require.ErrorIs(t, err, ledger.ErrSnapshot)
			return
		}
		require.Equal(t, snapshot, q.Snapshot())
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
