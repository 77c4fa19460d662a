package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// unread keeps the log from being read until the test lets it, so that what is
// appended meanwhile is read at once.
func (w *world) unread() *kfake.FaultHandle {
	f := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownServerError, Count: -1})
	time.Sleep(7 * time.Second) // fetches from before have come back
	return f
}

// begin appends the start of a collection's first task.
func (w *world) begin(t *testing.T, id uuid.UUID, attempt int, claim int64, worker string) int64 {
	t.Helper()
	return w.append(t, ledger.PartitionOf(id), ledger.TaskStarted{
		CollectionID: id, Tenant: "default", Run: 1, TaskID: ledger.TaskID(id, ledger.KindTask, 0),
		Attempt: attempt, Claim: claim, Worker: worker,
	})
}

// deferAttempt says that the outcome of a collection's first task comes later.
func (w *world) deferAttempt(t *testing.T, id uuid.UUID, attemptID int64, worker string) {
	t.Helper()
	w.append(t, ledger.PartitionOf(id), ledger.TaskDeferred{
		CollectionID: id, Tenant: "default", Run: 1, TaskID: ledger.TaskID(id, ledger.KindTask, 0), AttemptID: attemptID, Worker: worker,
	})
}

// deferred appends a collection whose first task was started and deferred in the
// name of a process, which reads all of it at once.
func (w *world) deferred(t *testing.T, p *process, tasks ...ledger.Task) (id uuid.UUID, attempt int64) {
	t.Helper()
	w.claimed(t, p.worker, 1)
	unread := w.unread()
	id = w.create(t, 0, tasks...)
	attempt = w.begin(t, id, 1, w.lastClaim(0), p.worker)
	w.deferAttempt(t, id, attempt, p.worker)
	unread.Remove()
	w.witness.await(t, "the deferral", func([]fact) bool { return w.witness.count("TaskDeferred", ledger.Accepted) == 1 })
	return id, attempt
}

// failure returns the accepted TaskFailed of an attempt, how long after its
// deferral it was recorded, and whether there is one.
func (w *witness) failure(attempt int64) (e ledger.TaskFailed, after time.Duration, ok bool) {
	var deferredMS int64
	for _, f := range w.all() {
		switch event := f.Event.(type) {
		case ledger.TaskDeferred:
			if event.AttemptID == attempt {
				deferredMS = f.TimeMS
			}
		case ledger.TaskFailed:
			if event.AttemptID == attempt && f.Verdict == ledger.Accepted {
				return event, time.Duration(f.TimeMS-deferredMS) * time.Millisecond, true
			}
		default:
		}
	}
	return e, 0, false
}

func timeoutAfter(d time.Duration) func(*ledger.Task) {
	return func(t *ledger.Task) { t.TimeoutMS = d.Milliseconds() }
}

// A deferred attempt is left alone, without handler and slot, until the time of
// its task has passed since the deferral; then its owner ends it, and the task
// is tried again as after any timeout.
func TestDeferredAttemptTimesOut(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id, attempt := w.deferred(t, p, task("hold", timeoutAfter(time.Minute), attemptsMost(2)), task("add"))
		time.Sleep(50 * time.Second)
		require.Empty(t, starts, "no process holds it any more")
		require.Equal(t, 16, p.metric("keten_executor_slots", "state", "free"))
		require.Equal(t, ledger.StatusDeferred, w.witness.attempts(id)[0].Status)

		again := await(t, starts)
		require.Equal(t, 2, again.task.Attempt)
		failed, after, ok := w.witness.failure(attempt)
		require.True(t, ok)
		require.InDelta(t, time.Minute.Seconds(), after.Seconds(), 1)
		require.Equal(t, ledger.CodeTimeout, failed.Error.Code)
		require.Equal(t, w.lastClaim(0), *failed.ByClaim)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// The wait counts from the deferral, also for an owner that comes later.
func TestDeferredAttemptOutlivesItsWorker(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id, attempt := w.deferred(t, p, task("hold", timeoutAfter(5*time.Minute)), task("add"))
		p.stop()
		require.NoError(t, p.wait(t))
		time.Sleep(2 * time.Minute)
		w.start(t, reg)
		ended := w.witness.awaitRun(t, id, 1)
		require.Equal(t, ledger.CodeTimeout, ended.Error.Code)
		_, after, ok := w.witness.failure(attempt)
		require.True(t, ok)
		require.InDelta(t, (5 * time.Minute).Seconds(), after.Seconds(), 1)
		require.Empty(t, starts)
	})
}

// A cancel ends a deferred attempt at once: no handler is there to be told.
func TestDeferredAttemptIsCanceled(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id, attempt := w.deferred(t, p, task("hold"), task("add"))
		time.Sleep(time.Minute)
		asked := time.Now()
		w.cancel(t, id, 1)
		require.Equal(t, ledger.StatusCanceled, w.witness.awaitRun(t, id, 1).Status)
		require.Less(t, time.Since(asked), time.Second)
		failed, _, ok := w.witness.failure(attempt)
		require.True(t, ok)
		require.Equal(t, ledger.CodeCanceled, failed.Error.Code)
		require.NotNil(t, failed.ByClaim)
		require.Empty(t, starts)
	})
}

