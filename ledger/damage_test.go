package ledger_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// rich is a fold with some of everything in it.
func rich(t *testing.T) *stream {
	t.Helper()
	s := told(t, "LedgerOpened window=50", "PartitionClaimed worker=w1", "PartitionClaimed queue=gpu worker=w2",
		"CollectionCreated c=A tasks=2 max=2 lane=x finally=2", "CollectionCreated c=B tasks=2 lane=x", "CollectionCreated c=C tasks=2 max=2",
		"TaskStarted c=A", "TaskStarted c=C", "TaskFailed c=C id=7 retryable=true after=900",
		"CollectionCreated c=D tasks=2 finally=1", "TaskStarted c=D", "TaskFailed c=D id=10 message=no", "TaskStarted c=D f=0",
		"PartitionReleased claim=1 running=6,12 grace=700", "PartitionClaimed worker=w1 prev=1", "TaskDeferred c=D f=0 id=12",
		"RetryRequested c=D from=1 attempts=1 finally=1", "CancelRequested c=D run=2", "CancelRequested c=A")
	return s
}

// A snapshot that was cut off anywhere, or has anything behind it, is refused.
func TestRestoreRefusesHalves(t *testing.T) {
	t.Parallel()
	whole := rich(t).p.Snapshot()
	for n := range whole {
		_, err := ledger.Restore(whole[:n])
		require.ErrorIs(t, err, ledger.ErrSnapshot, "%d of %d bytes", n, len(whole))
	}
	_, err := ledger.Restore(append(slices.Clone(whole), 0))
	require.ErrorIs(t, err, ledger.ErrSnapshot)
}

// Damage anywhere: a byte is another one, or makes way for a number that is none
// of a snapshot's. The snapshot is refused, or is that of another fold, which
// then works as any. Every check has its own words.
func TestRestoreRefusesDamage(t *testing.T) {
	t.Parallel()
	whole := rich(t).p.Snapshot()
	numbers := [][]byte{binary.AppendVarint(nil, 300), binary.AppendVarint(nil, -300), binary.AppendVarint(nil, 1<<62), binary.AppendVarint(nil, -1<<62), slices.Repeat([]byte{0xff}, 11)}
	seen := map[string]bool{}
	try := func(b []byte) {
		p, err := ledger.Restore(b)
		for i := 0; i < 5 && (err == nil || strings.Contains(err.Error(), "canonical")); i++ { // whatever the order of maps
			_, again := ledger.Restore(b)
			require.Equal(t, err == nil, again == nil, "%v", errors.Join(err, again))
		}
		if err != nil {
			require.ErrorIs(t, err, ledger.ErrSnapshot)
			seen[err.Error()] = true
			return
		}
		require.True(t, bytes.Equal(b, p.Snapshot()), "one state, one snapshot: %x", b)
		require.NotPanics(t, func() { useAll(t, p) })
	}
	for i := range whole {
		for _, flip := range []byte{1, 2, 4, 6, 0x80} {
			b := slices.Clone(whole)
			b[i] ^= flip
			try(b)
		}
		for _, n := range numbers {
			try(slices.Concat(whole[:i], n, whole[i+1:]))
		}
	}
	for _, text := range []string{
		"is of codec 2, this build knows 1", "is of rules version 2, this build knows 1", "ends within a number", "ends within a value",
		"names more entries than it has", "has a number beyond 32 bits", "has data behind its end", "is not in canonical form",
		"has collection " + collectionID("A").String() + " twice, or out of order", "at task -1 of 2", "at task 2 of 2", "has a run with 300 tasks", "has a text that is not UTF-8", "has a task that no event can bring: /max_attempts", "failures of at most 2",
	} {
		require.True(t, slices.ContainsFunc(sortedKeys(seen), func(s string) bool { return strings.Contains(s, text) }), "nothing is refused because it %s", text)
	}
}

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// useAll asks a fold all it can be asked.
func useAll(t *testing.T, p *ledger.Partition) {
	t.Helper()
	for _, queue := range []string{"default", "gpu"} {
		c, _ := p.Claim(queue)
		for _, a := range p.Next(queue, c.Worker, holdsNothing) {
			_, _ = p.OpenAttempt(a.RunID())
			_, _ = p.StartAfter(a.RunID(), queue, c.Worker)
		}
	}
	_, err := p.Apply(ledger.Record{Partition: p.Index(), Offset: p.Position(), Value: []byte("tick")})
	var halt *ledger.HaltError
	require.True(t, err == nil || errors.As(err, &halt))
}

