package executor_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

func onQueue(name string) func(*ledger.Task) {
	return func(d *ledger.Task) { d.Queue = name }
}

// startServing starts a process that serves queues.
func (w *world) startServing(t *testing.T, reg *executor.Registry, queues ...string) *process {
	t.Helper()
	return w.startAs(t, executor.NewWorkerID(queues...), reg, func(c *executor.Config) { c.Queues = queues })
}

// holderOfQueue returns the worker whose claim of a queue of partition 0 counts.
func (w *world) holderOfQueue(queue string) string {
	worker := ""
	for _, f := range w.witness.all() {
		if c, ok := f.Event.(ledger.PartitionClaimed); ok && f.partition == 0 && c.Queue == queue && f.Verdict == ledger.Accepted {
			worker = c.Worker
		}
	}
	return worker
}

// A chain goes from queue to queue: its tasks are run by whoever serves theirs,
// in order, each with the result of the one before.
func TestChainAcrossQueues(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		plain, gpu := w.startServing(t, reg, "default"), w.startServing(t, reg, "gpu")
		id := w.create(t, 0, task("add"), task("hold", onQueue("gpu")), task("add"), task("add", onQueue("gpu")))
		b := await(t, starts)
		require.Equal(t, 1, b.task.Attempt)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		var workers []string
		for _, a := range w.witness.attempts(id) {
			workers = append(workers, a.Worker)
		}
		require.Equal(t, []string{plain.worker, gpu.worker, plain.worker, gpu.worker}, workers)
	})
}

// One process may serve several queues; work of a queue that nobody serves waits
// and holds nothing up.
func TestSeveralQueuesInOneProcess(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		p := w.startServing(t, reg, "gpu", "default")
		id := w.create(t, 0, task("add"), task("add", onQueue("gpu")), task("add"))
		waits := w.create(t, 0, task("add"), task("add", onQueue("tape")))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		time.Sleep(time.Hour)
		require.Len(t, w.witness.attempts(waits), 1)
		w.startServing(t, reg, "tape")
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, waits, 1).Status)
		require.Equal(t, p.worker, w.holderOfQueue("gpu"))
		require.Equal(t, p.worker, w.holderOfQueue("default"))
	})
}

// A queue that a living worker of another set serves is left to it, and taken
// once that worker has left its group.
func TestQueueOfAnotherSetIsLeftAlone(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.startServing(t, reg, "default")
		id := w.create(t, 0, task("hold", onInterruptFail), task("add"))
		b := await(t, starts)
		second := w.startServing(t, reg, "default", "gpu")
		w.witness.await(t, "the claim of gpu", func([]fact) bool { return w.holderOfQueue("gpu") == second.worker })
		time.Sleep(10 * time.Minute)
		require.Equal(t, first.worker, w.holderOfQueue("default"))
		require.NoError(t, b.ctx.Err())
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)

		stopped := time.Now()
		first.stop()
		require.NoError(t, first.wait(t))
		next := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, next, 1).Status)
		require.Equal(t, second.worker, w.holderOfQueue("default"))
		require.Less(t, time.Since(stopped), executor.DefaultLease, "nobody waits for a worker that has left")
	})
}

// A worker of another set that was killed is replaced, too.
func TestLostWorkerOfAnotherSet(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.startServing(t, reg, "default")
		id := w.create(t, 0, task("hold"))
		await(t, starts)
		second := w.startServing(t, reg, "default", "gpu")
		w.witness.await(t, "the claim of gpu", func([]fact) bool { return w.holderOfQueue("gpu") == second.worker })
		first.wire.setCut(true)
		cut := time.Now()
		b := await(t, starts)
		require.Equal(t, 2, b.task.Attempt)
		require.Less(t, time.Since(cut), time.Minute)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		first.wire.setCut(false)
	})
}

// A type's limit holds over all partitions of a process; others do not wait for
// it, and the slots come back.
func TestLimitOfAType(t *testing.T) {
	t.Parallel()
	bubble(t, 4, func(t *testing.T, w *world) {
		var now, most atomic.Int64
		reg := executor.NewRegistry()
		reg.HandleRaw("scarce", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				continue
			}
			time.Sleep(time.Second)
			return nil, nil
		})
		adder(reg, &journal{})
		reg.Limit("scarce", 2)
		require.Panics(t, func() { reg.Limit("scarce", 0) })
		var scarce []uuid.UUID
		for p := range int32(4) {
			for range 10 {
				scarce = append(scarce, w.create(t, p, task("add"), task("scarce"), task("scarce")))
			}
		}
		p := w.start(t, reg)
		w.claimed(t, p.worker, 4)
		time.Sleep(3 * time.Second)
		began := time.Now()
		plain := w.create(t, 0, task("add"), task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, plain, 1).Status)
		require.Less(t, time.Since(began), time.Second)
		for _, id := range scarce {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		require.EqualValues(t, 2, most.Load())
		require.Equal(t, 16, p.metric("keten_executor_slots", "state", "free"))
	})
}

// A tenant with very much to do does not make another wait.
func TestTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("slow", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		for range 300 {
			w.create(t, 0, task("slow"), task("slow"), task("slow"))
		}
		w.start(t, reg, func(c *executor.Config) { c.Slots = 4 })
		w.witness.await(t, "some of the work", func([]fact) bool { return w.witness.count("TaskSucceeded", ledger.Accepted) > 40 })
		began := time.Now()
		id := w.createFor(t, "other", 0, task("slow"), task("slow"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Less(t, time.Since(began), 6*time.Second)
	})
}

// Within a tenant, collections take turns task by task while slots are scarce.
func TestCollectionsTakeTurns(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("slow", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		w.start(t, reg, func(c *executor.Config) { c.Slots = 1 })
		chain := make([]ledger.Task, 100)
		for i := range chain {
			chain[i] = task("slow")
		}
		long := w.create(t, 0, chain...)
		w.witness.await(t, "the first task", func([]fact) bool { return w.witness.count("TaskSucceeded", ledger.Accepted) > 0 })
		began := time.Now()
		short := w.create(t, 0, task("slow"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, short, 1).Status)
		require.Less(t, time.Since(began), 5*time.Second)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, long, 1).Status)
	})
}

// Who waits for a type that has reached its limit does not stand in the way of
// others that wait for any slot.
func TestLimitDoesNotBlockTheLine(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		scarce, plain := make(chan begun, 10), make(chan begun, 10)
		for name, starts := range map[string]chan begun{"scarce": scarce, "plain": plain} {
			reg.HandleRaw(name, func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
				b := begun{t, ctx, make(chan error, 1)}
				starts <- b
				return nil, <-b.end
			})
		}
		reg.Limit("scarce", 1)
		p := w.start(t, reg, func(c *executor.Config) { c.Slots = 2 })
		w.claimed(t, p.worker, 3)
		w.create(t, 0, task("scarce"))
		w.create(t, 1, task("plain"))
		long, short := await(t, scarce), await(t, plain)
		w.create(t, 0, task("scarce")) // waits for the type
		time.Sleep(time.Second)
		w.create(t, 2, task("plain")) // waits for a slot
		time.Sleep(executor.DefaultLease)
		began := time.Now()
		short.end <- nil
		await(t, plain).end <- nil
		require.Less(t, time.Since(began), 100*time.Millisecond)
		require.Empty(t, scarce)
		long.end <- nil
		await(t, scarce).end <- nil
	})
}
