package readmodel_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

func TestOpenRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	_, err := readmodel.Open(t.Context(), readmodel.Config{URL: "postgres://x"})
	require.ErrorContains(t, err, "Logger")
	for _, schema := range []string{"Upper", "a;drop", "a b", `a"b`, "1a", fmt.Sprintf("%049d", 0)} {
		_, err := readmodel.Open(t.Context(), readmodel.Config{URL: "postgres://x", Schema: schema, Logger: quiet()})
		require.ErrorContains(t, err, "schema", schema)
	}
	_, err = readmodel.Open(t.Context(), readmodel.Config{URL: "postgres://u:secret@h:port/", Logger: quiet()})
	require.ErrorContains(t, err, "URL")
	require.NotContains(t, err.Error(), "secret")
}

func TestOpenReportsAServerThatIsAway(t *testing.T) {
	t.Parallel()
	_, err := readmodel.Open(t.Context(), readmodel.Config{URL: "postgres://u@127.0.0.1:1/d", Logger: quiet()})
	require.ErrorIs(t, err, readmodel.ErrUnreachable)
}

// Processes that start at once migrate once.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	first, err := readmodel.Open(t.Context(), readmodel.Config{URL: url, Logger: quiet()})
	require.NoError(t, err)
	t.Cleanup(first.Close)
	require.ErrorIs(t, first.Ready(t.Context()), readmodel.ErrNotMigrated)
	_, err = first.Positions(t.Context())
	require.ErrorIs(t, err, readmodel.ErrNotMigrated)

	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			s, err := readmodel.Open(t.Context(), readmodel.Config{URL: url, Logger: quiet()})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer s.Close()
			if err := s.Migrate(t.Context()); err != nil {
				t.Errorf("migrate: %v", err)
			}
		})
	}
	starting.Wait()
	require.NoError(t, first.Ready(t.Context()))
	require.NoError(t, first.Migrate(t.Context()), "again")
}

// Two schemas of one database know nothing of each other.
func TestSchemasAreApart(t *testing.T) {
	t.Parallel()
	f := setup(t)
	other := f.open(t, "keten_2")
	newStory(t, f, 1)
	positions, err := other.Positions(t.Context())
	require.NoError(t, err)
	require.Empty(t, positions)
}

func TestCheckpointsOfAnotherLedger(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, err := f.Checkpoints(t.Context(), f.ledgerID, 2)
	require.NoError(t, err)
	_, err = f.Checkpoints(t.Context(), uuid.Must(uuid.NewV7()), 2)
	require.ErrorIs(t, err, readmodel.ErrOtherLedger)
}

// A writer whose checkpoint was moved writes nothing at all, not even in the
// partitions where it was right.
func TestWriteConflict(t *testing.T) {
	t.Parallel()
	f := setup(t)
	stored, err := f.Checkpoints(t.Context(), f.ledgerID, 2)
	require.NoError(t, err)
	s := newStory(t, f, 2) // moves partition 0
	before := dump(t, f.Store)

	for name, bad := range map[string]readmodel.Checkpoint{
		"moved":        stored[0],
		"other ledger": {LedgerID: uuid.Must(uuid.NewV7()), Next: s.fold.Position()},
		"not there":    {Partition: 7, LedgerID: f.ledgerID},
	} {
		var changes []*readmodel.Changes
		for _, from := range []readmodel.Checkpoint{bad, stored[1]} {
			c := readmodel.NewChanges(from)
			c.To.Next = from.Next + 1
			fold := ledger.NewPartition(from.Partition)
			r := ledger.Record{Partition: from.Partition, Value: []byte("?")}
			o, err := fold.Apply(r)
			require.NoError(t, err)
			c.Add(r, o)
			changes = append(changes, c)
		}
		require.ErrorIs(t, f.Write(t.Context(), changes), readmodel.ErrConflict, name)
		equalDumps(t, before, dump(t, f.Store), name)
	}
}

