package readmodel_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

// said is what the outcomes of a fold say of all collections, in the plainest
// way: each thing as its last change left it.
type said struct {
	collections map[uuid.UUID]*saidCollection
	attempts    map[uuid.UUID][]ledger.AttemptChange // by task
}

type saidCollection struct {
	tenant string
	status ledger.Status
	run    int
	runs   []ledger.Status // from the first
	tasks  []saidTask
}

type saidTask struct {
	status   ledger.Status
	attempts int
}

func (s *said) take(o ledger.Outcome) {
	if o.Verdict != ledger.Accepted {
		return
	}
	switch e := o.Event.(type) {
	case ledger.CollectionCreated:
		s.collections[e.CollectionID] = &saidCollection{tenant: e.Tenant, tasks: make([]saidTask, len(e.Tasks))}
		s.pend(e.CollectionID, e.Tasks)
	case ledger.RetryRequested:
		s.pend(e.CollectionID, e.Tasks)
	default:
	}
	for _, c := range o.Collections {
		s.collections[c.ID].status, s.collections[c.ID].run = c.Status, c.Run
	}
	for _, r := range o.Runs {
		c := s.collections[r.Collection]
		if r.Status == ledger.StatusPending {
			c.runs = append(c.runs, r.Status)
		}
		c.runs[r.Run-1] = r.Status
	}
	for _, t := range o.Tasks {
		if t.TaskKind == ledger.KindTask {
			s.collections[t.Collection].tasks[t.Index] = saidTask{t.Status, t.Attempts}
		}
	}
	for _, a := range o.Attempts {
		list := s.attempts[a.TaskID]
		if i := slices.IndexFunc(list, func(b ledger.AttemptChange) bool { return a.ID == b.ID }); i >= 0 {
			list[i] = a
			continue
		}
		s.attempts[a.TaskID] = append(list, a)
	}
}

func (s *said) pend(id uuid.UUID, tasks []ledger.Task) {
	for _, t := range tasks {
		s.collections[id].tasks[t.Index] = saidTask{ledger.StatusPending, t.Attempts}
	}
}

// The rows say what the fold has said, of every collection, task and attempt of
// any history.
func TestRowsSayWhatTheFoldHasSaid(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			logs := f.history(t, history.Options{Seed: seed, Partitions: 2, Chains: 80, Tasks: 4, Concurrent: 6, Trouble: true})
			store := f.open(t, fmt.Sprintf("said_%d", seed))
			w := newWriter(t, store, f.ledgerID, logs)
			const parts = 5 // a history has ended all of its runs at its end, but not before
			for part := range parts {
				w.logs = nil
				for _, log := range logs {
					w.logs = append(w.logs, log[:(part+1)*len(log)/parts])
				}
				w.all(t, always(100))
				s := heard(t, w.logs)
				for id, c := range s.collections {
					s.checkCollection(t, store, id, c)
				}
				s.checkCounts(t, store)
			}
		})
	}
}

func heard(t *testing.T, logs [][]ledger.Record) *said {
	t.Helper()
	s := &said{collections: map[uuid.UUID]*saidCollection{}, attempts: map[uuid.UUID][]ledger.AttemptChange{}}
	for i, log := range logs {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			o, err := fold.Apply(r)
			require.NoError(t, err)
			s.take(o)
		}
	}
	return s
}

func (s *said) checkCollection(t *testing.T, store *readmodel.Store, id uuid.UUID, want *saidCollection) {
	t.Helper()
	row, err := store.Collection(t.Context(), want.tenant, id)
	require.NoError(t, err)
	require.Equal(t, []any{want.status, want.run}, []any{row.Status, row.Run}, id)
	got := make([]saidTask, len(row.Tasks))
	for i := range row.Tasks {
		got[i] = saidTask{row.Tasks[i].Status, row.Tasks[i].Attempts}
	}
	require.Equal(t, want.tasks, got, id)
	runs, err := store.Runs(t.Context(), want.tenant, id)
	require.NoError(t, err)
	statuses := make([]ledger.Status, len(runs))
	for i := range runs {
		statuses[i] = runs[i].Status
	}
	require.Equal(t, want.runs, statuses, id)
	done := slices.IndexFunc(want.tasks, func(t saidTask) bool { return t.status != ledger.StatusSucceeded })
	if done < 0 {
		done = len(want.tasks)
	}
	require.Equal(t, done, row.TasksDone, id)
	for i := range want.tasks {
		s.checkAttempts(t, store, want.tenant, ledger.TaskID(id, ledger.KindTask, i))
	}
	for i := range 2 {
		s.checkAttempts(t, store, want.tenant, ledger.TaskID(id, ledger.KindFinally, i))
	}
}

func (s *said) checkAttempts(t *testing.T, store *readmodel.Store, tenant string, task uuid.UUID) {
	t.Helper()
	rows, err := store.Attempts(t.Context(), tenant, task)
	require.NoError(t, err)
	var want, got [][]any
	for _, a := range s.attempts[task] {
		want = append(want, []any{a.ID, a.Run, a.Number, a.Worker, a.Status, a.FinishedMS})
	}
	for i := range rows {
		a, finishedMS := &rows[i], int64(0)
		if a.FinishedAt != nil {
			finishedMS = a.FinishedAt.UnixMilli()
		}
		got = append(got, []any{a.ID, a.Run, a.Number, a.Worker, a.Status, finishedMS})
	}
	require.Equal(t, want, got, task)
}

func (s *said) checkCounts(t *testing.T, store *readmodel.Store) {
	t.Helper()
	counts := map[string]map[ledger.Status]int64{}
	for _, c := range s.collections {
		if counts[c.tenant] == nil {
			counts[c.tenant] = map[ledger.Status]int64{}
		}
		counts[c.tenant][c.status]++
	}
	for tenant, want := range counts {
		page, err := store.Collections(t.Context(), readmodel.Filter{Tenant: tenant})
		require.NoError(t, err)
		require.Equal(t, want, page.Counts, tenant)
	}
}
