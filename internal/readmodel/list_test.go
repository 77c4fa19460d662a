package readmodel_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

func ids(list []readmodel.Collection) []uuid.UUID {
	out := make([]uuid.UUID, len(list))
	for i := range list {
		out[i] = list[i].ID
	}
	return out
}

func TestCollectionsFilters(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	pending, failed, done, other := newID(1), newID(2), newID(3), newID(4)
	s.create(pending, "acme", "a", "b")
	middle := s.now().Add(time.Millisecond)
	s.create(failed, "acme", "a", "b")
	s.succeed(failed, "acme", 1, 0, s.begin(failed, "acme", 1, 0, 1), `0`)
	s.fail(failed, "acme", 1, 1, s.begin(failed, "acme", 1, 1, 1), false)
	named := creation(done, "acme", "a")
	named.Name, named.Labels, named.AsOf = "another", map[string]string{"env": "prod", "team": "x"}, s.fold.Position()
	s.do(named)
	s.succeed(done, "acme", 1, 0, s.begin(done, "acme", 1, 0, 1), `1`)
	s.create(other, "other", "a")

	for name, c := range map[string]struct {
		filter readmodel.Filter
		want   []uuid.UUID
	}{
		"all, newest first": {readmodel.Filter{}, []uuid.UUID{done, failed, pending}},
		"status":            {readmodel.Filter{Status: []ledger.Status{"failed"}}, []uuid.UUID{failed}},
		"statuses":          {readmodel.Filter{Status: []ledger.Status{"pending", "failed", "pending"}}, []uuid.UUID{failed, pending}},
		"name":              {readmodel.Filter{Name: "another"}, []uuid.UUID{done}},
		"name not like":     {readmodel.Filter{Name: "anoth"}, []uuid.UUID{}},
		"failed type":       {readmodel.Filter{FailedType: "certificate.b"}, []uuid.UUID{failed}},
		"failed at another": {readmodel.Filter{FailedType: "certificate.a"}, []uuid.UUID{}},
		"label":             {readmodel.Filter{Labels: map[string]string{"env": "test"}}, []uuid.UUID{failed, pending}},
		"labels":            {readmodel.Filter{Labels: map[string]string{"env": "prod", "team": "x"}}, []uuid.UUID{done}},
		"labels not both":   {readmodel.Filter{Labels: map[string]string{"env": "test", "team": "x"}}, []uuid.UUID{}},
		"after":             {readmodel.Filter{CreatedAfter: middle}, []uuid.UUID{done, failed}},
		"before":            {readmodel.Filter{CreatedBefore: middle}, []uuid.UUID{pending}},
		"after is inclusive, before is not": {
			readmodel.Filter{CreatedAfter: s.at(4), CreatedBefore: s.at(9)}, []uuid.UUID{failed},
		},
		"several": {readmodel.Filter{Status: []ledger.Status{"failed", "succeeded"}, Name: "certificate"}, []uuid.UUID{failed}},
	} {
		c.filter.Tenant = "acme"
		page, err := f.Collections(t.Context(), c.filter)
		require.NoError(t, err, name)
		require.Equal(t, c.want, ids(page.Collections), name)
		require.Empty(t, page.NextCursor, name)
		require.Equal(t, map[ledger.Status]int64{"pending": 1, "failed": 1, "succeeded": 1}, page.Counts, name)
	}
}

// What a list says of a collection is what reading it says, tasks aside.
func TestCollectionsAgreeWithCollection(t *testing.T) {
	t.Parallel()
	f := setup(t)
	logs := f.history(t, history.Options{Seed: 11, Partitions: 2, Chains: 60, Tasks: 5, Concurrent: 20, Trouble: true})
	for i := range logs { // leave some under way
		logs[i] = logs[i][:len(logs[i])*2/3]
	}
	newWriter(t, f.Store, f.ledgerID, logs).all(t, always(50))
	seen := map[ledger.Status]int{}
	for _, tenant := range []string{"default", "eins", "zwei ✓"} {
		page, err := f.Collections(t.Context(), readmodel.Filter{Tenant: tenant, Limit: 500})
		require.NoError(t, err)
		counts := map[ledger.Status]int64{}
		for _, listed := range page.Collections {
			one, err := f.Collection(t.Context(), tenant, listed.ID)
			require.NoError(t, err)
			done := 0
			for done < len(one.Tasks) && one.Tasks[done].Status == ledger.StatusSucceeded {
				done++
			}
			require.Equal(t, done, one.TasksDone)
			one.Tasks = nil
			require.Equal(t, one, listed)
			counts[one.Status]++
			seen[one.Status]++
		}
		require.Equal(t, counts, page.Counts)
	}
	for _, s := range []ledger.Status{"pending", "running", "succeeded", "failed", "canceled"} {
		require.Positive(t, seen[s], "no collection is %s", s)
	}
}

// Pages of any length join to the whole list, with and without filters.
func TestCollectionsPages(t *testing.T) {
	t.Parallel()
	f := setup(t)
	logs := f.history(t, history.Options{Seed: 12, Partitions: 3, Chains: 80, Tasks: 3, Trouble: true})
	newWriter(t, f.Store, f.ledgerID, logs).all(t, always(500))
	rng := rand.New(rand.NewPCG(12, 0))
	for _, filter := range []readmodel.Filter{
		{},
		{Status: []ledger.Status{ledger.StatusSucceeded}},
		{Status: []ledger.Status{ledger.StatusSucceeded, ledger.StatusCanceled, ledger.StatusFailed}},
		{Labels: map[string]string{"color": "red"}},
	} {
		filter.Tenant, filter.Limit = "default", readmodel.MaxLimit
		whole, err := f.Collections(t.Context(), filter)
		require.NoError(t, err)
		require.Greater(t, len(whole.Collections), 5)
		require.Empty(t, whole.NextCursor)
		for i := 1; i < len(whole.Collections); i++ {
			require.False(t, whole.Collections[i-1].CreatedAt.Before(whole.Collections[i].CreatedAt))
		}
		var joined []readmodel.Collection
		for {
			filter.Limit = 1 + rng.IntN(4)
			page, err := f.Collections(t.Context(), filter)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Collections), filter.Limit)
			joined = append(joined, page.Collections...)
			if filter.Cursor = page.NextCursor; filter.Cursor == "" {
				break
			}
		}
		require.Equal(t, whole.Collections, joined, fmt.Sprint(filter))
	}
}

func TestCollectionsBadCursor(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, cursor := range []string{"x", "!", "AAAA", base64.RawURLEncoding.EncodeToString(make([]byte, 25)), "Ag" + string(make([]byte, 32))} {
		_, err := f.Collections(t.Context(), readmodel.Filter{Tenant: "acme", Cursor: cursor})
		require.ErrorIs(t, err, readmodel.ErrBadCursor, cursor)
	}
}
