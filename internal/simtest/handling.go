package simtest

import (
	"encoding/json"

	"github.com/keten-ledger/keten/ledger"
)

// finishHandler lets a handler of some process return.
func (w *world) finishHandler() {
	var running []*process
	for _, h := range w.hosts {
		if p := h.process; p != nil && p.running() && p.runningHandler() != nil {
			running = append(running, p)
		}
	}
	if w.idle = len(running) == 0; !w.idle {
		p := oneOf(w.dice, running)
		p.returns(p.runningHandler())
	}
}

func (p *process) runningHandler() *holding {
	var list []*holding
	for _, h := range p.held {
		if h.running {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return oneOf(p.w.dice, list)
}

// Ways in which a handler may return.
const (
	returnsResult = iota
	returnsRetryable
	returnsPermanent
	returnsPanic
	returnsPending
	returnsInvalid
	returnsNever // it vanishes, its slot with it
	returns
)

// returns ends a handler and reports what it has to say.
func (p *process) returns(h *holding) {
	w := p.w
	h.running = false
	how := w.dice.weighted(w.returnWeights[:], w.returnSum)
	late := w.nowMS > h.startMS+h.attempt.Task.TimeoutMS
	switch {
	case how == returnsNever:
		w.saw("fault", "handler vanished")
		w.note(p.worker, "loses the handler of", h.attempt.ID)
		h.vanished = true
		if h.closed {
			p.drop(h)
		}
	case h.canceled && w.dice.chance(70):
		p.fail(h, ledger.TaskError{Code: ledger.CodeCanceled})
	case late && w.dice.chance(70):
		p.fail(h, ledger.TaskError{Code: ledger.CodeTimeout, Retryable: true})
	case how == returnsRetryable:
		p.fail(h, ledger.TaskError{Code: "unavailable", Retryable: true})
	case how == returnsPermanent:
		p.fail(h, ledger.TaskError{Code: ledger.CodeExit})
	case how == returnsPanic:
		p.fail(h, ledger.TaskError{Code: ledger.CodePanic, Retryable: true})
	case how == returnsPending:
		p.pend(h)
	case how == returnsInvalid:
		p.reportBroken(h, p.success(h))
	default:
		p.succeed(h)
	}
}

func (p *process) success(h *holding) ledger.TaskSucceeded {
	a := &h.attempt
	p.w.note(p.worker, "has a result for", a.ID)
	return ledger.TaskSucceeded{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker, Result: p.w.payload(),
	}
}

func (p *process) succeed(h *holding) {
	e := p.success(h)
	p.report(h, e)
	if !h.closed {
		p.startAfter(h, e)
	}
}

// startAfter appends the next task's start back to back with the outcome: the
// task costs one awaited round trip.
func (p *process) startAfter(h *holding, success ledger.TaskSucceeded) {
	o := p.owner(h.queue)
	run := ledger.RunID{Collection: h.attempt.Collection, Run: h.attempt.Run}
	if o == nil || o.phase != active || p.stopping || !p.fresh() || o.isPending(run) || p.busy() >= slots || h.foreign {
		return
	}
	a, ok := p.reader.fold.StartAfter(run, o.queue, p.worker)
	if !ok || p.handlerOf(&a) != nil {
		return
	}
	p.w.checkStartAfter(&p.reader, success, &a)
	p.w.saw("situation", "next start back to back with the outcome, "+string(a.TaskKind))
	o.propose(&a)
}

func (p *process) fail(h *holding, why ledger.TaskError) {
	a := &h.attempt
	why.Audience, why.Message = ledger.AudienceOperator, "attempt "+itoa(int(a.ID))
	e := ledger.TaskFailed{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker, Error: why,
	}
	if why.Retryable && p.w.dice.chance(20) {
		e.RetryAfterMS = int64(p.w.dice.between(1, 5000))
	}
	p.w.note(p.worker, "fails "+why.Code, a.ID)
	p.report(h, e)
}

// pend defers the outcome: the outside has its token from now on.
func (p *process) pend(h *holding) {
	a := &h.attempt
	p.w.note(p.worker, "defers", a.ID)
	p.w.tokens = append(p.w.tokens, &token{
		tenant: a.Tenant, run: ledger.RunID{Collection: a.Collection, Run: a.Run}, task: a.Task.ID, attemptID: a.ID, worker: a.Worker,
		sinceMS: p.w.nowMS, unwatched: p.w.dice.chance(25),
	})
	p.report(h, ledger.TaskDeferred{
		CollectionID: a.Collection, Tenant: a.Tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker,
	})
}

// report appends an outcome and keeps it until it is read back. Of an attempt
// that someone else has closed it is sent once.
func (p *process) report(h *holding, e ledger.Event) {
	if m, ok := p.w.mustEncode("executor", e); ok {
		p.sendOutcome(&sent{kind: sentOutcome, message: m, holding: h})
	}
}

func (p *process) sendOutcome(s *sent) {
	if !s.holding.closed {
		p.send(s)
		return
	}
	p.w.saw("situation", "outcome of a closed attempt sent once")
	p.conn.append(s.message, nobody{})
	p.drop(s.holding)
}

// reportBroken is a binary whose gate lets a result pass that the fold's
// doesn't.
func (p *process) reportBroken(h *holding, e ledger.TaskSucceeded) {
	m, ok := p.w.mustEncode("executor", e)
	if !ok {
		return
	}
	m.Value = spoil(m.Value)
	p.w.invalidOnPurpose[m.EventID] = true
	p.sendOutcome(&sent{kind: sentOutcome, message: m, holding: h})
}

// spoil puts U+0000 into the result of an encoded TaskSucceeded.
func spoil(value []byte) []byte {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		return value
	}
	fields["result"] = json.RawMessage(`"\u0000"`)
	spoiled, err := json.Marshal(fields)
	if err != nil {
		return value
	}
	return spoiled
}
