package executor_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// createWith appends a collection of which a test decides more than its tasks.
func (w *world) createWith(t testing.TB, partition int32, change func(*ledger.CollectionCreated), tasks ...ledger.Task) uuid.UUID {
	t.Helper()
	asOf, err := w.log.End(t.Context(), partition)
	require.NoError(t, err)
	id := newID(partition)
	e := ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "test", RequestHash: hash, AsOf: asOf, Tasks: number(id, 0, tasks),
	}
	change(&e)
	w.append(t, partition, e)
	return id
}

// finally gives a collection finally tasks.
func finally(tasks ...ledger.Task) func(*ledger.CollectionCreated) {
	return func(e *ledger.CollectionCreated) { e.Finally = numberFinally(e.CollectionID, tasks) }
}

func numberFinally(id uuid.UUID, tasks []ledger.Task) []ledger.Task {
	numbered := number(id, 0, tasks)
	for i := range numbered {
		numbered[i].ID = ledger.TaskID(id, ledger.KindFinally, i)
		numbered[i].Name = "f" + numbered[i].Name[1:]
	}
	return numbered
}

// finallyAttempts are the attempts of finally tasks, in order.
func (w *witness) finallyAttempts(id uuid.UUID) []ledger.AttemptChange {
	var list []ledger.AttemptChange
	for _, a := range w.attempts(id) {
		if a.TaskKind == ledger.KindFinally {
			list = append(list, a)
		}
	}
	return list
}

// awaitFinally waits until n attempts of finally tasks have ended.
func (w *witness) awaitFinally(t *testing.T, id uuid.UUID, n int) []ledger.AttemptChange {
	t.Helper()
	w.await(t, "the end of the finally tasks", func([]fact) bool {
		ended := 0
		for _, a := range w.finallyAttempts(id) {
			if a.FinishedMS > 0 {
				ended++
			}
		}
		return ended >= n
	})
	return w.finallyAttempts(id)
}

// Finally tasks run after every run, in order, whatever became of it: they are
// told what did, and one that fails does not keep the next from its turn.
func TestFinallyTasksRunAfterEveryRun(t *testing.T) {
	t.Parallel()
	for _, status := range []ledger.Status{ledger.StatusSucceeded, ledger.StatusFailed, ledger.StatusCanceled} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(t *testing.T, w *world) {
				reg, starts := newStarts()
				told := make(chan executor.RawTask, 10)
				reg.HandleRaw("tell", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
					told <- t
					if t.Name == "f0" {
						return nil, executor.Fail("http_status", ledger.AudienceUser, "nobody listens")
					}
					return nil, nil
				})
				w.start(t, reg)
				id := w.createWith(t, 0, finally(task("tell"), task("tell")), task("hold"))
				b := await(t, starts)
				switch status {
				case ledger.StatusFailed:
					b.end <- executor.Fail("dns", ledger.AudienceUser, "zone is unknown")
				case ledger.StatusCanceled:
					w.cancel(t, id, 1)
				default:
					b.end <- nil
				}
				ended := w.witness.awaitRun(t, id, 1)
				require.Equal(t, status, ended.Status)
				attempts := w.witness.awaitFinally(t, id, 2)
				require.Equal(t, []ledger.Status{ledger.StatusFailed, ledger.StatusSucceeded},
					[]ledger.Status{attempts[0].Status, attempts[1].Status}, "the first fails, the second has its turn all the same")
				for i := range 2 {
					got := await(t, told)
					require.Equal(t, ledger.TaskID(id, ledger.KindFinally, i), got.TaskID)
					require.Equal(t, []int{1, 1}, []int{got.Run, got.Attempt})
					var input ledger.FinallyInput
					require.NoError(t, got.DecodePrevious(&input))
					require.Equal(t, w.finallyInput(id, status), input)
				}
				time.Sleep(time.Minute)
				require.Len(t, w.witness.finallyAttempts(id), 2)
				require.Len(t, w.witness.attempts(id), 3)
			})
		})
	}
}

