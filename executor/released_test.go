package executor_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// release appends a PartitionReleased of partition 0.
func (w *world) release(t *testing.T, claim int64, worker string, grace time.Duration, running ...int64) int64 {
	t.Helper()
	if running == nil {
		running = []int64{}
	}
	return w.append(t, 0, ledger.PartitionReleased{
		Queue: "default", Claim: claim, Worker: worker, Running: running, GraceMS: grace.Milliseconds(),
	})
}

func (w *world) claim(t *testing.T, partition int32, worker string) int64 {
	t.Helper()
	return w.append(t, partition, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(partition), Worker: worker})
}

// What a worker that gave back its claim still runs is waited for, as far as
// that worker may be alive; what it never began is started at once.
func TestReleasedByAnotherWorker(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		claim := w.claim(t, 0, "default/gone")
		listed, unlisted := w.create(t, 0, task("hold")), w.create(t, 0, task("hold", onInterruptFail))
		attempt := w.begin(t, listed, 1, claim, "default/gone")
		w.begin(t, unlisted, 1, claim, "default/gone")
		w.release(t, claim, "default/gone", 0, attempt)
		reg, starts := newStarts()
		p := w.start(t, reg)
		w.claimed(t, p.worker, 1)
		began := time.Now()

		b := await(t, starts)
		require.Equal(t, unlisted, b.task.Collection)
		require.Less(t, time.Since(began), 100*time.Millisecond)
		require.Equal(t, 2, b.task.Attempt)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, unlisted, 1).Status)
		require.Equal(t, ledger.StatusNotStarted, w.witness.attempts(unlisted)[0].Status)

		// It is not in the group: the hour that the task may take is not waited.
		b = await(t, starts)
		require.Equal(t, listed, b.task.Collection)
		require.GreaterOrEqual(t, time.Since(began), ledger.GoneGraceMS*time.Millisecond)
		require.Less(t, time.Since(began), ledger.TakeoverGraceMS*time.Millisecond)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, listed, 1).Status)
	})
}

// twoWorkers starts two processes and returns one that owns partition 0, and one
// that lives and owns another.
func twoWorkers(t *testing.T, w *world, reg *executor.Registry) (owner, other *process) {
	t.Helper()
	first := w.start(t, reg)
	w.claimed(t, first.worker, 2)
	second := w.start(t, reg)
	w.claimed(t, second.worker, 1)
	if w.holderOf(0) == first.worker {
		return first, second
	}
	return second, first
}

// An attempt that a living worker still runs after it gave back the claim is left
// to it for as long as its task may take, or for what is left of that worker's
// grace, from when the release was read.
func TestDrainingAttemptIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ grace, want time.Duration }{
		"timeout":         {0, 40 * time.Second},
		"grace":           {25 * time.Second, 25 * time.Second},
		"short grace":     {8 * time.Second, 8 * time.Second},
		"grace as before": {ledger.TakeoverGraceMS * time.Millisecond, ledger.TakeoverGraceMS * time.Millisecond},
		"long grace":      {time.Hour, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 2, func(t *testing.T, w *world) {
				reg, starts := newStarts()
				owner, other := twoWorkers(t, w, reg)
				claim := w.claim(t, 0, other.worker)
				id := w.create(t, 0, task("hold", timeoutAfter(40*time.Second)))
				attempt := w.begin(t, id, 1, claim, other.worker)
				w.claim(t, 0, owner.worker)
				time.Sleep(6 * time.Second) // of the ten that a living worker gets
				w.release(t, claim, other.worker, c.grace, attempt)
				released := time.Now()
				b := await(t, starts)
				require.InDelta(t, c.want.Seconds(), time.Since(released).Seconds(), 0.5)
				require.Equal(t, 2, b.task.Attempt)
				require.Equal(t, ledger.StatusSuperseded, w.witness.attempts(id)[0].Status)
				b.end <- nil
				require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
			})
		})
	}
}

