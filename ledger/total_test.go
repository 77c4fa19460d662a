package ledger_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// teller folds what it is told and expects it to be accepted.
type teller struct {
	t *testing.T
	p *ledger.Partition
}

func newTeller(t *testing.T) *teller {
	t.Helper()
	w := &teller{t, ledger.NewPartition(0)}
	w.tell(ledger.LedgerOpened{LedgerID: uuid.MustParse("018c0000-0000-4000-8000-000000000001"), Partitions: 1, Rules: ledger.Rules, Window: 100})
	w.tell(ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "w1"})
	return w
}

func (w *teller) record(e ledger.Event) ledger.Record { return record(w.t, 0, w.p.Position(), e, nil) }

func (w *teller) fold(r ledger.Record) ledger.Outcome {
	out, err := w.p.Apply(r)
	require.NoError(w.t, err)
	return out
}

func (w *teller) tell(e ledger.Event) {
	out := w.fold(w.record(e))
	require.Equal(w.t, ledger.Accepted, out.Verdict, out.Reason)
}

func (w *teller) create(name string, f map[string]string) {
	id := collectionID(name)
	w.tell(ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: w.p.Position(), Tasks: tasks(id, f)})
}

func (w *teller) failFirst(name string) {
	id := collectionID(name)
	task, at := ledger.TaskID(id, ledger.KindTask, 0), w.p.Position()
	w.tell(ledger.TaskStarted{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, Attempt: 1, Claim: 1, Worker: "w1"})
	w.tell(ledger.TaskFailed{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: at, Worker: "w1", Error: ledger.TaskError{Code: "x", Audience: "user", Retryable: true}})
}