// finallyInput is what run 1 of a collection that fails with "dns" tells.
func (w *world) finallyInput(id uuid.UUID, status ledger.Status) ledger.FinallyInput {
	want := ledger.FinallyInput{Run: 1, Status: status, Name: "test"}
	if status == ledger.StatusFailed {
		want.FailedTask = &ledger.FailedTask{
			ID: ledger.TaskID(id, ledger.KindTask, 0), Type: "hold",
			Error: ledger.FailedError{Code: "dns", Message: "zone is unknown"},
		}
	}
	for _, f := range w.witness.all() {
		for _, r := range f.Runs {
			if r.Collection == id && r.Status == status {
				want.FinishedAt = time.UnixMilli(f.TimeMS).UTC()
			}
		}
	}
	return want
}

// A cancel ends the run, not its finally tasks: their handlers go on.
func TestCancelSparesFinallyTasks(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		id := w.createWith(t, 0, finally(task("hold"), task("add")), task("add"))
		b := await(t, starts)
		w.cancel(t, id, 1)
		time.Sleep(time.Minute)
		require.NoError(t, b.ctx.Err())
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitFinally(t, id, 2)[1].Status)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// The next run does not wait for the finally tasks of the one before, nor for
// the same finally task: both handlers run at once, each for its run.
func TestFinallyTasksOfTwoRunsSideBySide(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		main, after := task("hold"), []ledger.Task{task("hold"), task("add")}
		id := w.createWith(t, 0, finally(after...), main)
		await(t, starts).end <- executor.Fail("dns", ledger.AudienceUser, "zone is unknown")
		require.Equal(t, ledger.StatusFailed, w.witness.awaitRun(t, id, 1).Status)
		first := await(t, starts)

		main.Attempts = 1
		ends, err := w.log.Ends(t.Context())
		require.NoError(t, err)
		w.append(t, 0, ledger.RetryRequested{
			CollectionID: id, Tenant: "default", Run: 2, Name: "test", RequestHash: hash, AsOf: ends[0],
			TaskCount: 1, Tasks: number(id, 0, []ledger.Task{main}), Finally: numberFinally(id, after),
		})
		again := await(t, starts)
		require.Equal(t, ledger.TaskID(id, ledger.KindTask, 0), again.task.TaskID)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 2).Status)
		second := await(t, starts)
		require.Equal(t, first.task.TaskID, second.task.TaskID)
		require.Equal(t, []int{1, 2}, []int{first.task.Run, second.task.Run})
		require.Equal(t, []int{1, 1}, []int{first.task.Attempt, second.task.Attempt})
		require.NoError(t, first.ctx.Err())

		second.end <- nil
		require.Equal(t, 2, w.witness.awaitFinally(t, id, 2)[2].Run, "run 2 goes on to its second finally task")
		require.NoError(t, first.ctx.Err())
		first.end <- nil
		attempts := w.witness.awaitFinally(t, id, 4)
		for _, a := range attempts {
			require.Equal(t, ledger.StatusSucceeded, a.Status)
		}
		require.Equal(t, []int{1, 2, 2, 1}, []int{attempts[0].Run, attempts[1].Run, attempts[2].Run, attempts[3].Run})
	})
}

// A finally task whose worker is lost is started again by the next owner, also
// when its run was canceled.
func TestFinallyTaskOfALostWorker(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		id := w.createWith(t, 0, finally(task("hold")), task("hold"))
		await(t, starts)
		w.cancel(t, id, 1)
		lost := await(t, starts)
		w.start(t, reg)
		time.Sleep(time.Second)
		first.wire.setCut(true)
		again := await(t, starts)
		require.Equal(t, lost.task.TaskID, again.task.TaskID)
		require.Equal(t, []int{1, 2}, []int{again.task.Run, again.task.Attempt})
		require.JSONEq(t, string(lost.task.Previous), string(again.task.Previous))
		again.end <- nil
		w.witness.await(t, "the success", func([]fact) bool { return w.witness.count("TaskSucceeded", ledger.Accepted) == 1 })
		first.wire.setCut(false)
	})
}