// A fold keeps nothing of the bytes that it was restored from: they are a
// buffer that is used again.
func TestRestoreKeepsNoBytes(t *testing.T) {
	t.Parallel()
	b := rich(t).p.Snapshot()
	p, err := ledger.Restore(b)
	require.NoError(t, err)
	want := p.StateHash()
	for i := range b {
		b[i] = 'x'
	}
	require.Equal(t, want, p.StateHash())
}

// Equal folds have equal snapshots, whatever the order of maps.
func TestSnapshotsAreCanonical(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened")
	for _, c := range []string{"D", "B", "F", "C", "A", "E"} {
		s.tell("CollectionCreated finally=1 c="+c, "CancelRequested c="+c, "RetryRequested c="+c, "PartitionClaimed queue="+c)
	}
	want := s.p.Snapshot()
	for range 50 {
		require.Equal(t, want, s.p.Snapshot())
	}
	require.Equal(t, want, restored(t, s.p).Snapshot())
}

// A restored fold knows all of a definition, and of where it stands.
func TestRestoredFoldKnowsAll(t *testing.T) {
	t.Parallel()
	p := ledger.NewPartition(3)
	id := ledger.NewCollectionID(3, time.UnixMilli(1), [8]byte{1})
	e := ledger.CollectionCreated{CollectionID: id, Tenant: "t", Name: "n", RequestHash: strings.Repeat("a", 64), AsOf: 2}
	e.Tasks = []ledger.Task{{
		ID: ledger.TaskID(id, ledger.KindTask, 0), Name: "one", Type: "type", Queue: "gpu", Description: "what it does", Args: json.RawMessage(`{"a":1}`),
		Immutable: true, OnInterrupt: ledger.OnInterruptFail, MaxAttempts: 1, Backoff: ledger.Backoff{InitialMS: 7, Multiplier: 8, MaxMS: 9}, TimeoutMS: 10,
	}}
	for i, event := range []ledger.Event{
		ledger.LedgerOpened{LedgerID: id, Partitions: 12, Rules: ledger.Rules, Window: 5},
		ledger.PartitionClaimed{Queue: "gpu", Prev: -1, Worker: "w"},
		e,
		ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 1, TaskID: e.Tasks[0].ID, Attempt: 1, Claim: 1, Worker: "w"},
	} {
		r := record(t, 3, int64(i), event, nil)
		r.LeaderEpoch = 4
		out, err := p.Apply(r)
		require.NoError(t, err)
		require.Equal(t, ledger.Accepted, out.Verdict, out.Reason)
	}
	q := restored(t, p)
	require.EqualValues(t, 3, q.Index())
	require.EqualValues(t, 4, q.LeaderEpoch())
	require.Equal(t, p.Position(), q.Position())
	require.Equal(t, p.LastHash(), q.LastHash())
	require.Equal(t, p.ChainHash(), q.ChainHash())
	want, ok := p.OpenAttempt(ledger.RunID{Collection: id, Run: 1})
	require.True(t, ok)
	e.Tasks[0].Attempts = 1
	require.Equal(t, want.Task, e.Tasks[0])
	got, ok := q.OpenAttempt(ledger.RunID{Collection: id, Run: 1})
	require.True(t, ok)
	require.Equal(t, want, got)
}

// A loss that is owed would let a task kill its process once more often.
func TestRestoreRefusesNegativeLosses(t *testing.T) {
	t.Parallel()
	w := newTeller(t)
	w.create("A", map[string]string{"tasks": "1", "max": "5"})
	w.failFirst("A")
	attempt := w.p.Position() - 2
	b := swapped(t, w.p.Snapshot(), varints(1, 1, 0, 0, attempt), varints(1, 1, -1, 0, attempt)) // waiting, failures, lost, nothing open, failed attempt
	_, err := ledger.Restore(b)
	require.ErrorIs(t, err, ledger.ErrSnapshot)
}
