package executor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// One partition without a leader must not stop the others.
func TestPartitionWithoutLeaderStopsAlone(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		p := w.start(t, reg)
		w.claimed(t, p.worker, 2)
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "keten.ledger", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1,
		})
		time.Sleep(executor.DefaultLease + time.Second)
		id := w.createAt(t, 0, 0, task("add"))
		time.Sleep(time.Minute)
		require.Len(t, w.witness.attempts(id), 1, "partition 0 is healthy; ready: %v", p.executor.Ready())
	})
}

// A partition that stops must not take outcomes out of the outbox that are
// not in the log.
func TestStoppedPartitionKeepsItsOutcomes(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		p := w.start(t, reg, outboxIn(dir))
		w.create(t, 0, task("hold", onInterruptFail))
		b := await(t, starts)
		unread := w.unread()
		w.append(t, 0, ledger.RulesActivated{Rules: ledger.Rules + 1})
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		b.end <- nil
		time.Sleep(5 * time.Second) // it is in the outbox
		unread.Remove()
		time.Sleep(5 * time.Second)
		require.ErrorContains(t, p.executor.Ready(), "partition 0 has stopped")
		p.stop()
		require.NoError(t, p.wait(t))
		p.log.Close()
		require.Zero(t, w.witness.count("TaskSucceeded", ledger.Accepted))
		require.Equal(t, 1, keptIn(t, dir), "the outcome is neither in the log nor in the outbox")
	})
}

// Nothing is started after a shutdown has begun, also not in a partition
// that is assigned meanwhile for the first time.
func TestAssignmentDuringShutdown(t *testing.T) {
	t.Parallel()
	bubble(t, 8, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		grace := func(c *executor.Config) { c.ShutdownGrace = time.Minute }
		c, b, a := w.start(t, reg, grace), w.start(t, reg, grace), w.start(t, reg, grace)
		time.Sleep(310 * time.Millisecond)
		w.start(t, reg, grace) // lives on
		time.Sleep(30 * time.Second)
		handlers := 0
		for p := range int32(8) {
			w.create(t, p, task("hold", onInterruptFail))
			await(t, starts)
			handlers++
		}
		c.wire.setCut(true) // it is gone; the group waits for it until its session is over
		b.stop()            // the others are stopped, one after the other
		time.Sleep(2 * time.Second)
		a.stop()
		time.Sleep(time.Second)
		require.Empty(t, starts)
		mark := len(w.witness.all())
		for p := range int32(8) {
			w.createAt(t, p, 0, task("hold", onInterruptFail))
		}
		time.Sleep(30 * time.Second)
		for _, f := range w.witness.all()[mark:] {
			if e, ok := f.Event.(ledger.TaskStarted); ok && f.Verdict == ledger.Accepted && (e.Worker == a.worker || e.Worker == b.worker) {
				t.Error("started by a process that shuts down:", f)
			}
		}
		c.wire.setCut(false)
	})
}

// Two sets that share a queue do not take the claim from each other for a task
// that neither can run.
func TestUnservedTaskMovesNoClaim(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		first := w.startServing(t, reg, "default")
		w.claimed(t, first.worker, 1)
		w.startServing(t, reg, "default", "gpu")
		time.Sleep(time.Minute)
		w.create(t, 0, task("hold"))
		await(t, starts)
		before := w.witness.count("PartitionClaimed", ledger.Accepted)
		w.create(t, 0, task("nobody"))
		time.Sleep(10 * time.Minute)
		require.Equal(t, before, w.witness.count("PartitionClaimed", ledger.Accepted))
	})
}

// An executor that cannot join its group is not ready.
func TestNotReadyOutsideOfItsGroup(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.GroupAuthorizationFailed, Count: -1})
		reg, _ := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("add"))
		time.Sleep(10 * time.Minute)
		require.Empty(t, w.witness.attempts(id))
		require.Error(t, p.executor.Ready())
	})
}

