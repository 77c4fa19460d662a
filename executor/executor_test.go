package executor_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

type addArgs struct {
	N int `json:"n"`
}

type sum struct {
	Sum int `json:"sum"`
}

// adder adds its args to the previous result and notes it.
func adder(reg *executor.Registry, j *journal) {
	executor.Handle(reg, "add", func(_ context.Context, t executor.Task[addArgs]) (sum, error) {
		var before sum
		if len(t.Previous) > 0 {
			if err := t.DecodePrevious(&before); err != nil {
				return sum{}, err
			}
		}
		j.note("%s run %d attempt %d: %d + %d", t.Name, t.Run, t.Attempt, before.Sum, t.Args.N)
		return sum{before.Sum + t.Args.N}, nil
	})
}

// A chain runs in order, each task with the result of the one before.
func TestChainRunsInOrder(t *testing.T) {
	bubble(t, 3, func(t *testing.T, w *world) {
		var j journal
		reg := executor.NewRegistry()
		adder(reg, &j)
		w.start(t, reg)
		id := w.create(t, 1, task("add", args(`{"n":1}`)), task("add", args(`{"n":2}`)), task("add", args(`{"n":3}`)))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Equal(t, []string{"t0 run 1 attempt 1: 0 + 1", "t1 run 1 attempt 1: 1 + 2", "t2 run 1 attempt 1: 3 + 3"}, j.all())
		attempts := w.witness.attempts(id)
		require.Len(t, attempts, 3)
		require.JSONEq(t, `{"sum":6}`, string(attempts[2].Result))
	})
}
