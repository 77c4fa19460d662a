package simtest

import (
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// world is one simulated system: a log, the network in front of it, and
// everybody who reads or writes. One goroutine, one source of chance, one clock.
type world struct {
	seed   uint64
	dice   dice
	honest bool // nobody breaks promises
	deadly bool // tasks take their handler along, again and again
	trace  trace

	tick   int
	idle   bool  // the action found nothing to do
	nowMS  int64 // Unix milliseconds
	skewMS int64 // of the broker's clock: record times may step back
	epoch  int32 // leader epoch

	index      int32
	partitions int32
	window     int64
	queues     []string
	keys       keyring
	mostActive int // collections that users keep going at once
	pace       int // milliseconds that a step takes at most, as a rule

	log       []*entry
	reference reader // folds each record as it lands
	oracle    *oracle
	net       network
	fates     [fates]int
	fateSum   int

	groups      []*group
	hosts       []*host
	projections []*projection
	writers     []*writer
	evil        *conn
	probes      []*probe
	snapshots   []snapshot
	tokens      []*token
	keyed       []request // requests with idempotency keys, to be sent again

	returnWeights [returns]int
	returnSum     int
	outboxes      bool // executors keep outcomes in a file

	events           uint64 // event ids given out
	serial           int    // payloads given out
	incarnations     int    // processes started
	invalidOnPurpose map[uuid.UUID]bool
	names            map[uuid.UUID]string // of collections, for people
	touching         *touchCheck          // nil in most runs
	coverage         Coverage
	failure          error
}

func newWorld(seed uint64, loud bool) *world {
	w := &world{
		seed: seed, dice: newDice(seed), trace: trace{hash: fnvOffset, loud: loud}, nowMS: startMS,
		index: 1, partitions: 3, queues: []string{"default", "slow"},
		invalidOnPurpose: map[uuid.UUID]bool{}, names: map[uuid.UUID]string{}, coverage: Coverage{},
	}
	d := w.dice
	w.honest = !d.chance(30)
	w.window = int64(oneOf(d, []int{16, 24, 40, 80, 200}))
	w.mostActive = d.between(2, 6)
	w.pace = oneOf(d, []int{10, 40, 80, 150})
	w.outboxes = d.chance(50)
	w.keys = newKeyring(w.index, w.partitions)
	w.reference = reader{fold: ledger.NewPartition(w.index)}
	w.oracle = newOracle(w)
	w.evil = w.connect("careless")
	for i := range d.between(1, 2) {
		w.projections = append(w.projections, w.newProjection("projection "+itoa(i)))
	}
	for i := range d.between(2, 3) {
		w.writers = append(w.writers, w.newWriter("api "+itoa(i), oneOf(d, w.projections)))
	}
	w.rollFaults()
	w.buildFleet()
	if d.chance(6) {
		w.touching = &touchCheck{}
	}
	return w
}

// rollFaults decides which faults this run has, and how many: a run that has
// few of them digs deeper into those.
func (w *world) rollFaults() {
	d := w.dice
	w.fates[fateLands] = 60
	for f := fateLands + 1; f < fates; f++ {
		if d.chance(60) {
			w.fates[f] = oneOf(d, []int{1, 3, 8})
		}
	}
	w.returnWeights = [returns]int{returnsResult: 60}
	for r, most := range map[int]int{returnsRetryable: 25, returnsPermanent: 10, returnsPanic: 6, returnsPending: 20, returnsInvalid: 3, returnsNever: 5} {
		w.returnWeights[r] = most
	}
	for r := returnsResult + 1; r < returns; r++ {
		if d.chance(35) {
			w.returnWeights[r] = 0
		}
	}
	if w.deadly = d.chance(4); w.deadly {
		w.returnWeights[returnsNever], w.mostActive = 2000, 1
	}
	w.fateSum, w.returnSum = sum(w.fates[:]), sum(w.returnWeights[:])
}

func sum(list []int) int {
	n := 0
	for _, x := range list {
		n += x
	}
	return n
}

// buildFleet draws which processes serve which queues.
func (w *world) buildFleet() {
	d := w.dice
	both, first, second := w.queues, w.queues[:1], w.queues[1:]
	fleets := [][][]string{{both}, {first, second}, {both, first}, {both, second}}
	n := 0
	for i, queues := range oneOf(d, fleets) {
		g := &group{w: w, name: "set" + itoa(i), queues: queues}
		w.groups = append(w.groups, g)
		size := oneOf(d, []int{1, 2, 2, 2, 3})
		if w.deadly {
			size = 1
		}
		for range size {
			w.hosts = append(w.hosts, &host{name: "host" + itoa(n), group: g})
			n++
		}
	}
}

// genesis opens the partition, perhaps after something else has landed, perhaps
// twice.
func (w *world) genesis() {
	for w.dice.chance(20) {
		w.foreign()
	}
	for i := range 2 {
		m, ok := w.mustEncode("init", ledger.LedgerOpened{LedgerID: ledgerID(), Partitions: w.partitions, Rules: ledger.Rules, Window: w.window})
		if !ok {
			return
		}
		if i == 0 || w.dice.chance(20) {
			w.land(m)
		}
	}
}

// run lives through one history: some steps of trouble, then healing, then what
// must be true in the end.
func (w *world) run() {
	w.genesis()
	for _, h := range w.hosts {
		w.startProcess(h)
	}
	steps := w.dice.between(200, 420)
	if w.deadly {
		steps = 400
	}
	actions := w.rollActions()
	for w.tick = 1; w.tick <= steps && w.failure == nil; w.tick++ {
		w.step(actions)
	}
	if w.failure == nil {
		w.heal()
	}
	if w.failure == nil {
		w.finalChecks()
	}
}

func (w *world) step(actions *actionTable) {
	w.passTime()
	// A draw for which there is nothing to do is drawn again.
	for range 4 {
		i := w.dice.weighted(actions.weights, actions.sum)
		w.trace.mix(actions.names[i], int64(w.tick))
		w.idle = false
		actions.do[i]()
		if !w.idle {
			break
		}
	}
	for _, g := range w.groups {
		g.tick()
	}
}

// passTime moves the clock, mostly a little; how much is part of the run.
func (w *world) passTime() {
	switch d := w.dice; {
	case d.chance(80):
		w.nowMS += int64(d.between(0, w.pace))
	case d.chance(75):
		w.nowMS += int64(d.between(0, 10*w.pace))
	default:
		w.nowMS += int64(d.between(0, 50*w.pace))
	}
}

// beforeRecord and afterRecord frame each record for checks that need both
// sides of it.
func (w *world) beforeRecord() {
	if w.touching != nil {
		w.touching.before(w)
	}
}

func (w *world) afterRecord(e *entry) {
	if w.touching != nil && w.failure == nil {
		w.touching.after(w, e)
	}
}
