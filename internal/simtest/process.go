package simtest

import (
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// host is a machine that runs one executor process after another. What its
// outbox holds outlives them.
type host struct {
	name    string
	group   *group
	process *process // nil while none runs
	outbox  []*sent  // outcomes that were not read back when the last one died
}

// process is one executor process: one reader, one fold, and an owner per
// queue.
type process struct {
	w      *world
	host   *host
	worker string
	conn   *conn
	reader reader
	owners []*owner
	inbox  []suggestion

	dead     bool
	expelled bool  // the group has thrown it out; it learns when it polls
	pausedTo int64 // SIGSTOP until then
	cutTo    int64 // no connection to any broker until then
	stopping bool  // a shutdown began
	graceTo  int64 // end of the shutdown's grace
	eager    bool  // starts handlers record by record, else batch by batch

	// held attempts: the handler was started, or its outcome or TaskDeferred
	// has not been read back. toRun wait for a handler.
	held  []*holding
	toRun []starting
	sent  []*sent // not read back, in the order of their first appends

	freshMS int64    // the log was folded to an end that was learnt then
	ends    []logEnd // log ends beyond the fold
}

type logEnd struct{ offset, atMS int64 }

// starting is an own accepted start that was read back.
type starting struct {
	id    int64
	run   ledger.RunID
	owner *owner
}

const (
	leaseMS = 6_000
	slots   = 3 // handlers at once
	graceMS = 8_000
)

// startProcess starts a process on a host: restored from a snapshot, or from
// nothing.
func (w *world) startProcess(h *host) {
	w.incarnations++
	p := &process{
		w: w, host: h, worker: h.group.name + "/" + h.name + "-" + itoa(w.incarnations), eager: w.dice.chance(50), freshMS: -leaseMS,
	}
	p.conn = w.connect(p.worker)
	p.reader = w.restoreReader()
	for _, q := range h.group.queues {
		p.owners = append(p.owners, newOwner(p, q))
	}
	h.process = p
	w.note(p.worker, "starts at record", int64(p.reader.next))
	p.takeOutbox()
	h.group.join(p)
}

// takeOutbox sends what the last process on this host could not.
func (p *process) takeOutbox() {
	for _, s := range p.host.outbox {
		p.w.saw("situation", "outcome from the outbox of a dead process")
		h := &holding{attempt: s.holding.attempt, queue: s.holding.queue, foreign: true}
		p.held = append(p.held, h)
		p.send(&sent{kind: s.kind, message: s.message, holding: h, run: s.run})
	}
	p.host.outbox = nil
}

// reachable reports whether the process can talk to brokers.
func (p *process) reachable() bool {
	w := p.w
	return !p.dead && w.nowMS >= p.pausedTo && w.nowMS >= p.cutTo && w.nowMS >= w.net.outage
}

// running reports whether the process is on the CPU at all.
func (p *process) running() bool { return !p.dead && p.w.nowMS >= p.pausedTo }

// poll is one turn of the owner's loop: read what there is, then act.
func (p *process) poll(most int) (did bool) {
	if !p.running() {
		return false
	}
	if p.reachable() {
		did = p.hear()
		p.learnEnd(p.w.end())
		for ; most > 0 && p.reader.next < len(p.w.log) && p.w.failure == nil && !p.dead; most-- {
			p.read()
			did = true
		}
		p.reach()
	}
	if p.dead {
		return did
	}
	return p.act() || did
}

// hear takes the group's messages.
func (p *process) hear() (did bool) {
	if p.expelled {
		p.expelled = false
		p.inbox = append(p.inbox[:0], revoked)
		if !p.stopping {
			p.host.group.join(p)
		}
	}
	for _, s := range p.inbox {
		did = true
		for _, o := range p.owners {
			if s == assigned && !p.stopping {
				o.assigned()
			} else if s == revoked {
				o.revoked()
			}
		}
	}
	p.inbox = p.inbox[:0]
	return did
}

// learnEnd notes a log end and when it was asked for.
func (p *process) learnEnd(end int64) {
	if len(p.ends) < 16 {
		p.ends = append(p.ends, logEnd{end, p.w.nowMS})
	}
}

func (p *process) reach() {
	n := 0
	for n < len(p.ends) && p.ends[n].offset <= p.reader.fold.Position() {
		p.freshMS = p.ends[n].atMS
		n++
	}
	p.ends = p.ends[n:]
}

// fresh reports whether what is known of the log is younger than the lease: a
// process that was paused finds that it isn't, and catches up first.
func (p *process) fresh() bool { return p.w.nowMS-p.freshMS < leaseMS }

// act does all that is due.
func (p *process) act() (did bool) {
	for _, o := range p.owners {
		did = o.advanceClaim() || did
	}
	did = p.startHandlers() || did
	for _, o := range p.owners {
		did = o.proposeNext() || did
	}
	did = p.appendAgain() || did
	return p.finishShutdown() || did
}

func (p *process) owner(queue string) *owner {
	for _, o := range p.owners {
		if o.queue == queue {
			return o
		}
	}
	return nil
}

// kill ends the process at once: handlers vanish, what is under way may land.
func (p *process) kill() {
	p.w.note(p.worker, "is killed", int64(len(p.held)))
	p.die()
}

func (p *process) die() {
	for _, s := range p.sent {
		if s.kind == sentOutcome && p.w.outboxes {
			p.host.outbox = append(p.host.outbox, s)
		}
	}
	p.dead, p.conn.closed = true, true
	p.held, p.toRun, p.sent = nil, nil, nil
	p.host.process = nil
}

// shutDown is SIGTERM.
func (p *process) shutDown() {
	if p.stopping {
		return
	}
	p.w.note(p.worker, "shuts down", int64(len(p.held)))
	p.stopping, p.graceTo = true, p.w.nowMS+graceMS
	for _, o := range p.owners {
		o.stop()
	}
}

// finishShutdown ends the process when nothing is left to report, or when its
// grace is over: handlers are then abandoned.
func (p *process) finishShutdown() bool {
	if !p.stopping || (p.toReport()+len(p.sent) > 0 && p.w.nowMS < p.graceTo) {
		return false
	}
	if p.toReport() > 0 {
		p.w.saw("situation", "shutdown abandons handlers")
	}
	p.w.note(p.worker, "exits", int64(len(p.held)))
	p.host.group.leave(p)
	p.die()
	return true
}

// sentKind says what an own record is for.
type sentKind int

const (
	sentClaim sentKind = iota + 1
	sentRelease
	sentStart
	sentTakeover
	sentOutcome // also a TaskDeferred
)

// sent is an own record that has not been read back: it is appended again, with
// the same event id, until it is.
type sent struct {
	by      *process
	kind    sentKind
	message ledger.Message
	owner   *owner
	run     ledger.RunID
	action  ledger.Action // of starts and takeovers
	holding *holding      // of outcomes
	bare    bool          // stands in for an outcome that was invalid
	retryMS int64         // append again then; 0 while an append is under way
}

// landed tells nothing: only what is read back counts.
func (s *sent) landed(int64) {}

func (s *sent) failed() { s.retryMS = s.by.w.nowMS + int64(s.by.w.dice.between(50, 2000)) }

func (p *process) send(s *sent) {
	s.by = p
	p.sent = append(p.sent, s)
	p.conn.append(s.message, s)
}

func (p *process) forget(s *sent) {
	for i, other := range p.sent {
		if other == s {
			p.sent = append(p.sent[:i], p.sent[i+1:]...)
			return
		}
	}
}

func (p *process) sentBy(id uuid.UUID) *sent {
	for _, s := range p.sent {
		if s.message.EventID == id {
			return s
		}
	}
	return nil
}

// appendAgain appends what ended with an error, in the order of the first time.
func (p *process) appendAgain() (did bool) {
	for _, s := range p.sent {
		if s.retryMS == 0 || p.w.nowMS < s.retryMS || s.kind == sentStart && !p.fresh() {
			continue
		}
		did = true
		s.retryMS = 0
		p.conn.append(s.message, s)
	}
	return did
}
