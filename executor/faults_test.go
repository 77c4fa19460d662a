package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

// A begun handler is one that waits until the test lets it go on.
type begun struct {
	task executor.RawTask
	ctx  context.Context //nolint:containedctx // what the handler got
	end  chan error
}

// holder registers a handler that reports each start and then waits for an
// answer, or for its context.
func holder(reg *executor.Registry) chan begun {
	starts := make(chan begun, 100)
	reg.HandleRaw("hold", func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
		b := begun{t, ctx, make(chan error, 1)}
		starts <- b
		select {
		case err := <-b.end:
			return json.RawMessage(`{"sum":1}`), err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	return starts
}

// newStarts makes a registry with a holder and an adder.
func newStarts() (*executor.Registry, chan begun) {
	reg := executor.NewRegistry()
	adder(reg, &journal{})
	return reg, holder(reg)
}

func onInterruptFail(d *ledger.Task) { d.OnInterrupt = ledger.OnInterruptFail }

// claimed waits until a worker holds the claim of all partitions.
func (w *world) claimed(t *testing.T, worker string, partitions int) {
	t.Helper()
	w.witness.await(t, "claims of "+worker, func(facts []fact) bool {
		holders := map[int32]string{}
		for _, f := range facts {
			if c, ok := f.Event.(ledger.PartitionClaimed); ok && f.Verdict == ledger.Accepted {
				holders[f.partition] = c.Worker
			}
		}
		n := 0
		for _, h := range holders {
			if h == worker {
				n++
			}
		}
		return n >= partitions
	})
}

func (w *world) holderOf(partition int32) string {
	worker := ""
	for _, f := range w.witness.all() {
		if c, ok := f.Event.(ledger.PartitionClaimed); ok && f.partition == partition && f.Verdict == ledger.Accepted {
			worker = c.Worker
		}
	}
	return worker
}

// Executors that come and go share a ledger: no attempt's handler is started
// twice, every attempt whose handler started was accepted before, and every
// collection ends.
func TestExecutorsSideBySide(t *testing.T) {
	t.Parallel()
	bubble(t, 6, func(t *testing.T, w *world) {
		type key struct {
			partition int32
			fence     int64
		}
		begun := make(chan key, 10_000)
		registry := func() *executor.Registry {
			reg := executor.NewRegistry()
			executor.Handle(reg, "work", func(ctx context.Context, t executor.Task[addArgs]) (int, error) {
				begun <- key{ledger.PartitionOf(t.Collection), t.Fence}
				select {
				case <-time.After(rand.N(3 * time.Second)):
					return 1, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			})
			return reg
		}
		var ids []uuid.UUID
		more := func(n int) {
			for range n {
				ids = append(ids, w.create(t, rand.N[int32](6), task("work"), task("work"), task("work")))
			}
		}
		first := w.start(t, registry())
		more(40)
		time.Sleep(2 * time.Second)
		second := w.start(t, registry())
		more(40)
		time.Sleep(5 * time.Second)
		w.start(t, registry())
		first.stop()
		more(40)
		time.Sleep(5 * time.Second)
		second.wire.setCut(true)
		more(40)
		time.Sleep(20 * time.Second)
		second.wire.setCut(false)
		for _, id := range ids {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		second.stop()
		require.NoError(t, second.wait(t))
		close(begun)
		opened := map[key]bool{}
		for _, f := range w.witness.all() {
			for _, a := range f.Attempts {
				opened[key{f.partition, a.ID}] = true
			}
		}
		seen := map[key]bool{}
		for k := range begun {
			require.False(t, seen[k], "attempt %v was started twice", k)
			require.True(t, opened[k], "attempt %v was never accepted", k)
			seen[k] = true
		}
	})
}

// An executor that dies is replaced: its task is started again within seconds,
// and what the dead one still does no longer counts.
func TestKilledExecutorIsReplaced(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("add"))
		lost := <-starts
		w.start(t, reg)
		time.Sleep(time.Second)
		first.wire.setCut(true)
		cut := time.Now()
		again := <-starts
		require.Less(t, time.Since(cut), 10*time.Second)
		require.Equal(t, lost.task.TaskID, again.task.TaskID)
		require.Equal(t, 2, again.task.Attempt)
		require.Greater(t, again.task.Fence, lost.task.Fence)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)

		require.NoError(t, lost.ctx.Err(), "nobody could tell it yet")
		first.wire.setCut(false)
		<-lost.ctx.Done()
		require.ErrorIs(t, context.Cause(lost.ctx), executor.ErrTakenOver)
		w.witness.await(t, "the late outcome", func([]fact) bool { return w.witness.count("TaskFailed", ledger.Stale) == 1 })
		a := w.witness.attempts(id)
		require.Equal(t, ledger.StatusSuperseded, a[0].Status)
		require.Equal(t, ledger.StatusSucceeded, a[1].Status)
	})
}