// An owner whose claim somebody else gave back starts nothing more, but neither
// gives up nor fights: when the claim has stood free for the lease it is taken
// again. Handlers that the release lists go on; the others were ended in the log
// and are told so.
func TestClaimThatSomebodyElseGaveBack(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		listed, unlisted := w.create(t, 0, task("hold"), task("add")), w.create(t, 0, task("hold"))
		begun := map[uuid.UUID]begun{}
		for range 2 {
			b := await(t, starts)
			begun[b.task.Collection] = b
		}
		claim := w.lastClaim(0)
		w.release(t, claim, p.worker, 0, begun[listed].task.Fence)
		released := time.Now()
		await(t, begun[unlisted].ctx.Done())
		require.ErrorIs(t, context.Cause(begun[unlisted].ctx), executor.ErrTakenOver)
		waiting := w.create(t, 0, task("add"))
		time.Sleep(executor.DefaultLease - time.Second)
		require.Equal(t, claim, w.lastClaim(0))
		require.Empty(t, starts)
		require.Zero(t, p.metric("keten_executor_partitions", "state", "active"))

		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, waiting, 1).Status)
		require.Greater(t, time.Since(released), executor.DefaultLease)
		require.Less(t, time.Since(released), 2*executor.DefaultLease)
		require.Equal(t, p.worker, w.holderOf(0))
		again := await(t, starts)
		require.Equal(t, unlisted, again.task.Collection)
		require.Equal(t, 2, again.task.Attempt)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, unlisted, 1).Status)
		require.NoError(t, begun[listed].ctx.Err())
		require.Empty(t, starts)
		begun[listed].end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, listed, 1).Status)
		require.Len(t, w.witness.attempts(listed), 2, "its handler was never disturbed")
		require.NoError(t, p.executor.Ready())
	})
}

// A claim that is given back again and again costs no more than a claim each
// lease.
func TestClaimThatIsGivenBackForever(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		p := w.start(t, reg)
		began := time.Now()
		const times = 6
		for n := range times {
			w.witness.await(t, "a claim", func([]fact) bool { return w.witness.count("PartitionClaimed", ledger.Accepted) == n+1 })
			w.release(t, w.lastClaim(0), p.worker, 0)
		}
		require.Greater(t, time.Since(began), (times-1)*executor.DefaultLease)
		id := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.NoError(t, p.executor.Ready())
	})
}

// An owner that was fenced takes the claim when its holder gave it back.
func TestFencedOwnerTakesAFreeClaim(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		w.claimed(t, p.worker, 1)
		ghost := w.claim(t, 0, "default/ghost")
		time.Sleep(2 * time.Minute)
		require.Equal(t, ghost, w.lastClaim(0), "nothing is to be done")
		id := w.create(t, 0, task("hold"))
		attempt := w.begin(t, id, 1, ghost, "default/ghost")
		w.release(t, ghost, "default/ghost", 0, attempt)
		released := time.Now()
		b := await(t, starts)
		require.Less(t, time.Since(released), 2*executor.DefaultLease)
		require.Equal(t, p.worker, w.holderOf(0))
		require.Equal(t, 2, b.task.Attempt)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// A start whose handler was not started yet when the claim was given back gets
// none, and its slot is free again.
func TestStartThatWasReleased(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		w.claimed(t, p.worker, 1)
		unread := w.unread()
		id := w.create(t, 0, task("hold"))
		claim := w.lastClaim(0)
		w.begin(t, id, 1, claim, p.worker)
		w.release(t, claim, p.worker, 0)
		unread.Remove()
		w.witness.await(t, "the release", func([]fact) bool { return w.witness.count("PartitionReleased", ledger.Accepted) == 1 })
		time.Sleep(executor.DefaultLease / 2)
		require.Empty(t, starts)
		require.Equal(t, 16, p.metric("keten_executor_slots", "state", "free"))
		b := await(t, starts)
		require.Equal(t, 2, b.task.Attempt)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}
