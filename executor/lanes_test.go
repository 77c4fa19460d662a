package executor_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

func inLane(key string) func(*ledger.CollectionCreated) {
	return func(e *ledger.CollectionCreated) { e.OrderingKey = key }
}

// Collections of a lane run one after another, in the order of the log, and the
// next one begins when the one before has ended, however it did: no other record
// has to come by. One that is canceled while it waits is out of the lane; what
// is in another lane, or in none, waits for nobody.
func TestLane(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		var lane []uuid.UUID
		for range 5 {
			lane = append(lane, w.createWith(t, 0, inLane("shop.example"), task("hold"), task("hold")))
		}
		other := w.createWith(t, 0, inLane("other.example"), task("add"))
		free := w.create(t, 0, task("add"))
		for _, id := range []uuid.UUID{other, free} {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		next := func(id uuid.UUID) begun {
			t.Helper()
			ended := time.Now()
			b := await(t, starts)
			require.Equal(t, id, b.task.Collection)
			require.Less(t, time.Since(ended), time.Second, "the end of the one before wakes it")
			time.Sleep(time.Minute)
			require.Empty(t, starts, "one at a time")
			return b
		}

		next(lane[0]).end <- nil // succeeds, then is canceled in its second task
		next(lane[0])
		w.cancel(t, lane[0], 1)
		require.Equal(t, ledger.StatusCanceled, w.witness.awaitRun(t, lane[0], 1).Status)

		second := next(lane[1])
		w.cancel(t, lane[2], 1) // while it waits
		require.Equal(t, ledger.StatusCanceled, w.witness.awaitRun(t, lane[2], 1).Status)
		require.Empty(t, starts)
		second.end <- executor.Fail("dns", ledger.AudienceUser, "zone is unknown")

		next(lane[3]).end <- nil
		next(lane[3]).end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, lane[3], 1).Status)
		next(lane[4]).end <- nil
		next(lane[4]).end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, lane[4], 1).Status)
		require.Empty(t, w.witness.attempts(lane[2]))
	})
}

// A retry joins its lane at the tail, and the finally tasks of a run that has
// ended do not hold the lane up.
func TestLaneGoesOnBesideFinallyTasks(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		first := w.createWith(t, 0, func(e *ledger.CollectionCreated) {
			inLane("shop.example")(e)
			finally(task("hold"))(e)
		}, task("hold"))
		second := w.createWith(t, 0, inLane("shop.example"), task("hold"))
		await(t, starts).end <- executor.Fail("dns", ledger.AudienceUser, "zone is unknown")
		begun := map[uuid.UUID]begun{}
		for range 2 { // which of them is first is nobody's promise
			b := await(t, starts)
			begun[b.task.Collection] = b
		}
		require.Equal(t, ledger.TaskID(first, ledger.KindFinally, 0), begun[first].task.TaskID)
		require.Equal(t, ledger.TaskID(second, ledger.KindTask, 0), begun[second].task.TaskID)

		again := task("hold")
		again.Attempts = 1
		ends, err := w.log.Ends(t.Context())
		require.NoError(t, err)
		w.append(t, 0, ledger.RetryRequested{
			CollectionID: first, Tenant: "default", Run: 2, Name: "test", RequestHash: hash, AsOf: ends[0], OrderingKey: "shop.example",
			TaskCount: 1, Tasks: number(first, 0, []ledger.Task{again}),
		})
		time.Sleep(time.Minute)
		require.Empty(t, starts, "the retry waits its turn")
		begun[second].end <- nil
		b := await(t, starts)
		require.Equal(t, []any{first, 2}, []any{b.task.Collection, b.task.Run})
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, first, 2).Status)
		begun[first].end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitFinally(t, first, 1)[0].Status)
	})
}
