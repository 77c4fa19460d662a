package simtest

import (
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// What the oracle notices for the coverage.

func (o *oracle) sawOpening(r *runFact) {
	if r.lane.key != "" && len(o.lanes[r.lane]) > 0 {
		o.w.saw("situation", "waited in its lane")
	}
	if slices.ContainsFunc(r.life.runs, (*runFact).pending) {
		o.w.saw("situation", "finally tasks beside the next run")
	}
}

// sawFinally is called for a run that has just ended with finally tasks.
func (o *oracle) sawFinally(ended *runFact) {
	for _, r := range ended.life.runs {
		if r != ended && r.pending() {
			o.w.saw("situation", "finally tasks of two runs at once")
		}
	}
}

// sawOutcome is called for an attempt that is about to be closed by an outcome.
func (o *oracle) sawOutcome(a *attemptFact) {
	reported := func(t *token) bool { return t.attemptID == a.id && t.used > 0 }
	if a.deferred < 0 && slices.ContainsFunc(o.w.tokens, reported) {
		o.w.saw("situation", "outcome before its TaskDeferred")
	}
}

func (o *oracle) sawFailure(a *attemptFact, e ledger.TaskFailed) {
	if e.ByClaim == nil {
		o.w.saw("failure", "own "+e.Error.Code)
		return
	}
	text := "by_claim " + e.Error.Code
	if e.Error.Retryable {
		text += " retryable"
	}
	o.w.saw("failure", text)
	if a.task.kind == ledger.KindFinally {
		o.w.saw("failure", "by_claim of a finally task")
	}
	if isLost(e.Error.Code) && a.task.lost == ledger.MaxLostAttempts-1 {
		o.w.saw("situation", "the tenth loss")
	}
}
