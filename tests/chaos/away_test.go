package chaos_test

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// awayCPU is how much of a core an executor may use while it has nothing to
	// do but to wait for its broker.
	awayCPU = 0.05
	// awayLines bounds what it logs about that, and moreLines what each further
	// minute may add: states that change, and reminders.
	awayLines = 30
	moreLines = 10
	// awayShortest is how long an executor is watched at least.
	awayShortest = 5 * time.Second
)

// The broker is away while tasks run and others wait. Handlers finish, executors
// stay, do not spin, and say that they are not ready; one is restarted well and
// one by kill -9 meanwhile. When the broker is back everything ends, and nothing
// that had finished runs again.
func TestBrokerIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	dice := newDice(t)
	outage := time.Duration(scaled(int(2 * time.Minute)))
	k := kafkatest.New(t, kafkatest.Config{HeapMB: 256})
	w := newWorld(t, k.Brokers(), partitions)
	plans := make([]plan, 60)
	for i := range plans {
		plans[i] = drawPlan(dice, partitions)
		setWork(&plans[i].tasks[0], 1000+dice.Int64N(3000))
	}
	f := newFleet(t, 3, w, func(c *workerConfig) { c.Slots, c.LeaseMS = 8, 3000 })
	seen := w.startWitness(t)
	f.startAll(t)
	require.NoError(t, w.createAll(t, plans))
	require.Eventually(t, func() bool { return w.journal.running() >= 3*8-4 }, patience, 10*time.Millisecond, "handlers run everywhere")

	began := time.Now()
	if dice.IntN(2) == 0 {
		require.NoError(t, k.Stop())
	} else {
		require.NoError(t, k.Kill())
	}
	t.Logf("the broker is gone after %s with %d handlers running and %d of %d collections ended", time.Since(began).Round(time.Millisecond),
		w.journal.running(), len(plans)-len(seen.open(plans)), len(plans))
	require.NotEmpty(t, seen.open(plans))
	lines := make([]int, len(f.members))
	for i, m := range f.members {
		lines[i] = len(m.lines())
	}
	require.Eventually(t, func() bool { return w.journal.running() == 0 }, patience, 10*time.Millisecond, "handlers finish")
	f.requireUnready(t)
	f.restartMeanwhile(t)
	f.requireUnready(t)
	f.watchWaiting(t, max(outage-time.Since(began), awayShortest))
	most := awayLines + moreLines*int(time.Since(began)/time.Minute)
	for i, m := range f.members {
		logged := m.lines()[lines[i]:]
		t.Logf("executor %d logged %d lines while the broker was away", i, len(logged))
		require.LessOrEqual(t, len(logged), most, "executor %d logs too much: %v", i, logged)
	}

	require.NoError(t, k.Restart(t.Context()))
	for i, m := range f.members {
		require.Eventually(t, func() bool { return m.ready() == nil }, patience, 50*time.Millisecond, "executor %d is ready again", i)
	}
	require.NoError(t, seen.awaitAll(plans))
	f.stopAll(t)
	f.requireNoRaces(t)
	j := w.judge(t, plans)
	j.checkFinished()
	j.checkUninterrupted()
	j.checkLeftBehind(f.mark)
	j.require(t)
}

// setWork changes how long a task takes, which must be one of this process.
func setWork(task *ledger.Task, ms int64) {
	args := taskArgsOf(task)
	args.WorkMS = ms
	task.Type = "work"
	task.Args = args.encode()
}

// running returns how many handlers have begun and not returned.
func (j *journal) running() int {
	running := make(map[handlerKey]bool)
	for _, n := range j.all() {
		key := handlerKey{ledger.PartitionOf(n.Collection), n.Fence}
		if n.Phase == phaseStart {
			running[key] = true
		} else {
			delete(running, key)
		}
	}
	return len(running)
}

// requireUnready waits until every member says that it is not ready.
func (f *fleet) requireUnready(t *testing.T) {
	t.Helper()
	for i, m := range f.members {
		require.True(t, m.running(), "executor %d has ended by itself:\n%s", i, m.lastWords())
		require.Eventually(t, func() bool { return m.ready() != nil }, patience, 50*time.Millisecond, "executor %d calls itself ready", i)
		t.Logf("executor %d: %v", i, m.ready())
	}
}

// restartMeanwhile restarts the first member well and the second by kill -9,
// once what its handlers did is on its disk.
func (f *fleet) restartMeanwhile(t *testing.T) {
	t.Helper()
	first, second := f.members[0], f.members[1]
	require.NoError(t, first.stop())
	first.restart(t)
	bytes, since := int64(0), time.Now()
	require.Eventually(t, func() bool {
		if now := folderBytes(second.cfg.outbox()); now != bytes {
			bytes, since = now, time.Now()
		}
		return bytes > 0 && time.Since(since) > 2*time.Second
	}, patience, 100*time.Millisecond, "outcomes are on disk")
	require.NoError(t, second.kill())
	second.restart(t)
}

func folderBytes(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum
}

// watchWaiting sees to it that nobody spins or ends while there is nothing to
// do.
func (f *fleet) watchWaiting(t *testing.T, length time.Duration) {
	t.Helper()
	before := make([]procStat, len(f.members))
	for i, m := range f.members {
		var err error
		before[i], err = readStat(m.proc.PID())
		require.NoError(t, err)
	}
	<-time.After(length)
	for i, m := range f.members {
		require.True(t, m.running(), "executor %d has ended by itself:\n%s", i, m.lastWords())
		after, err := readStat(m.proc.PID())
		require.NoError(t, err)
		used := float64(after.cpu-before[i].cpu) / float64(length)
		t.Logf("executor %d used %.1f %% of a core in %s", i, 100*used, length.Round(time.Second))
		require.Less(t, used, awayCPU, "executor %d spins", i)
	}
}

// checkFinished: no task that has succeeded once begins again in the same run.
func (j *judgement) checkFinished() {
	type pass struct {
		task uuid.UUID
		run  int
	}
	finished := make(map[pass]note)
	for _, n := range j.notes {
		p := pass{n.Task, n.Run}
		switch n.Phase {
		case phaseSuccess:
			finished[p] = n
		case phaseStart:
			if before, ok := finished[p]; ok {
				j.broken(n.Collection, "task %s began again as attempt %d after attempt %d had succeeded", n.Task, n.Fence, before.Fence)
			}
		}
	}
}

// checkUninterrupted: where no process dies at work, no attempt is taken for lost
// whose handler ends, and none fails that had none.
func (j *judgement) checkUninterrupted() {
	returned := make(map[handlerKey]bool)
	for _, n := range j.notes {
		returned[handlerKey{ledger.PartitionOf(n.Collection), n.Fence}] = n.Phase != phaseStart
	}
	for partition, a := range j.audits {
		for _, attempt := range a.attempts {
			switch ended, began := returned[handlerKey{partition, attempt.id}]; {
			case !attempt.abandoned:
			case ended:
				j.broken(attempt.run.collection, "attempt %d was given up (%s), and its handler had ended", attempt.id, attempt.status)
			case !began && attempt.status == "failed":
				j.broken(attempt.run.collection, "attempt %d was called interrupted, and its handler never began", attempt.id)
			case !began:
				j.counts["attempts superseded that had no handler"]++
			}
		}
	}
}
