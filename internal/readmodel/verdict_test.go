package readmodel_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// The verdict of any record can be asked for by where it stands, and one attempt
// by its id.
func TestVerdictAndAttempt(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	id := newID(1)
	s.create(id, "acme", "a")
	task := ledger.TaskID(id, ledger.KindTask, 0)
	lost := s.begin(id, "acme", 1, 0, 1)
	s.fail(id, "acme", 1, 0, lost, true)
	attempt := s.begin(id, "acme", 1, 0, 2)
	s.succeed(id, "acme", 1, 0, attempt, `{"x":[1]}`)
	accepted := s.fold.Position() - 1
	late := s.send(s.last)
	require.Equal(t, ledger.Stale, late.Verdict)

	verdict, reason, err := f.Verdict(t.Context(), 0, accepted)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.Accepted, ledger.Reason("")}, []any{verdict, reason})
	verdict, reason, err = f.Verdict(t.Context(), 0, late.Offset)
	require.NoError(t, err)
	require.Equal(t, []any{ledger.Stale, ledger.ReasonClosed}, []any{verdict, reason})
	_, _, err = f.Verdict(t.Context(), 0, s.fold.Position())
	require.ErrorIs(t, err, readmodel.ErrNotFound)
	_, _, err = f.Verdict(t.Context(), 1, accepted)
	require.ErrorIs(t, err, readmodel.ErrNotFound)

	all, err := f.Attempts(t.Context(), "acme", task)
	require.NoError(t, err)
	require.Len(t, all, 2)
	for i := range all {
		one, at, err := f.Attempt(t.Context(), "acme", task, all[i].ID)
		require.NoError(t, err)
		require.Equal(t, all[i], one)
		require.Equal(t, readmodel.Position{Offset: s.fold.Position()}, at)
	}
	require.JSONEq(t, `{"x":[1]}`, string(all[1].Result))
	_, _, err = f.Attempt(t.Context(), "other", task, attempt)
	require.ErrorIs(t, err, readmodel.ErrNotFound)
	_, _, err = f.Attempt(t.Context(), "acme", task, attempt+1)
	require.ErrorIs(t, err, readmodel.ErrNotFound)
	_, _, err = f.Attempt(t.Context(), "acme", ledger.TaskID(id, ledger.KindTask, 1), attempt)
	require.ErrorIs(t, err, readmodel.ErrNotFound)
}