// A task that must not run twice is failed when its worker is lost, and so is
// one whose run was canceled meanwhile.
func TestLostWorkerOfTaskThatMayNotRestart(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		once := w.create(t, 0, task("hold", onInterruptFail), task("add"))
		canceled := w.create(t, 0, task("hold"), task("add"))
		<-starts
		<-starts
		w.start(t, reg)
		time.Sleep(time.Second)
		first.wire.setCut(true)
		w.cancel(t, canceled, 1)
		ended := w.witness.awaitRun(t, once, 1)
		require.Equal(t, ledger.StatusFailed, ended.Status)
		require.Equal(t, ledger.CodeInterrupted, ended.Error.Code)
		require.Equal(t, ledger.StatusCanceled, w.witness.awaitRun(t, canceled, 1).Status)
		require.Empty(t, starts)
		first.wire.setCut(false)
	})
}

// moved starts a second executor and waits until it owns some partition in
// which the first has a handler running; it returns that handler.
func moved(t *testing.T, w *world, starts chan begun, n int, second *process) begun {
	t.Helper()
	w.claimed(t, second.worker, 1)
	var found begun
	for range n {
		b := <-starts
		if w.holderOf(ledger.PartitionOf(b.task.Collection)) == second.worker {
			found = b
			continue
		}
		b.end <- nil
	}
	require.NotNil(t, found.end)
	return found
}

// A handler whose partition moved to another process ends in peace, when it is
// quick enough, and the new owner goes on from there.
func TestOutcomeAfterThePartitionMoved(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		for p := range int32(2) {
			w.create(t, p, task("hold"), task("add"))
		}
		require.Eventually(t, func() bool { return len(starts) == 2 }, time.Minute, time.Millisecond)
		second := w.start(t, reg)
		b := moved(t, w, starts, 2, second)
		time.Sleep(5 * time.Second)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, b.task.Collection, 1).Status)
		a := w.witness.attempts(b.task.Collection)
		require.Len(t, a, 2)
		require.NotEqual(t, second.worker, a[0].Worker)
		require.Equal(t, second.worker, a[1].Worker)
	})
}

// A handler that was replaced while its process was cut off is told so when it is
// back, although its process no longer owns the partition.
func TestHandlerIsToldWhenItWasTakenOver(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		id := w.create(t, 0, task("hold"))
		b := await(t, starts)
		second := w.start(t, reg)
		first.wire.setCut(true)
		again := await(t, starts)
		require.Equal(t, second.worker, w.holderOf(0))
		require.Equal(t, b.task.TaskID, again.task.TaskID)
		require.NoError(t, b.ctx.Err())
		first.wire.setCut(false)
		await(t, b.ctx.Done())
		require.ErrorIs(t, context.Cause(b.ctx), executor.ErrTakenOver)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// A handler that goes on while its partition moves is left to end, however long
// its task may take: its process lives and says so in the release.
func TestRunningHandlerIsLeftAloneWhenItsPartitionMoves(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		for p := range int32(2) {
			w.create(t, p, task("hold", onInterruptFail))
		}
		require.Eventually(t, func() bool { return len(starts) == 2 }, time.Minute, time.Millisecond)
		second := w.start(t, reg)
		b := moved(t, w, starts, 2, second)
		time.Sleep(50 * time.Minute)
		require.NoError(t, b.ctx.Err())
		require.Empty(t, starts)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, b.task.Collection, 1).Status)
	})
}

