package readmodel_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

// fixture is an empty database with a store in it.
type fixture struct {
	*readmodel.Store

	url      string
	ledgerID uuid.UUID
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func setup(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{url: pgtest.URL(t), ledgerID: uuid.MustParse("0197a1b2-0000-7000-8000-00000000c0de")}
	f.Store = f.open(t, "")
	return f
}

// open returns a migrated store of the same database.
func (f *fixture) open(t testing.TB, schema string) *readmodel.Store {
	t.Helper()
	s, err := readmodel.Open(t.Context(), readmodel.Config{URL: f.url, Schema: schema, Logger: quiet()})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

func (f *fixture) history(t testing.TB, o history.Options) [][]ledger.Record {
	t.Helper()
	o.LedgerID = f.ledgerID
	logs, err := history.Make(o)
	require.NoError(t, err)
	return logs
}

// writer projects the logs of a history in batches, as a projector does.
type writer struct {
	store       *readmodel.Store
	ledgerID    uuid.UUID
	logs        [][]ledger.Record
	folds       []*ledger.Partition
	checkpoints []readmodel.Checkpoint
}

func newWriter(t testing.TB, s *readmodel.Store, id uuid.UUID, logs [][]ledger.Record) *writer {
	t.Helper()
	w := &writer{store: s, ledgerID: id, logs: logs}
	for i := range logs {
		w.folds = append(w.folds, ledger.NewPartition(int32(i)))
	}
	var err error
	w.checkpoints, err = s.Checkpoints(t.Context(), id, int32(len(logs)))
	require.NoError(t, err)
	require.Len(t, w.checkpoints, len(logs))
	return w
}

// next takes up to n records of a partition, nil when there are none.
func (w *writer) next(t testing.TB, partition, n int) *readmodel.Changes {
	t.Helper()
	p := w.folds[partition]
	log := w.logs[partition][p.Position():]
	log = log[:min(n, len(log))]
	if len(log) == 0 {
		return nil
	}
	c := readmodel.NewChanges(w.checkpoints[partition])
	for _, r := range log {
		o, err := p.Apply(r)
		require.NoError(t, err)
		c.Add(r, o)
	}
	c.To = readmodel.CheckpointOf(w.ledgerID, p)
	w.checkpoints[partition] = c.To
	return c
}

// all writes what is left, each batch with up to most() records of each
// partition.
func (w *writer) all(t testing.TB, most func() int) {
	t.Helper()
	for {
		var batch []*readmodel.Changes
		left := false
		for i := range w.logs {
			left = left || w.folds[i].Position() < int64(len(w.logs[i]))
			if c := w.next(t, i, most()); c != nil {
				batch = append(batch, c)
			}
		}
		if !left {
			return
		}
		require.NoError(t, w.store.Write(t.Context(), batch))
	}
}

func upTo(rng *rand.Rand, n int) func() int { return func() int { return rng.IntN(n + 1) } }

func always(n int) func() int { return func() int { return n } }

// equalDumps fails with the first line that differs, not with all of them.
func equalDumps(t testing.TB, want, got, message string) {
	t.Helper()
	if want == got {
		return
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			require.FailNow(t, message, "line %d:\nwant %.2000s\ngot  %.2000s", i+1, w[i], g[i])
		}
	}
	require.FailNow(t, message, "want %d lines, got %d", len(w), len(g))
}

func dump(t testing.TB, s *readmodel.Store) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, s.Dump(t.Context(), &b))
	return b.String()
}
