package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/kafkatest"
)

const (
	members    = 4
	partitions = 8
	// sessionTimeout is when a member that is silent counts as dead; pauses are
	// longer.
	sessionTimeout = 6 * time.Second
	shortestPause  = sessionTimeout + time.Second
	longestPause   = sessionTimeout + 4*time.Second
	// mostPaused is how many members are paused at a time: somebody must be
	// there to take over.
	mostPaused = 2
)

// A fault is one thing done to a member, planned by the seed, with a wave of load
// in front of it: what it hits is at work.
type fault struct {
	after time.Duration // since the one before
	lead  time.Duration // how long before it the wave is created
	pause time.Duration // 0: kill -9
	rank  int           // which of the members that run
	down  time.Duration // until it is started again
}

func drawFaults(dice *rand.Rand, kills, pauses int) []fault {
	faults := make([]fault, kills+pauses)
	for i := range faults {
		faults[i] = fault{
			after: between(dice, 500*time.Millisecond, 4*time.Second), lead: between(dice, 0, time.Second),
			rank: dice.IntN(members), down: between(dice, 0, 3*time.Second),
		}
		if i >= kills {
			faults[i].pause = between(dice, shortestPause, longestPause)
		}
	}
	dice.Shuffle(len(faults), func(i, k int) {
		faults[i].pause, faults[k].pause = faults[k].pause, faults[i].pause
	})
	return faults
}

// Executors are killed and paused while they work. Everything ends, nothing
// counts twice, what may run once runs once, and nobody is left behind.
func TestExecutorsAreKilledAndPaused(t *testing.T) {
	t.Parallel()
	dice := newDice(t)
	w := newWorld(t, kafkatest.Brokers(t), partitions)
	plans := make([]plan, scaled(1000))
	for i := range plans {
		plans[i] = drawPlan(dice, partitions)
	}
	faults := drawFaults(dice, scaled(60), scaled(20))
	f := newFleet(t, members, w, nil)
	seen := w.startWitness(t)
	f.startAll(t)

	n := &nemesis{t: t, fleet: f, busy: make([]bool, members), wave: func(i int) {
		part := plans[i*len(plans)/len(faults) : (i+1)*len(plans)/len(faults)]
		require.NoError(t, w.createAll(t, part))
	}}
	n.run(faults)
	began, ended := w.journal.count(phaseStart), len(plans)-len(seen.open(plans))
	t.Logf("at the last fault %d handlers had begun and %d of %d collections had ended", began, ended, len(plans))
	require.NoError(t, seen.awaitAll(plans))

	f.stopAll(t)
	f.requireNoRaces(t)
	j := w.judge(t, plans)
	j.checkLeftBehind(f.mark)
	j.require(t)
	require.Equal(t, scaled(60), n.kills, "kills that fired")
	require.Equal(t, scaled(20), n.pauses, "pauses that fired and were longer than the session timeout")
	require.GreaterOrEqual(t, began, len(plans)*tasksPerCollection*8/10, "handlers that began before the last fault was over")
	require.GreaterOrEqual(t, j.lost(), scaled(60), "attempts that were lost to a fault")
}

// A nemesis does faults and counts those that came true.
type nemesis struct {
	t             *testing.T
	fleet         *fleet
	busy          []bool // members that are paused or down
	wave          func(fault int)
	kills, pauses int
}

// done is the end of a fault: the member is well again.
type done struct {
	member int
	err    error
	paused bool // for longer than the session timeout
}

// run does the faults one after the other; their ends overlap.
func (n *nemesis) run(faults []fault) {
	ends := make(chan done, members)
	under, paused := 0, 0
	heal := func(d done) {
		require.NoError(n.t, d.err)
		n.busy[d.member] = false
		under--
		if d.paused {
			paused--
			n.pauses++
		}
	}
	for k, x := range faults {
		n.idle(x.after, ends, heal)
		n.wave(k)
		n.idle(x.lead, ends, heal)
		for n.free() == nil || x.pause > 0 && paused == mostPaused {
			heal(<-ends)
		}
		free := n.free()
		i := free[x.rank%len(free)]
		n.busy[i] = true
		under++
		if x.pause > 0 {
			paused++
			n.pause(i, x.pause, ends)
		} else {
			n.kill(i, x.down, ends)
		}
	}
	for under > 0 {
		heal(<-ends)
	}
}

// idle waits, and takes note of what ends meanwhile.
func (n *nemesis) idle(d time.Duration, ends <-chan done, heal func(done)) {
	for timer := time.NewTimer(d); ; {
		select {
		case <-timer.C:
			return
		case d := <-ends:
			heal(d)
		}
	}
}

// free returns the members to which something can be done, nil for none.
func (n *nemesis) free() (free []int) {
	for i := range n.busy {
		if !n.busy[i] {
			free = append(free, i)
		}
	}
	return free
}

// kill is kill -9 and, later, a new start.
func (n *nemesis) kill(i int, down time.Duration, ends chan<- done) {
	m := n.fleet.members[i]
	require.True(n.t, m.running(), "executor %d has ended by itself:\n%s", i, m.lastWords())
	require.NoError(n.t, m.end(syscall.SIGKILL))
	require.ErrorContains(n.t, m.proc.Err(), "killed")
	n.kills++
	time.AfterFunc(down, func() { ends <- done{member: i, err: m.start()} })
}

// pause stops a member for longer than its session lasts.
func (n *nemesis) pause(i int, length time.Duration, ends chan<- done) {
	m := n.fleet.members[i]
	require.NoError(n.t, m.proc.Signal(syscall.SIGSTOP))
	began := time.Now()
	time.AfterFunc(length, func() {
		stat, err := readStat(m.proc.PID())
		if err == nil && stat.state != 'T' {
			err = fmt.Errorf("process %d is in state %c instead of being paused", m.proc.PID(), stat.state)
		}
		lasted := time.Since(began)
		if err == nil {
			err = m.proc.Signal(syscall.SIGCONT)
		}
		ends <- done{member: i, err: err, paused: lasted > sessionTimeout}
	})
}