// A partition that leaves and comes back finds its running handler and goes on
// with it: it is not started again.
func TestReturningPartitionAdoptsItsHandler(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		for p := range int32(2) {
			w.create(t, p, task("hold"), task("add"))
		}
		require.Eventually(t, func() bool { return len(starts) == 2 }, time.Minute, time.Millisecond)
		second := w.start(t, reg)
		b := moved(t, w, starts, 2, second)
		partition := ledger.PartitionOf(b.task.Collection)
		time.Sleep(3 * time.Second)
		second.stop()
		require.NoError(t, second.wait(t))
		w.witness.await(t, "the claim's return", func([]fact) bool { return w.holderOf(partition) == first.worker })
		time.Sleep(time.Minute)
		require.NoError(t, b.ctx.Err())
		require.Empty(t, starts)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, b.task.Collection, 1).Status)
		require.Len(t, w.witness.attempts(b.task.Collection), 2)
	})
}

// A claim that was delayed on its way and lands after its author's death fences
// the owner, who takes the partition back once its work has stood for a lease.
func TestGhostClaim(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		running := w.create(t, 0, task("hold"), task("add"))
		b := <-starts
		claim := w.lastClaim(0)
		w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: claim, Worker: "default/ghost"})
		id := w.create(t, 0, task("add"))
		began := time.Now()
		w.witness.await(t, "the release of the claim that was lost", func([]fact) bool {
			r := w.witness.releases(p.worker)
			return len(r) == 1 && r[0].Claim == claim && slices.Equal(r[0].Running, []int64{b.task.Fence})
		})
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Greater(t, time.Since(began), executor.DefaultLease)
		require.Less(t, time.Since(began), 2*executor.DefaultLease)
		require.Equal(t, p.worker, w.holderOf(0))
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, running, 1).Status)
		require.Len(t, w.witness.attempts(running), 2, "its handler was never disturbed")
	})
}

// A shutdown waits for handlers, appends their outcomes and starts nothing more;
// the next owner goes on at once.
func TestShutdownLetsHandlersFinish(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("hold"))
		b := <-starts
		first.stop()
		waiting := w.create(t, 0, task("hold"))
		time.Sleep(5 * time.Second)
		require.Empty(t, starts, "nothing is started while shutting down")
		b.end <- nil
		ended := time.Now()
		require.NoError(t, first.wait(t))
		require.Less(t, time.Since(ended), time.Second)
		require.Equal(t, 1, w.witness.count("TaskSucceeded", ledger.Accepted))

		w.start(t, reg)
		for range 2 {
			b := <-starts
			require.Equal(t, 1, b.task.Attempt)
			b.end <- nil
		}
		for _, id := range []uuid.UUID{id, waiting} {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
	})
}

// A start that is read back after the decision to stop gets no handler; the next
// owner finds an attempt that nobody runs.
func TestShutdownStartsNoHandler(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		w.create(t, 0, task("hold"))
		b := <-starts
		unread := w.unread()
		id := w.create(t, 0, task("hold", onInterruptFail))
		w.begin(t, id, 1, w.lastClaim(0), first.worker)
		first.stop()
		time.Sleep(time.Second)
		unread.Remove()
		w.witness.await(t, "the release", func([]fact) bool { return w.witness.count("PartitionReleased", ledger.Accepted) == 1 })
		time.Sleep(5 * time.Second)
		require.Empty(t, starts)
		require.Equal(t, ledger.StatusNotStarted, w.witness.attempts(id)[0].Status)
		b.end <- nil
		require.NoError(t, first.wait(t))
		require.Empty(t, starts)
		w.start(t, reg)
		again := <-starts
		require.Equal(t, 2, again.task.Attempt)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// The outcome of a task and the start of the next one are appended together:
// the start does not wait for the outcome to be read back.
func TestOutcomeAndNextStartTravelTogether(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("add"))
		b := <-starts
		before, err := w.log.Ends(t.Context())
		require.NoError(t, err)
		unread := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownServerError, Count: -1})
		b.end <- nil
		time.Sleep(time.Second)
		after, err := w.log.Ends(t.Context())
		require.NoError(t, err)
		require.Equal(t, before[0]+2, after[0])
		unread.Remove()
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Zero(t, w.witness.count("TaskStarted", ledger.Stale))
	})
}

