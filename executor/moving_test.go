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
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// releases returns the accepted releases of a worker.
func (w *witness) releases(worker string) (list []ledger.PartitionReleased) {
	for _, f := range w.all() {
		if e, ok := f.Event.(ledger.PartitionReleased); ok && e.Worker == worker && f.Verdict == ledger.Accepted {
			list = append(list, e)
		}
	}
	return list
}

// A process that shuts down gives its claim back at once, names what still runs
// and for how long, and others go on with the rest while it finishes.
func TestShutdownGivesThePartitionAway(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg, func(c *executor.Config) { c.ShutdownGrace = time.Minute })
		running := w.create(t, 0, task("hold", onInterruptFail), task("add"))
		b := await(t, starts)
		second := w.start(t, reg)
		first.stop()
		stopped := time.Now()
		other := w.create(t, 0, task("add"), task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, other, 1).Status)
		require.Less(t, time.Since(stopped), 3*time.Second, "nothing waits for the process that ends")
		require.Equal(t, second.worker, w.holderOf(0))
		released := w.witness.releases(first.worker)
		require.Len(t, released, 1)
		require.Equal(t, []int64{b.task.Fence}, released[0].Running)
		require.Greater(t, released[0].GraceMS, time.Minute.Milliseconds())

		time.Sleep(50 * time.Second)
		require.NoError(t, b.ctx.Err())
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, running, 1).Status)
		require.NoError(t, first.wait(t))
		require.Len(t, w.witness.attempts(running), 2)
	})
}

// A process that dies while it shuts down is not waited for until its grace is
// over: it has left the group.
func TestDeathDuringShutdown(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg, func(c *executor.Config) { c.ShutdownGrace = time.Hour })
		id := w.create(t, 0, task("hold"))
		await(t, starts)
		second := w.start(t, reg)
		first.stop()
		w.witness.await(t, "the next claim", func([]fact) bool { return w.holderOf(0) == second.worker })
		first.wire.setCut(true)
		died := time.Now()
		b := await(t, starts)
		require.Equal(t, 2, b.task.Attempt)
		require.Less(t, time.Since(died), 30*time.Second)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		first.wire.setCut(false)
	})
}

// A claim that was given back is never acted under again, even when the release
// is late: the partition returns while it is under way, and a start that was
// accepted under the old claim must run once only.
func TestReturnBeforeTheReleaseLands(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		w.claimed(t, first.worker, 2)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		second := w.start(t, reg) // takes a partition, cannot claim it
		time.Sleep(5 * time.Second)
		second.stop()
		require.NoError(t, second.wait(t))
		time.Sleep(2 * time.Second)
		fault.Remove()
		w.witness.await(t, "the release", func([]fact) bool { return len(w.witness.releases(first.worker)) > 0 })
		var ids []uuid.UUID
		for p := range int32(2) {
			ids = append(ids, w.create(t, p, task("hold", onInterruptFail)))
		}
		for range ids {
			await(t, starts).end <- nil
		}
		for _, id := range ids {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
			require.Len(t, w.witness.attempts(id), 1)
		}
		for _, f := range w.witness.all() {
			if e, ok := f.Event.(ledger.PartitionReleased); ok && f.Verdict == ledger.Accepted {
				require.Greater(t, w.lastClaim(f.partition), e.Claim, "a new one was needed")
			}
		}
	})
}

// startsOwnWork appends a collection to each partition whose first task is started
// in the name of a process, and returns the collections by partition.
func (w *world) startsOwnWork(t *testing.T, p *process, partitions int32) map[int32]uuid.UUID {
	t.Helper()
	ids := make(map[int32]uuid.UUID)
	for i := range partitions {
		ids[i] = w.create(t, i, task("hold", onInterruptFail))
		w.begin(t, ids[i], 1, w.lastClaim(i), p.worker)
	}
	return ids
}