// A partition without a leader must not keep others from being taken over.
func TestPartitionWithoutLeaderHoldsUpNoTakeover(t *testing.T) {
	t.Parallel()
	bubble(t, 4, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		a := w.start(t, reg)
		b := w.start(t, reg)
		w.claimed(t, b.worker, 2)
		time.Sleep(5 * time.Second)
		// One partition that stays with a.
		var bad int32
		for p := range int32(4) {
			if w.holderOf(p) == a.worker {
				bad = p
			}
		}
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "keten.ledger", Partitions: []int32{bad}, Err: kerr.LeaderNotAvailable, Count: -1,
		})
		b.stop()
		require.NoError(t, b.wait(t))
		time.Sleep(5 * time.Minute)
		n := 0
		for p := range int32(4) {
			if w.holderOf(p) == a.worker {
				n++
			}
		}
		require.Equal(t, 4, n, "partitions claimed by the one that is left")
	})
}

// Snapshots are a shortcut: those of one partition that cannot be read must
// not hold up others.
func TestUnreadableSnapshotsHoldUpNobody(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets}, Topic: "keten.snapshots", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1,
		})
		reg, _ := newStarts()
		w.start(t, reg)
		id := w.create(t, 0, task("add"))
		time.Sleep(10 * time.Minute)
		require.Len(t, w.witness.attempts(id), 1)
	})
}

// Two sets that share a queue do not take the claim from each other when neither
// has a slot left.
func TestFullSlotsMoveNoClaim(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, starts := newStarts()
		one := func(c *executor.Config) { c.Slots = 1 }
		first := w.startAs(t, executor.NewWorkerID("default"), reg, one)
		w.claimed(t, first.worker, 1)
		w.startAs(t, executor.NewWorkerID("default", "gpu"), reg, one, func(c *executor.Config) { c.Queues = []string{"default", "gpu"} })
		time.Sleep(time.Minute)
		for range 4 {
			w.create(t, 0, task("hold"))
		}
		await(t, starts)
		before := w.witness.count("PartitionClaimed", ledger.Accepted)
		time.Sleep(10 * time.Minute)
		require.LessOrEqual(t, w.witness.count("PartitionClaimed", ledger.Accepted), before+2)
	})
}

// What is left for a partition that takes no records must not keep the
// executor from owning others.
func TestLeftOutcomesHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		first := w.start(t, reg, outboxIn(dir))
		w.create(t, 1, task("hold"))
		b := await(t, starts)
		first.wire.setCut(true)
		b.end <- nil
		time.Sleep(10 * time.Second)
		first.stop()
		require.NoError(t, first.wait(t))
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "keten.ledger", Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
		w.start(t, reg, outboxIn(dir))
		id := w.create(t, 0, task("add"))
		time.Sleep(10 * time.Minute)
		require.Len(t, w.witness.attempts(id), 1)
	})
}

// One answer of a broker that does not know yet that it is not the leader
// any more is no lost history.
func TestOneStaleLogEndIsNoLoss(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg, _ := newStarts()
		p := w.start(t, reg)
		id := w.create(t, 0, task("add"), task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		w.cluster.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.DropControl()
			req, _ := kreq.(*kmsg.ListOffsetsRequest)
			resp, _ := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, rt := range req.Topics {
				st := kmsg.NewListOffsetsResponseTopic()
				st.Topic = rt.Topic
				for _, rp := range rt.Partitions {
					sp := kmsg.NewListOffsetsResponseTopicPartition()
					sp.Partition, sp.Offset, sp.Timestamp, sp.LeaderEpoch = rp.Partition, 2, -1, 0
					st.Partitions = append(st.Partitions, sp)
				}
				resp.Topics = append(resp.Topics, st)
			}
			return resp, nil, true
		})
		time.Sleep(time.Minute)
		require.NoError(t, p.executor.Ready())
	})
}