// What the end of the grace period interrupts is no failure: the next owner
// starts it again. A real outcome of the last moment counts.
func TestShutdownInterruptsHandlers(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		reg.HandleRaw("last", func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			return json.RawMessage(`"saved"`), nil
		})
		reg.HandleRaw("broken", func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, executor.Fail("dns", ledger.AudienceUser, "no such zone")
		})
		first := w.start(t, reg)
		id := w.create(t, 0, task("hold"))
		last := w.create(t, 0, task("last"))
		broken := w.create(t, 0, task("broken"))
		b := <-starts
		w.witness.await(t, "three starts", func([]fact) bool { return w.witness.count("TaskStarted", ledger.Accepted) == 3 })
		first.stop()
		began := time.Now()
		require.NoError(t, first.wait(t))
		require.InDelta(t, executor.DefaultShutdownGrace.Seconds(), time.Since(began).Seconds(), 1)
		require.ErrorIs(t, context.Cause(b.ctx), executor.ErrShutdown)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, last, 1).Status)
		require.Equal(t, "dns", w.witness.awaitRun(t, broken, 1).Error.Code)
		require.Equal(t, ledger.StatusRunning, w.witness.attempts(id)[0].Status)
		require.Equal(t, 1, first.metric("keten_task_attempts_total", "type", "hold", "result", "abandoned"))

		w.start(t, reg)
		began = time.Now()
		again := <-starts
		require.Less(t, time.Since(began), 5*time.Second, "its worker has left the group")
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// A shutdown waits until the outcomes of the last moment were read back.
func TestShutdownWaitsForTheLastOutcomes(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("last", func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			return json.RawMessage(`"saved"`), nil
		})
		p := w.start(t, reg)
		id := w.create(t, 0, task("last"))
		w.witness.await(t, "the start", func([]fact) bool { return w.witness.count("TaskStarted", ledger.Accepted) == 1 })
		time.Sleep(time.Second)
		unread := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownServerError, Count: -1})
		p.stop()
		time.Sleep(executor.DefaultShutdownGrace + 3*time.Second)
		require.Zero(t, p.metric("keten_task_attempts_total", "type", "last", "result", "succeeded"))
		require.Empty(t, p.ended)
		unread.Remove()
		require.NoError(t, p.wait(t))
		require.Equal(t, 1, p.metric("keten_task_attempts_total", "type", "last", "result", "succeeded"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// An owner that lost the claim and cannot learn where the log ends rests until
// it can: in virtual time a busy one would never let the clock go on.
func TestFencedOwnerRests(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		adder(reg, &journal{})
		p := w.start(t, reg)
		w.claimed(t, p.worker, 1)
		w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(0), Worker: "default/ghost"})
		id := w.create(t, 0, task("add"))
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: -1})
		time.Sleep(3 * executor.DefaultLease)
		require.NotEqual(t, p.worker, w.holderOf(0), "what it knows is too old to claim")
		fault.Remove()
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// A handler that heeds nothing does not keep the process from ending.
func TestShutdownGoesOnWithoutDeafHandlers(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		released := make(chan struct{})
		reg.HandleRaw("deaf", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			<-released
			return nil, nil
		})
		p := w.start(t, reg)
		w.create(t, 0, task("deaf"))
		w.witness.await(t, "the start", func([]fact) bool { return w.witness.count("TaskStarted", ledger.Accepted) == 1 })
		p.stop()
		began := time.Now()
		require.NoError(t, p.wait(t))
		require.Less(t, time.Since(began), executor.DefaultShutdownGrace+15*time.Second)
		close(released)
	})
}