// From the moment a partition is taken away, no handler of it begins: not for a
// start that was read and waited for fresh knowledge, however late the release
// lands.
func TestNoHandlerBeginsAfterTheDecisionToRelease(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		w.claimed(t, first.worker, 2)
		var stale, unwritten *kfake.FaultHandle
		ids := make(map[int32]uuid.UUID)
		second := w.start(t, reg, func(*executor.Config) { // it needs what is broken now to open the log
			stale = w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: -1})
			time.Sleep(executor.DefaultLease + time.Second)
			for i := range int32(2) {
				ids[i] = w.createAt(t, i, 0, task("hold", onInterruptFail))
				w.begin(t, ids[i], 1, w.lastClaim(i), first.worker)
			}
			time.Sleep(time.Second)
			require.Empty(t, starts, "its knowledge is too old")
			unwritten = w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		})
		time.Sleep(5 * time.Second)
		stale.Remove()
		kept := await(t, starts)
		time.Sleep(5 * time.Second)
		require.Empty(t, starts)
		unwritten.Remove()
		moved := await(t, starts)
		require.NotEqual(t, kept.task.Collection, moved.task.Collection)
		require.Equal(t, 2, moved.task.Attempt)
		require.Equal(t, ledger.StatusNotStarted, w.witness.attempts(moved.task.Collection)[0].Status)
		require.Equal(t, second.worker, w.witness.attempts(moved.task.Collection)[1].Worker)
		kept.end <- nil
		moved.end <- nil
		for _, id := range ids {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
	})
}

// A start that is read only after its claim was given back gets no handler, also
// in a process that lives on and reads the partition for what it still holds.
func TestStartReadAfterTheRelease(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		w.claimed(t, first.worker, 2)
		running := make(map[uuid.UUID]begun)
		for i := range int32(2) {
			w.create(t, i, task("hold"))
			b := await(t, starts)
			running[b.task.Collection] = b
		}
		var unread, unwritten *kfake.FaultHandle
		var ids map[int32]uuid.UUID
		second := w.start(t, reg, func(*executor.Config) { // it needs the log to be opened
			unread = w.unread()
			ids = w.startsOwnWork(t, first, 2)
			unwritten = w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		})
		time.Sleep(5 * time.Second)
		unread.Remove() // the starts are read, and no release yet
		time.Sleep(5 * time.Second)
		require.Len(t, starts, 1)
		unwritten.Remove()
		for range ids {
			b := await(t, starts)
			partition := ledger.PartitionOf(b.task.Collection)
			moved := w.holderOf(partition) == second.worker
			require.Equal(t, moved, b.task.Attempt == 2, "partition %d, attempt %d", partition, b.task.Attempt)
			if moved {
				require.Equal(t, ledger.StatusNotStarted, w.witness.attempts(b.task.Collection)[0].Status)
			}
			b.end <- nil
		}
		for _, id := range ids {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		require.Empty(t, starts)
		for _, b := range running {
			b.end <- nil
		}
	})
}

// A handler that says that its outcome comes later gives its slot back; the
// outcome is then anybody's who has the token.
func TestHandlerThatDefers(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg, func(c *executor.Config) { c.Slots = 1 })
		id := w.create(t, 0, task("hold"), task("add"))
		b := await(t, starts)
		b.end <- executor.ErrPending
		w.witness.await(t, "the deferral", func([]fact) bool { return w.witness.count("TaskDeferred", ledger.Accepted) == 1 })
		other := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, other, 1).Status, "the slot is free")
		w.append(t, 0, ledger.TaskSucceeded{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: b.task.TaskID, AttemptID: b.task.Fence, Worker: p.worker,
			Result: json.RawMessage(`{"sum":5}`),
		})
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Equal(t, 1, p.metric("keten_task_attempts_total", "type", "hold", "result", "deferred"))
		require.Empty(t, starts)
	})
}

// An attempt whose deferral has not been read back is held: it is listed when the
// claim is given back, and not called lost.
func TestDeferralThatIsUnderWayIsHeld(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("hold", onInterruptFail), task("add"))
		b := await(t, starts)
		unread := w.unread()
		b.end <- executor.ErrPending
		p.stop()
		time.Sleep(time.Second)
		unread.Remove()
		require.NoError(t, p.wait(t))
		w.witness.await(t, "the release", func([]fact) bool { return len(w.witness.releases(p.worker)) == 1 })
		require.Equal(t, []int64{b.task.Fence}, w.witness.releases(p.worker)[0].Running)
		w.start(t, reg)
		time.Sleep(10 * time.Minute)
		require.Equal(t, ledger.StatusDeferred, w.witness.attempts(id)[0].Status)
		require.Len(t, w.witness.attempts(id), 1)
	})
}

