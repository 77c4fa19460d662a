package simtest

import (
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// proposeNext appends what the fold asks for and is due.
func (o *owner) proposeNext() (did bool) {
	p := o.p
	if o.phase != active || p.stopping || !p.fresh() || p.reader.fold.Position() < o.from {
		return false
	}
	actions := p.reader.fold.Next(o.queue, p.worker, p.holds)
	o.forgetTakeovers(actions)
	for i := range actions {
		did = o.consider(&actions[i]) || did
	}
	return did
}

func (o *owner) consider(a *ledger.Action) bool {
	p := o.p
	p.w.checkProposal(&p.reader, a)
	if o.isPending(a.RunID()) {
		return false
	}
	if h := p.handlerOf(a); h != nil {
		p.w.saw("situation", "start waits for the task's earlier handler")
		h.canceled = true // cancel its context and join it first
		return false
	}
	if !o.due(a) {
		return false
	}
	if a.Kind == ledger.ActionStart && p.busy() >= slots {
		return false
	}
	o.propose(a)
	return true
}

func (o *owner) propose(a *ledger.Action) {
	p := o.p
	p.checkHeld(a)
	kind := sentTakeover
	if a.Kind == ledger.ActionStart {
		kind = sentStart
	}
	m, ok := p.w.mustEncode("executor", a.Event())
	if !ok {
		return
	}
	p.w.sawProposal(a)
	p.w.note(p.worker, "proposes", a.AttemptID)
	s := &sent{kind: kind, message: m, owner: o, run: a.RunID(), action: *a}
	o.pending = append(o.pending, s)
	p.send(s)
}

// checkHeld: an attempt is not called lost by the process that is at it, and be
// it that its start was just read back or that its outcome is under way.
func (p *process) checkHeld(a *ledger.Action) {
	if a.Kind != ledger.ActionFail || !isLost(a.Error.Code) {
		return
	}
	h := p.holding(a.AttemptID)
	starts := slices.ContainsFunc(p.toRun, func(s starting) bool { return s.id == a.AttemptID })
	if starts || h != nil && !h.vanished {
		p.w.violated("HELD", "%s calls attempt @%d lost, which it holds itself", p.worker, a.AttemptID)
	}
}

func (o *owner) isPending(run ledger.RunID) bool {
	return slices.ContainsFunc(o.pending, func(s *sent) bool { return s.run == run })
}

// busy counts the slots in use: handlers, and starts that will need one.
func (p *process) busy() int {
	n := len(p.toRun)
	for _, h := range p.held {
		if h.running {
			n++
		}
	}
	for _, o := range p.owners {
		for _, s := range o.pending {
			if s.kind == sentStart {
				n++
			}
		}
	}
	return n
}

// due tells whether an action's time has come, by the process's own clock.
func (o *owner) due(a *ledger.Action) bool {
	p := o.p
	if a.BaseMS > 0 {
		return p.w.nowMS >= a.BaseMS+a.WaitMS
	}
	if a.WaitMS == 0 {
		return true
	}
	i := slices.IndexFunc(o.takeovers, func(t takeover) bool { return t.attemptID == a.AttemptID })
	if i < 0 {
		o.takeovers = append(o.takeovers, takeover{a.AttemptID, a.WaitMS, p.w.nowMS})
		i = len(o.takeovers) - 1
	}
	t := &o.takeovers[i]
	if t.waitMS != a.WaitMS { // released since: another wait begins
		*t = takeover{a.AttemptID, a.WaitMS, p.w.nowMS}
	}
	wait := a.WaitMS
	if a.LostWorker != "" && p.w.memberGone(a.LostWorker) {
		p.w.saw("situation", "takeover from a worker that is gone")
		wait = min(wait, ledger.GoneGraceMS)
	}
	return p.w.nowMS >= t.sinceMS+wait
}

// forgetTakeovers ends waits for attempts that are open no more.
func (o *owner) forgetTakeovers(actions []ledger.Action) {
	o.takeovers = slices.DeleteFunc(o.takeovers, func(t takeover) bool {
		return !slices.ContainsFunc(actions, func(a ledger.Action) bool { return a.AttemptID == t.attemptID })
	})
}

// holding is an attempt of this process: its handler was started, or its
// outcome has not been read back.
type holding struct {
	attempt  ledger.Attempt
	queue    string
	startMS  int64
	running  bool
	canceled bool // its context is done
	closed   bool // by someone else
	foreign  bool // of a dead process, adopted with its outbox
	// vanished: the handler is gone and reports nothing. It was started, so a
	// release must name the attempt; nobody holds it, so Next calls it lost.
	vanished bool
}

func (p *process) holding(id int64) *holding {
	for _, h := range p.held {
		if h.attempt.ID == id {
			return h
		}
	}
	return nil
}

// holds is what Next is told: attempts with a handler, on their way to one, or
// with an outcome that has not been read back.
func (p *process) holds(id int64) bool {
	if h := p.holding(id); h != nil && !h.vanished {
		return true
	}
	return slices.ContainsFunc(p.toRun, func(s starting) bool { return s.id == id })
}

// toReport counts the attempts whose outcome is still to come.
func (p *process) toReport() int {
	n := 0
	for _, h := range p.held {
		if !h.vanished {
			n++
		}
	}
	return n
}

func (p *process) drop(h *holding) {
	p.held = slices.DeleteFunc(p.held, func(other *holding) bool { return other == h })
}

// handlerOf returns the handler that runs for an action's task: of a finally
// task only one of the same run stands in its way.
func (p *process) handlerOf(a *ledger.Action) *holding {
	for _, h := range p.held {
		if h.running && h.attempt.Task.ID == a.TaskID && (a.TaskKind == ledger.KindTask || h.attempt.Run == a.Run) {
			return h
		}
	}
	return nil
}

// startHandlers starts the handlers of accepted starts that were read back.
func (p *process) startHandlers() (did bool) {
	if len(p.toRun) == 0 || p.stopping || !p.fresh() {
		return false
	}
	waiting := p.toRun[:0]
	for _, s := range p.toRun {
		a, ok := p.reader.fold.OpenAttempt(s.run)
		switch {
		case !ok || a.ID != s.id:
			p.w.violated("MODEL", "attempt @%d was closed and still waits for a handler", s.id)
		case !p.startHandler(s, a):
			waiting = append(waiting, s)
		default:
			did = true
		}
	}
	p.toRun = waiting
	return did
}

// startHandler reports false when an earlier handler of the task still runs
// here.
func (p *process) startHandler(s starting, a ledger.Attempt) bool {
	if h := p.handlerOf(&ledger.Action{TaskKind: a.TaskKind, TaskID: a.Task.ID, Run: a.Run}); h != nil {
		h.canceled = true
		return false
	}
	p.w.note(p.worker, "starts the handler of", a.ID)
	p.w.oracle.handlerStarts(p.worker, &a)
	for _, h := range p.held {
		if h.running && h.attempt.Task.ID == a.Task.ID && (a.TaskKind == ledger.KindTask || h.attempt.Run == a.Run) {
			p.w.violated("G4", "%s handles one task twice at once, as @%d and @%d", p.worker, h.attempt.ID, a.ID)
		}
	}
	p.held = append(p.held, &holding{
		attempt: a, queue: s.owner.queue, startMS: p.w.nowMS, running: true, canceled: a.Canceled && a.TaskKind == ledger.KindTask,
	})
	return true
}