// While the brokers are away handlers go on; what they return is recorded when
// the brokers are back.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("hold"), task("hold"))
		b := <-starts
		p.wire.setCut(true)
		time.Sleep(30 * time.Second)
		require.ErrorContains(t, p.executor.Ready(), "the brokers do not answer")
		require.NoError(t, b.ctx.Err())
		b.end <- nil
		time.Sleep(10 * time.Minute)
		require.Zero(t, w.witness.count("TaskSucceeded", ledger.Accepted))
		p.wire.setCut(false)
		(<-starts).end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Len(t, w.witness.attempts(id), 2)
		require.NoError(t, p.executor.Ready())
	})
}

// A partition with a record that this build cannot judge stops, and says so;
// the others go on, and so does the handler that runs.
func TestHaltedPartitionStopsAlone(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		w.create(t, 0, task("hold"))
		b := <-starts
		require.NoError(t, p.executor.Ready())
		w.append(t, 0, ledger.RulesActivated{Rules: ledger.Rules + 1})
		stuck := w.create(t, 0, task("add"))
		id := w.create(t, 1, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		time.Sleep(time.Minute)
		require.ErrorContains(t, p.executor.Ready(), "partition 0 has stopped: partition 0 stops at offset")
		require.Empty(t, w.witness.attempts(stuck))
		require.NoError(t, b.ctx.Err())
		b.end <- nil
		require.Equal(t, 1, p.metric("keten_executor_partitions", "state", "stopped"))
		require.Equal(t, 1, p.metric("keten_executor_partitions", "state", "active"))
	})
}

// An executor that no longer learns where the log ends knows too little to start
// anything: a paused process would start work that others have taken over.
func TestNothingIsStartedOnOldKnowledge(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		w.claimed(t, p.worker, 1)
		id := w.create(t, 0, task("hold"), task("add"))
		b := <-starts
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: -1})
		time.Sleep(executor.DefaultLease + time.Second)
		other := w.createAt(t, 0, 0, task("add"))
		b.end <- nil
		w.witness.await(t, "the outcome", func([]fact) bool { return w.witness.count("TaskSucceeded", ledger.Accepted) == 1 })
		time.Sleep(time.Minute)
		require.Equal(t, 1, w.witness.count("TaskStarted", ledger.Accepted))
		fault.Remove()
		for _, id := range []uuid.UUID{id, other} {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
	})
}

// A record whose append ends with an error is appended again until it is read
// back.
func TestFailedAppendsAreRepeated(t *testing.T) {
	t.Parallel()
	for _, produced := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.UnknownServerError} {
		t.Run(produced.Message, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(t *testing.T, w *world) {
				reg, starts := newStarts()
				p := w.start(t, reg)
				w.claimed(t, p.worker, 1)
				id := w.create(t, 0, task("hold"), task("add"), task("add"))
				b := <-starts
				fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: produced, Count: 7})
				b.end <- nil
				require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
				require.Len(t, w.witness.attempts(id), 3)
				require.Equal(t, 7, fault.Hits())
			})
		})
	}
}

// A retry may come while the handler of the run before still runs here: it has
// to return before the task is started again.
func TestSameTaskNeverRunsTwiceInAProcess(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		starts := make(chan begun, 10)
		reg.HandleRaw("deaf", func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
			b := begun{t, ctx, make(chan error, 1)}
			starts <- b
			return nil, <-b.end
		})
		p := w.start(t, reg)
		id := w.create(t, 0, task("deaf"))
		zombie := <-starts
		claim := w.append(t, 0, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(0), Worker: "default/other"})
		w.append(t, 0, ledger.TaskFailed{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: zombie.task.TaskID, AttemptID: zombie.task.Fence,
			Worker: "default/other", ByClaim: &claim, Error: ledger.TaskError{Code: ledger.CodeInterrupted, Audience: ledger.AudienceOperator},
		})
		require.Equal(t, ledger.StatusFailed, w.witness.awaitRun(t, id, 1).Status)
		again := task("deaf")
		again.Attempts = 1
		w.retry(t, id, 2, 0, "null", again)
		w.claimed(t, p.worker, 1)
		time.Sleep(time.Minute)
		require.ErrorIs(t, context.Cause(zombie.ctx), executor.ErrTakenOver)
		require.Empty(t, starts, "the handler of run 1 has not returned")
		zombie.end <- errors.New("too late")
		b := <-starts
		require.Equal(t, 2, b.task.Run)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 2).Status)
	})
}