// Writers that overlap in any order neither block each other for good nor lose
// a count: of those that meet in a partition one succeeds.
func TestWriteAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const partitions, writers, rounds = 6, 4, 40
	_, err := f.Checkpoints(t.Context(), f.ledgerID, partitions)
	require.NoError(t, err)
	var mu sync.Mutex
	written, conflicts := 0, 0
	var writing sync.WaitGroup
	for w := range writers {
		s := f.open(t, "") // a process of its own
		writing.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				n, err := writeSome(t.Context(), f.ledgerID, s, rng, partitions)
				mu.Lock()
				switch {
				case err == nil:
					written += n
				case errors.Is(err, readmodel.ErrConflict):
					conflicts++
				default:
					t.Errorf("write: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	require.Positive(t, conflicts)
	positions, err := f.Positions(t.Context())
	require.NoError(t, err)
	sum := 0
	for _, p := range positions {
		sum += int(p.Offset)
	}
	require.Equal(t, written, sum)
	counted := int64(0)
	for _, tenant := range []string{"a", "b", "c"} {
		page, err := f.Collections(t.Context(), readmodel.Filter{Tenant: tenant})
		require.NoError(t, err)
		counted += page.Counts[ledger.StatusPending]
	}
	require.Equal(t, int64(written), counted)
}

// writeSome creates a collection in each of some partitions.
func writeSome(ctx context.Context, id uuid.UUID, s *readmodel.Store, rng *rand.Rand, partitions int) (int, error) {
	stored, err := s.Checkpoints(ctx, id, int32(partitions))
	if err != nil {
		return 0, err
	}
	var changes []*readmodel.Changes
	for _, p := range rng.Perm(partitions)[:1+rng.IntN(4)] {
		c := readmodel.NewChanges(stored[p])
		random := [8]byte{byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))}
		e := creation(ledger.NewCollectionID(int32(p), time.UnixMilli(startMS), random), string(rune('a'+rng.IntN(3))), "x")
		c.Add(ledger.Record{}, ledger.Outcome{
			Envelope: ledger.Envelope{EventID: uuid.New(), Type: "keten.v1.CollectionCreated", Event: e},
			Offset:   stored[p].Next, TimeMS: startMS, Verdict: ledger.Accepted,
		})
		c.To.Next++
		changes = append(changes, c)
	}
	return len(changes), s.Write(ctx, changes)
}

// A value that PostgreSQL refuses undoes the whole batch and is named.
func TestWriteRefused(t *testing.T) {
	t.Parallel()
	f := setup(t)
	stored, err := f.Checkpoints(t.Context(), f.ledgerID, 1)
	require.NoError(t, err)
	before := dump(t, f.Store)
	c := readmodel.NewChanges(stored[0])
	e := creation(newID(1), "acme", "a")
	// A number that the ledger's gate never lets through.
	c.Add(ledger.Record{Value: []byte(`{"x":1e200000}`)}, ledger.Outcome{
		Envelope: ledger.Envelope{Type: "keten.v1.CollectionCreated", Event: e}, TimeMS: startMS, Verdict: ledger.Accepted,
	})
	c.To.Next = 1
	err = f.Write(t.Context(), []*readmodel.Changes{c})
	var refused *readmodel.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "insert events", refused.Statement)
	require.NotEmpty(t, refused.Code)
	equalDumps(t, before, dump(t, f.Store), "something of the batch stayed")
}

// Strings that PostgreSQL refuses are stored all the same, wherever they come
// from; what only looks like one stays as it is.
func TestWriteCleansStrings(t *testing.T) {
	t.Parallel()
	f := setup(t)
	stored, err := f.Checkpoints(t.Context(), f.ledgerID, 1)
	require.NoError(t, err)
	c := readmodel.NewChanges(stored[0])
	e := creation(newID(1), "acme", "a", "b", "c")
	e.Name = "a\x00b\xffc"
	e.Tasks[0].Args = []byte(`{"a\u0000":"\\\u0000\u0000"}`)
	e.Tasks[1].Args = []byte(`"\\u0000"`)
	e.Tasks[2].Args = []byte(`"\"\\\\u0000"`)
	c.Add(ledger.Record{}, ledger.Outcome{
		Envelope: ledger.Envelope{EventID: uuid.New(), Type: "keten.v1.\x00", Event: e}, TimeMS: startMS, Verdict: ledger.Accepted,
	})
	c.To.Next = 1
	require.NoError(t, f.Write(t.Context(), []*readmodel.Changes{c}))
	got, err := f.Collection(t.Context(), "acme", newID(1))
	require.NoError(t, err)
	require.Equal(t, "a\uFFFDb\uFFFDc", got.Name)
	require.JSONEq(t, `{"a\ufffd":"\\\ufffd\ufffd"}`, string(got.Tasks[0].Definition.Args))
	require.JSONEq(t, `"\\u0000"`, string(got.Tasks[1].Definition.Args))
	require.JSONEq(t, `"\"\\\\u0000"`, string(got.Tasks[2].Definition.Args))
}
