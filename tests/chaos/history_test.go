package chaos_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

// The state of a consumer group is nobody's truth: it is deleted while the fleet
// is down, and everything goes on.
func TestConsumerGroupIsDeletedWhileTheFleetIsDown(t *testing.T) {
	t.Parallel()
	dice := newDice(t)
	w := newWorld(t, kafkatest.Brokers(t), partitions)
	f := newFleet(t, 2, w, nil)
	seen := w.startWitness(t)
	var plans []plan
	for cycle := range scaled(20) {
		part := make([]plan, 6)
		for i := range part {
			part[i] = drawPlan(dice, partitions)
		}
		plans = append(plans, part...)
		f.startAll(t)
		require.NoError(t, w.createAll(t, part))
		require.NoError(t, seen.awaitAll(plans[:len(plans)-len(part)]))
		require.Eventually(t, func() bool { return len(seen.open(part)) < len(part) }, patience, 10*time.Millisecond)
		// every third time they have no time to leave
		if cycle%3 == 1 {
			f.killAll(t)
		} else {
			f.stopAll(t)
		}
		require.Eventually(t, func() bool {
			_, err := w.admin.DeleteGroup(t.Context(), w.group)
			return err == nil
		}, patience, 100*time.Millisecond, "the group is deleted")
	}
	f.startAll(t)
	require.NoError(t, seen.awaitAll(plans))
	f.stopAll(t)
	f.requireNoRaces(t)
	j := w.judge(t, plans)
	j.checkLeftBehind(f.mark)
	j.require(t)
}

func (f *fleet) killAll(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		require.NoError(t, m.kill())
	}
}

// lossWords are in what an executor says of a log that is not the one it knows.
var lossWords = eventlog.ErrDataLoss.Error()

// A topic that is deleted and created again while executors run, or while they
// do not, is not taken for the ledger: none of its tasks is started.
func TestTopicIsRecreated(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while executors run": true, "while they do not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kafkatest.Brokers(t), partitions)
			f := newFleet(t, 2, w, nil)
			w.runSome(t, f)
			if !running {
				f.stopAll(t)
				w.requireSnapshots(t)
			}
			_, err := w.admin.DeleteTopic(t.Context(), w.prefix+".ledger")
			require.NoError(t, err)
			require.Eventually(t, func() bool { return w.init(t, partitions) == nil }, patience, 100*time.Millisecond, "the topic is made again")
			again := w.reopen(t)
			before := len(w.journal.all())
			all := allPartitions()
			require.NoError(t, again.createAll(t, drawPlans(all)))
			if !running {
				f.startAll(t)
			}
			f.requireStopped(t, all)
			require.Len(t, w.journal.all(), before, "no handler begins for the other history")
			f.requireNoRaces(t)
		})
	}
}

// An executor that comes up and finds no ledger where one was says so and ends.
func TestTopicIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Brokers(t), partitions)
	f := newFleet(t, 1, w, nil)
	w.runSome(t, f)
	f.stopAll(t)
	_, err := w.admin.DeleteTopic(t.Context(), w.prefix+".ledger")
	require.NoError(t, err)
	f.members[0].restart(t)
	require.Eventually(t, func() bool { return !f.members[0].running() }, patience, 50*time.Millisecond, "it ends")
	require.Contains(t, f.members[0].lastWords(), eventlog.ErrNotInitialized.Error())
}

// A tail is one ledger that loses the end of a partition, and its executors.
type tail struct {
	name            string
	running, refill bool // executors run meanwhile; the partition grows again
	world           *world
	fleet           *fleet
	end             int64 // of the partition before
}

// The partition that is cut, and one that is left alone.
const (
	cutPartition   = int32(1)
	wholePartition = int32(2)
)

// The end of a partition is cut off while the broker is down, and grows again
// with other records. Executors that knew more of it, by what they have folded or
// by a snapshot, start none of its tasks; other partitions go on.
func TestTailIsCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := kafkatest.New(t, kafkatest.Config{HeapMB: 256, Dir: dir})
	tails := []*tail{
		{name: "while executors run, and grows again", running: true, refill: true},
		{name: "while they do not"},
		{name: "while they do not, and grows again", refill: true},
	}
	for _, c := range tails {
		c.prepare(t, k.Brokers())
	}
	require.NoError(t, k.Stop())
	for _, c := range tails {
		cutTail(t, filepath.Join(dir, "data", fmt.Sprintf("%s.ledger-%d", c.world.prefix, cutPartition)), 2)
	}
	require.NoError(t, k.Restart(t.Context()))
	for _, c := range tails {
		t.Log(c.name)
		c.check(t)
	}
}

// prepare makes the ledger and brings a collection in each partition to its end.
func (c *tail) prepare(t *testing.T, brokers []string) {
	t.Helper()
	c.world = newWorld(t, brokers, partitions)
	// one: another that gets the partition afterwards could not know
	c.fleet = newFleet(t, 1, c.world, nil)
	c.world.runSome(t, c.fleet)
	if !c.running {
		c.fleet.stopAll(t)
		c.world.requireSnapshots(t)
	}
	ends, err := c.world.log.Ends(t.Context())
	require.NoError(t, err)
	c.end = ends[cutPartition]
}

