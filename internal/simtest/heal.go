package simtest

import (
	"github.com/keten-ledger/keten/ledger"
)

// mostRounds bounds how long a healthy system may need to come to rest.
const mostRounds = 600

// heal ends all trouble: nobody breaks promises, the network delivers, the clock
// runs, and of each set of queues one executor lives. Then everything must come
// to rest.
func (w *world) heal() {
	w.note("world", "heals", 0)
	w.net.calm, w.net.outage = true, 0
	w.returnWeights[returnsNever], w.returnWeights[returnsInvalid] = 0, 0
	w.returnSum = sum(w.returnWeights[:])
	for _, g := range w.groups {
		w.healGroup(g)
	}
	idle := 0
	for round := 0; w.failure == nil; round++ {
		if round == mostRounds {
			w.stuck()
			return
		}
		w.tick++
		if w.round() {
			idle = 0
			continue
		}
		if w.atRest() && idle > 3 {
			w.saw("situation", "came to rest")
			return
		}
		idle++
		w.nowMS += w.patience(idle)
		for _, g := range w.groups {
			g.tick()
		}
	}
}

// healGroup leaves one process of a group, an old one if it has one.
func (w *world) healGroup(g *group) {
	var kept *process
	for _, h := range w.hosts {
		p := h.process
		if h.group != g || p == nil {
			continue
		}
		if kept == nil && !p.stopping && w.dice.chance(70) {
			kept = p
			p.pausedTo, p.cutTo = 0, 0
			continue
		}
		p.kill()
	}
	if kept != nil {
		return
	}
	for _, h := range w.hosts {
		if h.group == g {
			w.startProcess(h)
			return
		}
	}
}

// patience grows while nothing happens: the next timer may be far away.
func (w *world) patience(idle int) int64 {
	return int64(min(idle, 20)) * int64(w.dice.between(200, 2000))
}

// round lets everybody do what they can, and reports whether anybody did.
func (w *world) round() (did bool) {
	w.nowMS += 10
	did = w.deliverAll()
	for _, p := range w.alive() {
		did = p.poll(len(w.log)) || did
	}
	for _, p := range w.alive() {
		if h := p.runningHandler(); h != nil {
			did = true
			p.returns(h)
		}
	}
	for _, p := range w.projections {
		did = p.project(len(w.log)) || did
	}
	for _, a := range w.writers {
		before := len(a.asked)
		a.act()
		did = did || len(a.asked) != before
	}
	if w.dice.chance(20) && w.oracle.counts.active+w.oracle.counts.pending > 0 {
		w.newReport()
	}
	return did
}

// atRest tells whether nothing is left to do.
func (w *world) atRest() bool {
	for _, c := range w.net.conns {
		if !c.idle() {
			return false
		}
	}
	for _, p := range w.alive() {
		if p.reader.next != len(w.log) || len(p.sent)+len(p.held)+len(p.toRun) > 0 {
			return false
		}
	}
	return w.oracle.counts.active == 0 && w.oracle.counts.pending == 0
}

// stuck tells what did not come to rest.
func (w *world) stuck() {
	for _, l := range w.oracle.order {
		for _, r := range l.runs {
			if r.ended < 0 {
				w.violated("G12", "%s run %d never ends: %s", w.short(l.id), r.id.Run, w.progress(r))
			} else if r.pending() {
				w.violated("G9", "%s run %d never comes to the end of its finally tasks: %s", w.short(l.id), r.id.Run, w.progress(r))
			}
		}
	}
	for _, p := range w.alive() {
		w.violated("G12", "%s never comes to rest: at record %d of %d, %d unread records of its own, %d held attempts, %d to start",
			p.worker, p.reader.next, len(w.log), len(p.sent), len(p.held), len(p.toRun))
	}
}

func (w *world) progress(r *runFact) string {
	t := r.current()
	if t == nil {
		return "nothing is left to do"
	}
	text := "task " + w.taskName(r.id.Collection, t.def.ID) + " of queue " + t.def.Queue
	if c := w.oracle.claims[t.def.Queue]; c != nil {
		text += ", claim " + itoa(int(c.offset)) + " of " + c.worker
		if c.released {
			text += " (released)"
		}
	}
	if t.open != nil {
		text += ", open attempt " + itoa(int(t.open.id)) + " of " + t.open.worker
		if t.open.deferred >= 0 {
			text += " (deferred)"
		}
	}
	return text
}

// finalChecks are about a system at rest.
func (w *world) finalChecks() {
	f := w.reference.fold
	for _, q := range w.queues {
		c, _ := f.Claim(q)
		if left := f.Next(q, c.Worker, holdsNothing); len(left) > 0 {
			w.violated("G12", "at rest Next still proposes %s", w.describe(left[0].Event()))
		}
	}
	if len(w.oracle.open) > 0 {
		w.violated("G12", "attempt @%d is open at rest", w.oracle.open[0].id)
	}
	for l, runs := range w.oracle.lanes {
		if len(runs) > 0 {
			w.violated("G12", "the lane %q is not empty at rest", l.key)
		}
	}
	w.checkEveryRun()
	w.finalFolds()
	w.trace.mix("end", f.Position())
	h := f.StateHash()
	for i := range h {
		w.trace.mix("", int64(h[i]))
	}
}

// checkEveryRun is the end of the story of each run, told from the facts.
func (w *world) checkEveryRun() {
	for _, l := range w.oracle.order {
		for i, r := range l.runs {
			if w.honest && r.id.Run != i+1 {
				w.violated("G6", "run %d of %s bears the number %d", i+1, w.short(l.id), r.id.Run)
			}
			if w.honest && i > 0 && l.runs[i-1].status == ledger.StatusSucceeded {
				w.violated("G6", "run %d of %s follows one that succeeded", r.id.Run, w.short(l.id))
			}
			for _, t := range r.after {
				if t.success < 0 && !t.gaveUp {
					w.violated("G9", "a finally task of %s run %d has no end", w.short(l.id), r.id.Run)
				}
			}
		}
	}
}

func (w *world) finalFolds() {
	for _, p := range w.projections {
		p.check()
		w.sameState(p.name, &p.reader)
	}
	for _, p := range w.alive() {
		w.sameState(p.worker, &p.reader)
	}
	w.followProbes()
	for _, p := range w.probes {
		w.sameState("a probe", &p.reader)
	}
	w.wholeReplay()
	w.checkBound(len(w.reference.fold.Snapshot()))
	switch w.dice.between(0, 3) {
	case 0:
		w.onlyAccepted()
	case 1:
		w.unknownType()
		w.forgetful()
	case 2:
		w.damaged()
	default:
	}
}