func varints(ns ...int64) (b []byte) {
	for _, n := range ns {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func swapped(t *testing.T, b, from, to []byte) []byte {
	t.Helper()
	require.Equal(t, 1, bytes.Count(b, from))
	return bytes.Replace(b, from, to, 1)
}

// A snapshot with values that no history leads to is refused: the fold would
// divide by zero or count for ever later on.
func TestRestoreRefusesImpossibleValues(t *testing.T) {
	t.Parallel()
	w := newTeller(t)
	w.create("A", map[string]string{"tasks": "1", "max": "5"})
	w.failFirst("A")
	s := w.p.Snapshot()
	_, err := ledger.Restore(s)
	require.NoError(t, err)
	failed := w.p.Position() - 2 // its attempt
	for name, b := range map[string][]byte{
		"back-off":    swapped(t, s, varints(1000, 2, 300_000), varints(1000, 2, -2)),
		"failures":    swapped(t, s, varints(1, 1, 0, 0, failed), varints(1, 1<<60, 0, 0, failed)),
		"bytes":       append(bytes.Clone(s), 0),
		"not UTF-8":   swapped(t, s, []byte("noop"), []byte("no\xffp")),
		"half":        s[:len(s)/2],
		"other codec": append(append(bytes.Clone(s[:16]), varints(2)...), s[17:]...),
	} {
		_, err := ledger.Restore(b)
		require.ErrorIs(t, err, ledger.ErrSnapshot, name)
	}
}

// One buffer has one answer, also when two runs claim one offset.
func TestRestoreIsDeterministic(t *testing.T) {
	t.Parallel()
	w := newTeller(t)
	w.create("A", map[string]string{"tasks": "1"}) // at 2
	w.create("B", map[string]string{"tasks": "1"}) // at 3
	b := swapped(t, w.p.Snapshot(), varints(3000, 3), varints(3000, 2))
	for range 50 {
		_, err := ledger.Restore(b)
		require.ErrorIs(t, err, ledger.ErrSnapshot)
	}
}

// A few bytes that promise many entries do not keep Restore busy.
//
//nolint:paralleltest // allocations are counted
func TestRestoreStopsAtTheFirstError(t *testing.T) {
	s := ledger.NewPartition(0).Snapshot()
	for _, at := range []int{4, 3, 2, 1} { // claims, active, ending, window: none of each
		b := append(bytes.Clone(s[:len(s)-at]), varints(8<<20)...)
		b = append(b, bytes.Repeat([]byte{0xff}, 8<<20)...)
		allocs := testing.AllocsPerRun(1, func() {
			_, err := ledger.Restore(b)
			require.Error(t, err)
		})
		require.Less(t, allocs, 1_000.0)
	}
}

// What the fold says about a record is short and in ASCII, whatever is in the
// record: rows and logs hold it, and which characters print depends on the build.
func TestReasonsAreTame(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`\u0000` + strings.Repeat("x", 700_000), "\U0001FAE9", strings.Repeat("\u00e9", 1_000)} {
		w := newTeller(t)
		r := w.record(ledger.PartitionClaimed{Queue: "q", Prev: -1, Worker: "w"})
		r.Value = []byte(`{"queue":"q","` + name + `":1,"prev":-1,"worker":"w"}`)
		out := w.fold(r)
		require.Equal(t, ledger.Invalid, out.Verdict)
		require.Less(t, len(out.Reason), 6_000)
		require.Equal(t, -1, strings.IndexFunc(string(out.Reason), func(r rune) bool { return r < ' ' || r > '~' }), out.Reason)
	}
	w := newTeller(t)
	r := w.record(ledger.PartitionClaimed{Queue: "q", Prev: -1, Worker: "w"})
	r.Headers = append([]ledger.Header{{Key: ledger.HeaderType, Value: []byte("keten.\x00\xff" + strings.Repeat("x", 700_000))}}, r.Headers...)
	out := w.fold(r)
	require.Equal(t, ledger.Invalid, out.Verdict)
	require.Less(t, len(out.Type), 6_000)
}

// The definitions are measured as they stand in the record: 600 KB of them are
// too much, also if they could be written in less.
func TestDefinitionsAreMeasuredAsWritten(t *testing.T) {
	t.Parallel()
	w := newTeller(t)
	id := collectionID("A")
	list := tasks(id, map[string]string{"tasks": "3"})
	for i := range list {
		list[i].Args = json.RawMessage(`"` + strings.Repeat("a", 30_000) + `"`)
	}
	e := ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "n", RequestHash: strings.Repeat("0", 64), AsOf: w.p.Position(), Tasks: list}
	for _, args := range []string{`"` + strings.Repeat(`\/`, 100_000) + `"`, `[` + strings.Repeat(" ", 200_000) + `1]`} {
		r := w.record(e)
		r.Value = bytes.ReplaceAll(r.Value, []byte(`"`+strings.Repeat("a", 30_000)+`"`), []byte(args))
		out := w.fold(r)
		require.Equal(t, ledger.Invalid, out.Verdict)
		require.Regexp(t, `^/tasks: definitions are 60\d{4} bytes long, at most 458752 are allowed$`, string(out.Reason))
	}
	w.tell(ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "n", RequestHash: e.RequestHash, AsOf: w.p.Position(), Tasks: list})
}

// ce_id is a UUIDv7 in one spelling.
func TestEventIDIsAUUIDv7(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"018c0000-0000-7000-0000-000000000001", "018C0000-0000-7000-8000-00000000000A", "018c0000-0000-4000-8000-000000000001"} {
		w := newTeller(t)
		r := w.record(ledger.PartitionClaimed{Queue: "q", Prev: -1, Worker: "w"})
		for i := range r.Headers {
			if r.Headers[i].Key == ledger.HeaderID {
				r.Headers[i].Value = []byte(id)
			}
		}
		require.Equal(t, ledger.Invalid, w.fold(r).Verdict, id)
	}
}

// The position never moves back.
func TestTheLastOffsetHalts(t *testing.T) {
	t.Parallel()
	w := newTeller(t)
	_, err := w.p.Apply(ledger.Record{Offset: math.MaxInt64})
	var halt *ledger.HaltError
	require.ErrorAs(t, err, &halt)
	require.EqualValues(t, 2, w.p.Position())
}
