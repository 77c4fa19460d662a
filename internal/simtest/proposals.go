package simtest

import (
	"github.com/keten-ledger/keten/ledger"
)

// checkProposal holds what Next proposes at the log's end against the oracle:
// appended there, it must be accepted. Now and then a copy of the fold says so
// itself.
func (w *world) checkProposal(r *reader, a *ledger.Action) {
	if r.next != len(w.log) {
		return
	}
	e := a.Event()
	if broken := w.oracle.judge(e, w.end()); broken != (clause{}) {
		w.violated("NEXT", "at position %d Next proposes %s: %s (%s)", w.end(), w.describe(e), broken.text, broken.invariant)
		return
	}
	w.checkLosses(a)
	w.checkTimes(a)
	if !w.dice.chance(2) {
		return
	}
	dream := w.restore(snapshot{data: r.fold.Snapshot(), next: r.next})
	w.dream(dream.fold, e)
}

// dream appends an event to a copy of a fold, which must accept it.
func (w *world) dream(fold *ledger.Partition, e ledger.Event) {
	m, ok := w.mustEncode("executor", e)
	if !ok {
		return
	}
	out, err := fold.Apply(ledger.Record{
		Partition: w.index, Offset: fold.Position(), LeaderEpoch: w.epoch, TimeMS: w.nowMS, Key: m.Key, Value: m.Value, Headers: m.Headers,
	})
	if err != nil || out.Verdict != ledger.Accepted {
		w.violated("NEXT", "at position %d the fold proposes %s, Apply says %s(%s)", w.end(), w.describe(e), out.Verdict, out.Reason)
	}
}

// checkStartAfter: appended behind the attempt's success, the next start is
// accepted.
func (w *world) checkStartAfter(r *reader, success ledger.TaskSucceeded, a *ledger.Action) {
	open, ok := r.fold.OpenAttempt(a.RunID())
	if r.next != len(w.log) || !ok || open.ID != success.AttemptID || !w.dice.chance(25) {
		return
	}
	copied := w.restore(snapshot{data: r.fold.Snapshot(), next: r.next})
	w.dream(copied.fold, success)
	w.dream(copied.fold, a.Event())
}

// checkNext holds everything that Next says at the log's end against the
// oracle, as an owner would see it that holds no handler.
func (w *world) checkNext() {
	for _, q := range w.queues {
		c, _ := w.reference.fold.Claim(q)
		for _, a := range w.reference.fold.Next(q, c.Worker, holdsNothing) {
			w.checkProposal(&w.reference, &a)
		}
	}
}

func (w *world) sawProposal(a *ledger.Action) {
	name := "start"
	switch {
	case a.Kind == ledger.ActionFail && a.Error.Retryable:
		name = "fail retryable " + a.Error.Code
	case a.Kind == ledger.ActionFail:
		name = "fail " + a.Error.Code
	case a.AttemptID >= 0:
		name = "supersede"
	}
	w.saw("next", name+" "+string(a.TaskKind))
}

// checkLosses: a task may lose its worker ten times in a run, and only then is
// given up for it.
func (w *world) checkLosses(a *ledger.Action) {
	f := w.oracle.attempts[a.AttemptID]
	if f == nil || f.deferred >= 0 || a.Error.Code == ledger.CodeInterrupted {
		return
	}
	givesUp := a.Kind == ledger.ActionFail && !a.Error.Retryable
	if gives := f.task.lost >= ledger.MaxLostAttempts-1; gives != givesUp {
		w.violated("NEXT", "at position %d Next proposes %s, and the task was lost %d times", w.end(), w.describe(a.Event()), f.task.lost)
	}
}

// checkTimes: what an action waits for is in the records, so that a new owner
// does not begin to wait anew.
func (w *world) checkTimes(a *ledger.Action) {
	base, least, most := w.times(a)
	if a.BaseMS != base || a.WaitMS < least || a.WaitMS > most {
		w.violated("NEXT", "at position %d Next proposes %s for %d ms after %d, the records imply %d to %d ms after %d",
			w.end(), w.describe(a.Event()), a.WaitMS, a.BaseMS, least, most, base)
	}
}

// times is when an action may be due: so many milliseconds after a record time,
// or, without one, after it is first seen.
func (w *world) times(a *ledger.Action) (base, least, most int64) {
	f := w.oracle.attempts[a.AttemptID]
	if f == nil {
		t := w.oracle.find(a.RunID()).current()
		if !t.waits {
			return 0, 0, 0
		}
		if t.retryAfterMS > 0 {
			return t.failedMS, t.retryAfterMS, t.retryAfterMS
		}
		wait := t.def.Backoff.InitialMS
		for range t.failures - 1 {
			wait = min(wait*t.def.Backoff.Multiplier, t.def.Backoff.MaxMS)
		}
		return t.failedMS, wait - wait/2, wait
	}
	wait := int64(ledger.TakeoverGraceMS)
	switch r := f.task.run; {
	case f.deferred >= 0 && r.ended < 0 && r.canceled >= 0:
		return 0, 0, 0
	case f.deferred >= 0:
		return f.deferMS, f.task.def.TimeoutMS, f.task.def.TimeoutMS
	case f.worker == a.Worker:
		wait = 0
	case f.draining && f.graceMS > 0:
		wait = min(f.task.def.TimeoutMS, f.graceMS)
	case f.draining:
		wait = f.task.def.TimeoutMS
	}
	return 0, wait, wait
}
