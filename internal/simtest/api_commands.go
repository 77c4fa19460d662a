package simtest

import (
	"slices"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// newRetry is one or two users who see a failed collection, perhaps clicking
// twice.
func (w *world) newRetry() {
	a := oneOf(w.dice, w.writers)
	var ended []*row
	for _, r := range a.sees.order {
		if r.retryable() {
			ended = append(ended, r)
		}
	}
	if w.idle = len(ended) == 0; w.idle {
		return
	}
	id := oneOf(w.dice, ended).id
	for range w.dice.between(1, 2) {
		w.twice(func(a *writer) { a.retry(id, &command{}) })
	}
}

// retry decides on the row as the writer's projection has it now.
func (a *writer) retry(id uuid.UUID, c *command) {
	w, r := a.w, findRow(a.sees, id)
	if r == nil || !r.retryable() || r.suffix() == len(r.tasks) {
		return // the last is what a careless author may have left behind
	}
	if a.sees.lag() > w.window && w.dice.chance(60) {
		w.saw("api", "retry answered 503, the projection is behind")
		return
	}
	c.again = func(c *command) { a.retry(id, c) }
	w.note(a.name, "retries", a.sees.position())
	a.send(c, a.retryOf(r))
}

// retryOf makes the event of a row: the suffix with the args now in force.
func (a *writer) retryOf(r *row) ledger.RetryRequested {
	w, first := a.w, r.suffix()
	e := ledger.RetryRequested{
		CollectionID: r.id, Tenant: r.tenant, Run: r.run + 1, AsOf: a.sees.position(), Name: r.name, OrderingKey: r.ordering,
		RequestHash: hashText(w.unique()), TaskCount: len(r.tasks), Finally: r.finally,
	}
	if first > 0 {
		e.Input = r.tasks[first-1].result
	}
	for i := first; i < len(r.tasks); i++ {
		t := r.tasks[i].def
		t.Attempts = r.tasks[i].attempts
		if w.dice.chance(15) {
			w.saw("api", "args amended")
			t.Args = w.payload()
			e.Amended = append(e.Amended, t.ID)
		}
		e.Tasks = append(e.Tasks, t)
	}
	if w.dice.chance(25) { // another callback_url, or none
		s := w.newShape()
		e.Finally = withIDs(s.finally, r.id, ledger.KindFinally)
	}
	if first > 0 {
		w.saw("api", "retry of a suffix")
	}
	return e
}

// newCancel is a user who cancels what the page shows, however old it is.
func (w *world) newCancel() {
	a := oneOf(w.dice, w.writers)
	if len(a.sees.order) == 0 {
		return
	}
	r := oneOf(w.dice, a.sees.order)
	if isEnd(r.status) && w.dice.chance(80) {
		return
	}
	for range w.dice.between(1, 2) {
		w.note(a.name, "cancels", int64(r.run))
		a.send(&command{}, ledger.CancelRequested{CollectionID: r.id, Tenant: r.tenant, Run: r.run, RequestHash: zeroHash()})
	}
}

// A token lets the outside report the outcome of a deferred attempt. The handler
// hands it out before anybody has read that the attempt is deferred.
type token struct {
	tenant    string
	run       ledger.RunID
	task      uuid.UUID
	attemptID int64
	worker    string
	sinceMS   int64
	used      int
	unwatched bool // nobody will ever report
}

// newReport is the outside with an outcome for a deferred attempt: late, twice,
// or never.
func (w *world) newReport() {
	if len(w.tokens) == 0 {
		return
	}
	t := oneOf(w.dice, w.tokens)
	if t.unwatched || t.used > 0 && w.dice.chance(70) {
		return
	}
	w.report(oneOf(w.dice, w.writers), t)
}

func (w *world) report(a *writer, t *token) {
	t.used++
	if t.used > 1 {
		w.saw("api", "second outcome for a deferred attempt")
	}
	w.note(a.name, "reports for", t.attemptID)
	if w.dice.chance(70) {
		a.send(&command{}, ledger.TaskSucceeded{
			CollectionID: t.run.Collection, Tenant: t.tenant, Run: t.run.Run, TaskID: t.task, AttemptID: t.attemptID,
			Worker: t.worker, Result: w.payload(),
		})
		return
	}
	a.send(&command{}, ledger.TaskFailed{
		CollectionID: t.run.Collection, Tenant: t.tenant, Run: t.run.Run, TaskID: t.task, AttemptID: t.attemptID,
		Worker: t.worker, Error: ledger.TaskError{Code: "declined", Audience: ledger.AudienceUser, Retryable: w.dice.chance(60)},
	})
}

// forgetTokens drops tokens of attempts that ended long ago.
func (w *world) forgetTokens() {
	w.tokens = slices.DeleteFunc(w.tokens, func(t *token) bool {
		a := w.oracle.attempts[t.attemptID]
		return a != nil && a.closed >= 0 && w.nowMS-t.sinceMS > 60_000
	})
}
