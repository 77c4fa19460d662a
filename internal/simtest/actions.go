package simtest

// actionTable is what may happen in a step, and how often.
type actionTable struct {
	names   []string
	weights []int
	sum     int
	do      []func()
}

func (t *actionTable) add(name string, weight int, do func()) {
	if weight <= 0 {
		return
	}
	t.names = append(t.names, name)
	t.weights = append(t.weights, weight)
	t.sum += weight
	t.do = append(t.do, do)
}

// rollActions draws the weights of this run: a fault is off, or rare, or often.
func (w *world) rollActions() *actionTable {
	t := &actionTable{}
	d := w.dice
	off := 35
	if w.deadly {
		off = 70
	}
	sometimes := func(most int) int {
		if d.chance(off) {
			return 0
		}
		return d.between(1, most)
	}
	work := 1
	if w.deadly {
		work = 4
	}
	t.add("deliver", 60*work, w.deliver)
	t.add("poll", 70*work, w.pollSomebody)
	t.add("handler", oneOf(d, []int{6, 15, 30, 40})*work, w.finishHandler)
	t.add("project", d.between(6, 16), w.projectSome)
	t.add("api", 14, w.lookAfterCommands)
	t.add("create", 10, w.newCreate)
	t.add("retry", d.between(3, 10), w.newRetry)
	t.add("cancel", sometimes(5), w.newCancel)
	t.add("report", 6, w.newReport)
	t.add("rebalance", sometimes(8), w.rebalanceSomewhere)
	t.add("kill", sometimes(3), w.killSomebody)
	t.add("start", 4, w.startSomebody)
	t.add("shutdown", sometimes(3), w.shutDownSomebody)
	t.add("pause", sometimes(4), w.pauseSomebody)
	t.add("cut", sometimes(3), w.cutSomebody)
	t.add("outage", sometimes(2), w.breakBrokers)
	t.add("leap", sometimes(4), w.leap)
	t.add("leader", sometimes(2), w.changeLeader)
	t.add("snapshot", 3, w.takeSnapshot)
	t.add("probe", 2, w.plantProbe)
	t.add("follow", 2, w.followProbes)
	t.add("next", 5, w.checkNext)
	t.add("foreign", sometimes(3), w.foreign)
	t.add("malformed", sometimes(3), w.malformed)
	t.add("replay", sometimes(5), w.replay)
	if !w.honest {
		t.add("careless", d.between(10, 40), w.careless)
	}
	return t
}

func (w *world) alive() []*process {
	var list []*process
	for _, h := range w.hosts {
		if h.process != nil {
			list = append(list, h.process)
		}
	}
	return list
}

func (w *world) pollSomebody() {
	list := w.alive()
	if len(list) == 0 {
		return
	}
	most := w.dice.between(1, 6)
	if w.dice.chance(50) {
		most = len(w.log)
	}
	if !w.dice.chance(25) {
		w.idle = !oneOf(w.dice, list).poll(most)
		return
	}
	w.idle = true
	for _, p := range list {
		did := p.poll(most)
		w.idle = w.idle && !did
	}
}

func (w *world) projectSome() {
	n := w.dice.between(1, 12)
	if w.dice.chance(40) {
		n = len(w.log)
	}
	p := oneOf(w.dice, w.projections)
	w.idle = !p.project(n)
	if w.dice.chance(3) { // it was restarted, with the snapshot of its checkpoint
		w.saw("snapshot", "restored by a projection")
		p.reader = w.restore(snapshot{data: p.reader.fold.Snapshot(), next: p.reader.next})
	}
}

func (w *world) lookAfterCommands() {
	oneOf(w.dice, w.writers).act()
	w.forgetTokens()
}

func (w *world) rebalanceSomewhere() { oneOf(w.dice, w.groups).rebalance() }

func (w *world) killSomebody() {
	if list := w.alive(); len(list) > 0 {
		w.saw("fault", "process killed")
		oneOf(w.dice, list).kill()
	}
}

func (w *world) startSomebody() {
	for _, h := range w.hosts {
		if h.process == nil && w.dice.chance(60) {
			w.startProcess(h)
			return
		}
	}
}

func (w *world) shutDownSomebody() {
	for _, p := range w.alive() {
		if p.running() && w.dice.chance(50) {
			w.saw("fault", "process shut down")
			p.shutDown()
			return
		}
	}
}

// pauseSomebody is SIGSTOP, often for longer than the session.
func (w *world) pauseSomebody() {
	if list := w.alive(); len(list) > 0 {
		w.saw("fault", "process paused")
		p := oneOf(w.dice, list)
		p.pausedTo = w.nowMS + w.silence()
		w.note(p.worker, "is paused until", p.pausedTo-startMS)
	}
}

// cutSomebody takes a process its brokers: its handlers go on.
func (w *world) cutSomebody() {
	if list := w.alive(); len(list) > 0 {
		w.saw("fault", "process cut off")
		p := oneOf(w.dice, list)
		p.cutTo = w.nowMS + w.silence()
		w.note(p.worker, "is cut off until", p.cutTo-startMS)
	}
}

// silence is how long something does not answer: half of the time for less than
// a session.
func (w *world) silence() int64 {
	if w.dice.chance(50) {
		return int64(w.dice.between(100, sessionMS))
	}
	return int64(w.dice.between(sessionMS, 4*sessionMS))
}

func (w *world) breakBrokers() {
	w.saw("fault", "outage")
	w.net.outage = w.nowMS + w.silence()/2
	w.note("brokers", "are silent until", w.net.outage-startMS)
}

func (w *world) leap() {
	w.nowMS += int64(w.dice.between(5_000, 40_000))
	w.note("clock", "leaps", 0)
}

// changeLeader is another broker with another clock.
func (w *world) changeLeader() {
	w.epoch++
	w.skewMS = int64(w.dice.between(-1500, 1500))
	w.note("brokers", "change the leader", int64(w.epoch))
}
