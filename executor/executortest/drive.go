package executortest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// drive does what the fold asks for, until that is nothing, or only to end tasks
// whose outcome has not come from outside.
func (k *Kit) drive() {
	k.tb.Helper()
	for {
		a, dueMS, ok := k.next()
		if !ok {
			return
		}
		k.do(&a, dueMS)
	}
}

// next returns what is due first. Outcomes from outside are waited for: only the
// test lets their time run out.
func (k *Kit) next() (first ledger.Action, dueMS int64, ok bool) {
	for _, a := range k.actions() {
		due := k.dueMS(&a)
		if !isExpiry(&a) && (!ok || due < dueMS) {
			first, dueMS, ok = a, due, true
		}
	}
	return first, dueMS, ok
}

func (k *Kit) actions() []ledger.Action {
	var actions []ledger.Action
	for _, q := range slices.Sorted(maps.Keys(k.queues)) {
		actions = append(actions, k.fold.Next(q, k.worker, func(int64) bool { return false })...)
	}
	return actions
}

// isExpiry tells whether an action ends an attempt whose outcome was to come from
// outside.
func isExpiry(a *ledger.Action) bool { return a.Kind == ledger.ActionFail && a.BaseMS > 0 }

func (k *Kit) dueMS(a *ledger.Action) int64 {
	if a.BaseMS > 0 {
		return max(k.nowMS, a.BaseMS+a.WaitMS)
	}
	return k.nowMS + a.WaitMS
}

// do lets the time pass until an action is due, appends it, and runs the handler
// if it is a start.
func (k *Kit) do(a *ledger.Action, dueMS int64) {
	k.tb.Helper()
	waited := time.Duration(a.WaitMS) * time.Millisecond
	k.nowMS = dueMS
	k.append(a.Event())
	if a.Kind != ledger.ActionStart {
		return
	}
	def, ok := k.fold.OpenAttempt(a.RunID())
	if !ok {
		k.tb.Fatalf("executortest: the start of task %s was accepted and left no attempt", a.TaskID)
	}
	r := k.runs[a.RunID()]
	attempt := r.byID[def.ID]
	attempt.Waited = waited
	k.runHandler(r, attempt, def)
}

// An ending is what a handler left behind.
type ending struct {
	msg ledger.Message
	ok  bool // there is something to append
}

// runHandler runs the handler of an attempt and appends its outcome.
func (k *Kit) runHandler(r *Run, attempt *Attempt, def ledger.Attempt) {
	k.tb.Helper()
	ctx, cancel := context.WithCancelCause(k.tb.Context())
	defer cancel(nil)
	k.current = &current{attempt: attempt, run: r, cancel: cancel}
	ended := make(chan ending, 1)
	// Of its own, because a handler may end it, as testing.T.FailNow does.
	go k.runner.Run(ctx, def, func(msg ledger.Message, ok bool) { ended <- ending{msg, ok} })
	if do := k.during[attempt.Task]; do != nil {
		delete(k.during, attempt.Task)
		do(r)
	}
	out := k.await(r, attempt, ended)
	if out.ok {
		k.appendMessage(out.msg)
	}
	restart := k.current.restart || !out.ok
	k.current = nil
	if k.tb.Context().Err() != nil {
		k.tb.Fatalf("executortest: the test ended while the handler of task %q ran", attempt.Task)
	}
	if restart {
		k.newWorker()
	}
}

func (k *Kit) await(r *Run, attempt *Attempt, ended <-chan ending) ending {
	k.tb.Helper()
	patience := k.Patience
	if patience == 0 {
		patience = DefaultPatience
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case out := <-ended:
		return out
	case <-timer.C:
	}
	k.current.cancel(executor.ErrShutdown)
	r.fatalf("the handler of task %q (%s) has not returned after %s; Kit.Patience allows more, Definition.Timeout ends its context earlier",
		attempt.Task, attempt.Type, patience)
	return ending{}
}
