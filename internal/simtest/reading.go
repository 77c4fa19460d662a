package simtest

import (
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// read folds one record and notes what it means for this process.
func (p *process) read() {
	e, out := p.w.advance(&p.reader)
	own := p.sentBy(e.parsed.EventID)
	if own != nil {
		p.forget(own)
	}
	p.noteClosed(&out, own)
	if out.Verdict == ledger.Accepted {
		p.noteAccepted(e)
	}
	if own != nil {
		p.readBack(own, &out)
	}
	if p.eager {
		p.startHandlers()
	}
}

// noteClosed sees to attempts of this process that were ended by a record which
// is not their own outcome.
func (p *process) noteClosed(out *ledger.Outcome, own *sent) {
	for i := range out.Attempts {
		a := &out.Attempts[i]
		if a.Status == ledger.StatusRunning || a.Status == ledger.StatusDeferred {
			continue
		}
		p.toRun = slices.DeleteFunc(p.toRun, func(s starting) bool { return s.id == a.ID })
		h := p.holding(a.ID)
		if h == nil || own != nil && own.holding == h {
			continue
		}
		if h.vanished {
			p.drop(h)
			continue
		}
		h.closed, h.canceled = true, true
		if !h.running {
			continue // its outcome is under way, and will be read back stale
		}
		p.w.saw("situation", "attempt closed by someone else, its handler runs")
	}
}

// noteAccepted sees to events that count, whoever wrote them.
func (p *process) noteAccepted(e *entry) {
	switch ev := e.parsed.Event.(type) {
	case ledger.PartitionClaimed:
		if o := p.owner(ev.Queue); o != nil {
			o.claimRead(e.record.Offset, ev.Worker)
		}
	case ledger.PartitionReleased:
		if o := p.owner(ev.Queue); o != nil {
			o.releaseRead(ev)
		}
	case ledger.CancelRequested:
		for _, h := range p.held {
			if h.running && h.attempt.Collection == ev.CollectionID && h.attempt.Run == ev.Run && h.attempt.TaskKind == ledger.KindTask {
				p.w.saw("situation", "canceled while its handler runs")
				h.canceled = true
			}
		}
	case ledger.TaskStarted:
		p.startRead(ev, e.record.Offset)
	default:
	}
}

// startRead takes an own accepted start for its handler to be started, whether
// or not this process remembers sending it.
func (p *process) startRead(e ledger.TaskStarted, offset int64) {
	if e.Worker != p.worker {
		return
	}
	for _, o := range p.owners {
		if o.claim != e.Claim {
			continue
		}
		if len(p.held)+len(p.toRun) >= slots {
			p.w.saw("situation", "start read back without a free slot")
		}
		p.toRun = append(p.toRun, starting{id: offset, run: ledger.RunID{Collection: e.CollectionID, Run: e.Run}, owner: o})
		return
	}
	p.w.saw("situation", "start read back after the claim was given back")
}

// readBack acts on the fold's verdict of an own record.
func (p *process) readBack(s *sent, out *ledger.Outcome) {
	o := s.owner
	accepted := out.Verdict == ledger.Accepted
	switch s.kind {
	case sentClaim:
		if !accepted && o.phase == claiming {
			p.w.saw("situation", "claim refused")
			o.fence()
		}
	case sentRelease:
		o.releasing = -1
	case sentStart, sentTakeover:
		o.pending = slices.DeleteFunc(o.pending, func(other *sent) bool { return other == s })
		if !accepted {
			o.refused(s, out)
		}
	case sentOutcome:
		p.outcomeReadBack(s, out)
	}
}

// refused counts refusals of one action: what Next asks for is accepted but for
// races, and a third time would stop the partition.
func (o *owner) refused(s *sent, out *ledger.Outcome) {
	key := s.action
	key.SinceMS, key.BaseMS, key.WaitMS = 0, 0, 0
	i := slices.IndexFunc(o.refusals, func(r refusal) bool { return r.action == key && r.reason == out.Reason })
	if i < 0 {
		o.refusals = append(o.refusals, refusal{action: key, reason: out.Reason})
		i = len(o.refusals) - 1
	}
	o.refusals[i].times++
	if o.refusals[i].times >= 3 && o.p.w.honest {
		o.p.w.violated("NEXT", "%s is refused for the third time at offset %d: %s", o.p.w.describe(s.action.Event()), out.Offset, out.Reason)
	}
}

// outcomeReadBack ends the holding of an attempt, whatever the verdict. Only
// what is invalid is replaced, by a failure without payload.
func (p *process) outcomeReadBack(s *sent, out *ledger.Outcome) {
	h := s.holding
	if out.Verdict == ledger.Invalid && !s.bare {
		p.w.saw("situation", "outcome read back as invalid")
		m, ok := p.w.mustEncode("executor", ledger.TaskFailed{
			CollectionID: h.attempt.Collection, Tenant: h.attempt.Tenant, Run: h.attempt.Run, TaskID: h.attempt.Task.ID,
			AttemptID: h.attempt.ID, Worker: h.attempt.Worker,
			Error: ledger.TaskError{Code: ledger.CodeInvalidResult, Audience: ledger.AudienceOperator},
		})
		if ok {
			p.sendOutcome(&sent{kind: sentOutcome, message: m, holding: h, bare: true})
		}
		return
	}
	if out.Verdict != ledger.Accepted {
		p.w.saw("situation", "outcome came too late")
	}
	p.drop(h)
}