func (w *world) lastClaim(partition int32) int64 {
	last := int64(-1)
	for _, f := range w.witness.all() {
		if _, ok := f.Event.(ledger.PartitionClaimed); ok && f.partition == partition && f.Verdict == ledger.Accepted {
			last = f.Offset
		}
	}
	return last
}

// A worker that leaves attempts open ten times in a run is not followed by an
// eleventh: a task that kills its process must not kill the fleet.
func TestTaskThatKillsItsProcess(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		id := w.create(t, 0, task("hold"))
		for n := range ledger.MaxLostAttempts {
			p := w.start(t, reg)
			b := <-starts
			require.Equal(t, n+1, b.task.Attempt)
			p.wire.setCut(true)
			defer p.wire.setCut(false)
		}
		w.start(t, reg)
		ended := w.witness.awaitRun(t, id, 1)
		require.Equal(t, ledger.CodeLost, ended.Error.Code, fmt.Sprint(ended.Error))
		require.Empty(t, starts)
	})
}

// The handler of an accepted start under the own claim is started also when the
// process does not remember asking for it, and no slot is free: nobody else may.
func TestStartThatIsNotRemembered(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg, func(c *executor.Config) { c.Slots = 1 })
		first := w.create(t, 0, task("hold"))
		b := <-starts
		second := w.create(t, 0, task("hold"))
		time.Sleep(time.Second)
		require.Empty(t, starts, "there is one slot")
		w.append(t, 0, ledger.TaskStarted{
			CollectionID: second, Tenant: "default", Run: 1, TaskID: ledger.TaskID(second, ledger.KindTask, 0),
			Attempt: 1, Claim: w.lastClaim(0), Worker: p.worker,
		})
		unasked := <-starts
		require.Equal(t, second, unasked.task.Collection)
		require.Equal(t, -1, p.metric("keten_executor_slots", "state", "free"))
		b.end <- nil
		unasked.end <- nil
		for _, id := range []uuid.UUID{first, second} {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		require.Eventually(t, func() bool { return p.metric("keten_executor_slots", "state", "free") == 1 }, time.Minute, time.Second)
	})
}

// A worker that lives may hold a claim and an open attempt that it knows nothing
// of. Once the attempt's own time is over, the assigned owner takes over.
func TestAttemptThatALivingWorkerDoesNotKnow(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		w.claimed(t, first.worker, 2)
		second := w.start(t, reg)
		w.claimed(t, second.worker, 1)
		partition := int32(0)
		if w.holderOf(partition) != first.worker {
			partition = 1
		}
		claim := w.append(t, partition, ledger.PartitionClaimed{Queue: "default", Prev: w.lastClaim(partition), Worker: second.worker})
		id := w.create(t, partition, task("hold", func(d *ledger.Task) { d.TimeoutMS = 60_000 }))
		w.append(t, partition, ledger.TaskStarted{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: ledger.TaskID(id, ledger.KindTask, 0),
			Attempt: 1, Claim: claim, Worker: second.worker,
		})
		began := time.Now()
		b := <-starts
		require.Equal(t, 2, b.task.Attempt)
		require.Greater(t, time.Since(began), time.Minute+executor.DefaultLease)
		require.Less(t, time.Since(began), 3*time.Minute)
		require.Equal(t, first.worker, w.holderOf(partition))
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}