// A start goes on where the last snapshot was taken, not at the beginning.
func TestStartFromASnapshot(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		for p := range int32(2) {
			w.create(t, p, task("add"), task("hold"), task("add"))
			await(t, starts).end <- nil
		}
		open := w.create(t, 0, task("add", attemptsMost(2)), task("hold", attemptsMost(2)))
		b := await(t, starts)
		first.stop()
		b.end <- executor.RetryAfter(5*time.Minute, errors.New("busy"))
		require.NoError(t, first.wait(t))

		second := w.start(t, reg)
		stopped := time.Now()
		b = await(t, starts)
		require.Equal(t, open, b.task.Collection)
		require.Equal(t, 2, b.task.Attempt)
		require.InDelta(t, (5 * time.Minute).Seconds(), time.Since(stopped).Seconds(), 10)
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, open, 1).Status)
		require.Equal(t, 2, second.metric("keten_snapshots_total", "result", "restored"))
	})
}

// foreignSnapshot writes a snapshot of partition 0 that has seen more records
// than the log has.
func (w *world) foreignSnapshot(t *testing.T) {
	t.Helper()
	fold := ledger.NewPartition(0)
	r, err := w.log.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{0: {LeaderEpoch: -1}}})
	require.NoError(t, err)
	defer r.Close()
	fetched, err := r.Poll(t.Context(), 10)
	require.NoError(t, err)
	for _, record := range fetched[0].Records {
		_, err = fold.Apply(record)
		require.NoError(t, err)
	}
	for range 10 {
		_, err := fold.Apply(ledger.Record{Offset: fold.Position(), LeaderEpoch: fold.LeaderEpoch()})
		require.NoError(t, err)
	}
	_, written, err := w.log.WriteSnapshot(t.Context(), eventlog.Snapshot{Partition: 0, Position: fold.Position(), State: fold.Snapshot(), Final: true})
	require.NoError(t, err)
	require.True(t, written)
}

// A snapshot of a log that lost its end stops the partition before anything is
// started, and the others go on.
func TestSnapshotBeyondTheLogStopsThePartition(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		w.foreignSnapshot(t)
		reg, starts := newStarts()
		w.create(t, 0, task("hold"))
		id := w.create(t, 1, task("add"))
		p := w.start(t, reg)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		time.Sleep(time.Minute)
		require.Empty(t, starts)
		require.ErrorContains(t, p.executor.Ready(), "partition 0 has stopped")
		require.ErrorContains(t, p.executor.Ready(), "the log ends at offset")
	})
}

// A partition that comes back to a process that holds nothing of it is taken from
// a snapshot, behind the release that this process wrote and never read, and is
// claimed again.
func TestPartitionReturnsBehindASnapshot(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		first := w.start(t, reg)
		w.claimed(t, first.worker, 2)
		second := w.start(t, reg)
		w.claimed(t, second.worker, 1)
		for p := range int32(2) {
			id := w.create(t, p, task("add"))
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
		second.stop()
		require.NoError(t, second.wait(t))
		for p := range int32(2) {
			id := w.create(t, p, task("add"))
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
			require.Equal(t, first.worker, w.holderOf(p))
		}
		require.Equal(t, 1, first.metric("keten_snapshots_total", "result", "restored"))
	})
}

// A process that holds an attempt folds on record by record when the partition
// comes back, past a snapshot: what became of the attempt is in the records.
func TestHeldAttemptIsFollowedPastASnapshot(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.start(t, reg)
		id := w.create(t, 0, task("hold"))
		b := await(t, starts)
		second := w.start(t, reg)
		first.wire.setCut(true)
		again := await(t, starts)
		again.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		second.stop()
		require.NoError(t, second.wait(t))
		first.wire.setCut(false)
		await(t, b.ctx.Done())
		require.ErrorIs(t, context.Cause(b.ctx), executor.ErrTakenOver)
		next := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, next, 1).Status)
	})
}