// The outcome of a deferred attempt comes from outside, in the name of its
// worker; the next task starts with it. Nothing is left of the timeout.
func TestOutcomeFromOutside(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id, attempt := w.deferred(t, p, task("add", timeoutAfter(time.Minute)), task("hold"))
		time.Sleep(30 * time.Second)
		w.append(t, 0, ledger.TaskSucceeded{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: ledger.TaskID(id, ledger.KindTask, 0), AttemptID: attempt,
			Worker: p.worker, Result: json.RawMessage(`"from outside"`),
		})
		b := await(t, starts)
		require.JSONEq(t, `"from outside"`, string(b.task.Previous))
		time.Sleep(10 * time.Minute)
		require.Zero(t, w.witness.count("TaskFailed", ledger.Accepted)+w.witness.count("TaskFailed", ledger.Stale))
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// An outcome from outside may also end an attempt whose handler runs here: it is
// told so, and what it still says is recorded without effect.
func TestOutcomeFromOutsideWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("add"))
		b := await(t, starts)
		w.append(t, 0, ledger.TaskSucceeded{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: b.task.TaskID, AttemptID: b.task.Fence, Worker: p.worker,
			Result: json.RawMessage(`{"sum":7}`),
		})
		await(t, b.ctx.Done())
		require.ErrorIs(t, context.Cause(b.ctx), executor.ErrTakenOver)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.JSONEq(t, `{"sum":7}`, string(w.witness.attempts(id)[1].Result), "the next task got the result")
		w.witness.await(t, "the late outcome", func([]fact) bool { return w.witness.count("TaskFailed", ledger.Stale) == 1 })
	})
}

// A handler that runs is not disturbed when its attempt is deferred in its name,
// and its outcome counts.
func TestDeferredWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("add"))
		b := await(t, starts)
		w.deferAttempt(t, id, b.task.Fence, p.worker)
		time.Sleep(time.Minute)
		require.NoError(t, b.ctx.Err())
		require.Empty(t, starts)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Len(t, w.witness.attempts(id), 2)
	})
}

// Nothing is started while a handler of an earlier run still runs here, but what
// needs no handler is not held up by it: here the end of a deferred attempt of
// run 2 in another worker's name.
func TestDeferredAttemptEndsBesideAnOldHandler(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		begins, release := make(chan executor.RawTask, 10), make(chan struct{})
		reg.HandleRaw("deaf", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
			begins <- t
			<-release
			return nil, errors.New("too late")
		})
		p := w.start(t, reg)
		quick := task("deaf", timeoutAfter(time.Minute))
		id := w.create(t, 0, quick)
		zombie := await(t, begins)
		claim := w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(0), Worker: "default/other"})
		w.append(t, 0, ledger.TaskFailed{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: zombie.TaskID, AttemptID: zombie.Fence, Worker: "default/other",
			ByClaim: &claim, Error: ledger.TaskError{Code: ledger.CodeInterrupted, Audience: ledger.AudienceOperator},
		})
		w.witness.awaitRun(t, id, 1)
		quick.Attempts = 1
		w.retry(t, id, 2, 0, "null", quick)
		attempt := w.append(t, 0, ledger.TaskStarted{
			CollectionID: id, Tenant: "default", Run: 2, TaskID: zombie.TaskID, Attempt: 2, Claim: claim, Worker: "default/other",
		})
		w.append(t, 0, ledger.TaskDeferred{
			CollectionID: id, Tenant: "default", Run: 2, TaskID: zombie.TaskID, AttemptID: attempt, Worker: "default/other",
		})
		w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: claim, Worker: p.worker})
		require.Equal(t, ledger.CodeTimeout, w.witness.awaitRun(t, id, 2).Error.Code)
		_, after, _ := w.witness.failure(attempt)
		require.InDelta(t, time.Minute.Seconds(), after.Seconds(), 1)
		require.Empty(t, begins)
		close(release)
	})
}

// A deferred attempt is no work that the holder of the claim leaves undone, until
// its time is over: an owner that was fenced leaves the claim where it is.
func TestFencedOwnerLeavesDeferredAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		p := w.start(t, reg)
		id, attempt := w.deferred(t, p, task("hold", timeoutAfter(10*time.Minute)))
		ghost := w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(0), Worker: "default/ghost"})
		time.Sleep(9 * time.Minute)
		require.Equal(t, ghost, w.lastClaim(0))
		require.Equal(t, ledger.CodeTimeout, w.witness.awaitRun(t, id, 1).Error.Code)
		require.Equal(t, p.worker, w.holderOf(0), "the holder did not end it")
		_, after, _ := w.witness.failure(attempt)
		require.Greater(t, after, 10*time.Minute+executor.DefaultLease)
		require.Less(t, after, 10*time.Minute+2*executor.DefaultLease)
	})
}