func (c *tail) check(t *testing.T) {
	t.Helper()
	w := c.world.reopen(t)
	shorter, err := w.log.Ends(t.Context())
	require.NoError(t, err)
	require.Less(t, shorter[cutPartition], c.end)
	before := len(w.journal.all())
	if c.refill {
		var more []plan
		for range c.end - shorter[cutPartition] + 3 {
			more = append(more, drawPlans([]int32{cutPartition})...)
		}
		require.NoError(t, w.createAll(t, more))
	}
	if !c.running {
		c.fleet.startAll(t)
	}
	c.fleet.requireStopped(t, []int32{cutPartition})
	require.Len(t, w.journal.all(), before, "no handler begins for the other history")
	others := drawPlans([]int32{wholePartition})
	seen := w.startWitness(t)
	require.NoError(t, w.createAll(t, others))
	require.NoError(t, seen.awaitAll(others))
	for _, n := range w.journal.all()[before:] {
		require.Equal(t, wholePartition, ledger.PartitionOf(n.Collection), "no handler begins for the other history")
	}
	c.fleet.requireNoRaces(t)
}

// runSome starts the fleet and lets it bring a collection of each partition to
// its end.
func (w *world) runSome(t *testing.T, f *fleet) {
	t.Helper()
	plans := drawPlans(allPartitions())
	seen := w.startWitness(t)
	f.startAll(t)
	// Whoever had a partition for a moment only knows little of it.
	require.Eventually(t, func() bool { return seen.settled(len(f.members)) }, patience, 50*time.Millisecond, "all partitions are owned")
	require.NoError(t, w.createAll(t, plans))
	require.NoError(t, seen.awaitAll(plans))
}

func allPartitions() []int32 {
	all := make([]int32, partitions)
	for p := range all {
		all[p] = int32(p)
	}
	return all
}

// drawPlans makes one plain collection for each of some partitions.
func drawPlans(of []int32) []plan {
	dice := rand.New(rand.NewPCG(1, 0)) // what they do does not matter here
	plans := make([]plan, len(of))
	for i, partition := range of {
		plans[i] = planFor(dice, newCollectionID(partition))
	}
	return plans
}

// reopen is the same world for a client that knows nothing of the past.
func (w *world) reopen(t *testing.T) *world {
	t.Helper()
	again := *w
	var err error
	again.log, err = eventlog.Open(t.Context(), w.config("chaos-again"))
	require.NoError(t, err)
	t.Cleanup(again.log.Close)
	return &again
}

// requireSnapshots: executors that end well leave snapshots, the witnesses of
// what they knew.
func (w *world) requireSnapshots(t *testing.T) {
	t.Helper()
	ends, err := w.admin.ListEndOffsets(t.Context(), w.prefix+".snapshots")
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	for _, o := range ends[w.prefix+".snapshots"] {
		require.Positive(t, o.Offset, "partition %d has a snapshot", o.Partition)
	}
}

// requireStopped waits until each of the partitions was stopped by some member,
// because of its history.
func (f *fleet) requireStopped(t *testing.T, stopped []int32) {
	t.Helper()
	var said string
	require.Eventually(t, func() bool {
		said = f.complaints()
		for _, p := range stopped {
			if !strings.Contains(said, fmt.Sprintf("partition %d has stopped: ", p)) {
				return false
			}
		}
		return strings.Contains(said, lossWords)
	}, patience/2, 50*time.Millisecond, "executors stop the partitions %v", stopped)
	t.Log(said)
}

// complaints is why members are not ready.
func (f *fleet) complaints() string {
	var said strings.Builder
	for _, m := range f.members {
		if err := m.ready(); err != nil {
			said.WriteString(err.Error() + "\n")
		}
	}
	return said.String()
}

// batchLengthAt where it stands.
const (
	batchLengthAt = 8
	batchOverhead = 12
)

// cutTail takes the last batches off a partition's only segment, and with them
// all that could contradict it.
func cutTail(t *testing.T, dir string, batches int) {
	t.Helper()
	segment := filepath.Join(dir, fmt.Sprintf("%020d.log", 0))
	raw, err := os.ReadFile(segment)
	require.NoError(t, err)
	var begins []int
	for at := 0; at+batchOverhead <= len(raw); {
		length := int(binary.BigEndian.Uint32(raw[at+batchLengthAt:]))
		if length == 0 {
			break // preallocated
		}
		begins = append(begins, at)
		at += batchOverhead + length
	}
	require.Greater(t, len(begins), batches)
	require.NoError(t, os.Truncate(segment, int64(begins[len(begins)-batches])))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".index", ".timeindex", ".txnindex", ".snapshot":
			require.NoError(t, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	// Without it the broker checks every segment.
	err = os.Remove(filepath.Join(filepath.Dir(dir), ".kafka_cleanshutdown"))
	if err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}
