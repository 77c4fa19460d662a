package chaos_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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

// A faultKind says what is done to a member.
type faultKind int

const (
	faultKill  faultKind = iota // kill -9, and a new start later
	faultPause                  // SIGSTOP for longer than the session
	faultStop                   // a good end, and a new start later
)

// A fault is one thing done to a member, planned by the seed, with a wave of load
// in front of it: what it hits is at work.
type fault struct {
	after time.Duration // since the one before
	lead  time.Duration // how long before it the wave is created
	kind  faultKind
	rank  int           // which of the members that run
	down  time.Duration // until it goes on or is started again
}

func (x fault) String() string {
	return fmt.Sprintf("%s for %s", [...]string{faultKill: "kill -9", faultPause: "pause", faultStop: "stop"}[x.kind], x.down)
}

func drawFaults(dice *rand.Rand, kills, pauses, stops int) []fault {
	faults := make([]fault, kills+pauses+stops)
	for i := range faults {
		x := fault{
			after: between(dice, 500*time.Millisecond, 4*time.Second), lead: between(dice, 0, time.Second),
			rank: dice.IntN(members), down: between(dice, 0, 3*time.Second),
		}
		switch {
		case i < pauses:
			x.kind, x.down = faultPause, between(dice, shortestPause, longestPause)
		case i < pauses+stops:
			x.kind = faultStop
		}
		faults[i] = x
	}
	dice.Shuffle(len(faults), func(i, k int) { faults[i], faults[k] = faults[k], faults[i] })
	return faults
}

// Executors are killed, paused and restarted while they work. Everything ends, nothing
// counts twice, what may run once runs once, and nobody is left behind.
func TestExecutorsAreKilledAndPaused(t *testing.T) {
	t.Parallel()
	dice := newDice(t)
	w := newWorld(t, kafkatest.Brokers(t), partitions)
	plans := make([]plan, scaled(1000))
	for i := range plans {
		plans[i] = drawPlan(dice, partitions)
	}
	faults := drawFaults(dice, scaled(60), scaled(20), scaled(20))
	f := newFleet(t, members, w, nil)
	seen := w.startWitness(t)
	f.startAll(t)

	n := &nemesis{t: t, fleet: f, busy: make([]bool, members), fired: make(map[faultKind]int), wave: func(i int) {
		part := plans[i*len(plans)/len(faults) : (i+1)*len(plans)/len(faults)]
		require.NoError(t, w.createAll(t, part))
	}}
	n.run(faults)
	began, ended := w.journal.count(phaseStart), len(plans)-len(seen.open(plans))
	t.Logf("after the last fault %d handlers had begun and %d of %d collections had ended", began, ended, len(plans))
	require.NoError(t, seen.awaitAll(plans))

	f.stopAll(t)
	f.requireNoRaces(t)
	j := w.judge(t, plans)
	j.checkLeftBehind(f.mark)
	j.require(t)
	require.Equal(t, map[faultKind]int{faultKill: scaled(60), faultPause: scaled(20), faultStop: scaled(20)}, n.fired, "faults that came true")
	require.GreaterOrEqual(t, began, len(plans)*tasksPerCollection/2, "handlers that began before the last fault was over")
	require.GreaterOrEqual(t, j.lost(), scaled(60)/2, "attempts that were lost to a fault")
}

// A nemesis does faults and counts those that came true.
type nemesis struct {
	t     *testing.T
	fleet *fleet
	busy  []bool // members to which something is being done
	wave  func(fault int)
	fired map[faultKind]int
}

// done is the end of a fault: the member is well again.
type done struct {
	member int
	kind   faultKind
	err    error // it did not come true
}

// run does the faults one after the other; their ends overlap.
func (n *nemesis) run(faults []fault) {
	ends := make(chan done, members)
	under, paused := 0, 0
	heal := func(d done) {
		require.NoError(n.t, d.err)
		n.busy[d.member] = false
		n.fired[d.kind]++
		under--
		if d.kind == faultPause {
			paused--
		}
	}
	for k, x := range faults {
		n.idle(x.after, ends, heal)
		n.wave(k)
		n.idle(x.lead, ends, heal)
		for n.free() == nil || x.kind == faultPause && paused == mostPaused {
			heal(<-ends)
		}
		free := n.free()
		i := free[x.rank%len(free)]
		m := n.fleet.members[i]
		require.True(n.t, m.running(), "executor %d has ended by itself:\n%s", i, m.lastWords())
		n.busy[i] = true
		n.t.Logf("%s executor %d (pid %d): %s", time.Now().Format(clock), i, m.proc.PID(), x)
		under++
		if x.kind == faultPause {
			paused++
		}
		go func() { ends <- done{member: i, kind: x.kind, err: m.suffer(x)} }()
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

// suffer lets a fault happen and returns when the member is well again. The
// error says why it did not come true.
func (m *member) suffer(x fault) error {
	switch x.kind {
	case faultPause:
		return m.pause(x.down)
	case faultStop:
		if err := m.stop(); err != nil {
			return err
		}
	case faultKill:
		if err := m.kill(); err != nil {
			return err
		}
		if err := m.proc.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
			return fmt.Errorf("an executor ended before it was killed: %w", err)
		}
	}
	<-time.After(x.down)
	if err := m.start(); err != nil {
		return err
	}
	return m.waitUp()
}

// pause stops a member for longer than its session lasts.
func (m *member) pause(length time.Duration) error {
	if err := m.proc.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	<-time.After(length)
	stat, err := readStat(m.proc.PID())
	if err == nil && stat.state != 'T' {
		err = fmt.Errorf("process %d is in state %c instead of being paused", m.proc.PID(), stat.state)
	}
	return errors.Join(err, m.proc.Signal(syscall.SIGCONT))
}
