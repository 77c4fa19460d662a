package simtest

import (
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// The careless writer may append, knows everything, and keeps no promise. What
// it writes is well-formed; whether it counts is for the rules alone to say.
func (w *world) careless() {
	ways := []func() ledger.Event{
		w.carelessCreate, w.carelessRetry, w.carelessRetry, w.carelessCancel, w.carelessClaim, w.carelessRelease, w.carelessStart,
		w.carelessStart, w.carelessOutcome, w.carelessOutcome, w.carelessOutcome, w.carelessPartition,
	}
	e := oneOf(w.dice, ways)()
	if e == nil {
		return
	}
	m, err := w.encode("careless", e)
	if err != nil {
		return // not even well-formed
	}
	w.note("careless", e.EventName(), 0)
	w.saw("careless", e.EventName())
	w.evil.append(m, nobody{})
}

// asOf is any position, also impossible ones.
func (w *world) carelessAsOf() int64 {
	d, end := w.dice, w.end()
	edges := []int64{end, end + 1, end - w.window, end - w.window - 1, end - 1, 0, -1, -1 << 63, 1<<63 - 1}
	if d.chance(60) {
		return end - int64(d.between(0, int(w.window)+2))
	}
	return oneOf(d, edges)
}

func (w *world) anyLife() *life {
	if len(w.oracle.order) == 0 {
		return nil
	}
	// The younger ones are more likely to be in somebody's way.
	n := len(w.oracle.order)
	if w.dice.chance(60) {
		return w.oracle.order[w.dice.between(max(0, n-6), n-1)]
	}
	return oneOf(w.dice, w.oracle.order)
}

// forgotten is a collection of which the fold remembers nothing any more, or is
// about to: the edge of the window.
func (w *world) forgotten() *life {
	for _, l := range w.oracle.order {
		age := w.end() - w.window - l.lastEnd
		if l.lastEnd >= 0 && l.active == nil && l.id.Version() == 7 && age >= -2 && age <= 2 {
			return l
		}
	}
	return nil
}

func (w *world) carelessCreate() ledger.Event {
	r := w.newRequest()
	id := ledger.NewCollectionID(w.index, w.wall(), w.dice.bytes8())
	l := w.anyLife()
	switch {
	case w.dice.chance(40) && w.forgotten() != nil:
		id = w.forgotten().id
		return r.created(id, w.end())
	case l != nil && l.id.Version() == 7 && w.dice.chance(60):
		id = l.id
	case w.dice.chance(30):
		r.key = oneOf(w.dice, w.keys.keys)
		r.ordering = ""
		id = ledger.KeyedCollectionID(r.tenant, "", r.key, w.index)
	case w.dice.chance(10):
		r.ordering = "a lane of some partition " + itoa(w.dice.between(0, 9))
	}
	return r.created(id, w.carelessAsOf())
}

// carelessRetry retries what ran, what succeeded, what never was, with whatever
// tasks.
func (w *world) carelessRetry() ledger.Event {
	id, run, l := ledger.NewCollectionID(w.index, w.wall(), w.dice.bytes8()), 2, w.anyLife()
	asOf := w.carelessAsOf()
	if l != nil && w.dice.chance(95) {
		id, run = l.id, max(2, l.runs[len(l.runs)-1].id.Run+w.dice.between(-1, 2))
		if l.lastEnd >= 0 && w.dice.chance(30) { // the edge of what is a change
			asOf = l.lastEnd + int64(w.dice.between(0, 1))
		}
	}
	s := w.newShape()
	first := w.dice.between(0, len(s.tasks)-1)
	e := ledger.RetryRequested{
		CollectionID: id, Tenant: w.carelessTenant(l), Run: run, AsOf: asOf, Name: s.name, RequestHash: zeroHash(),
		TaskCount: len(s.tasks), Tasks: withIDs(s.tasks, id, ledger.KindTask)[first:], Finally: withIDs(s.finally, id, ledger.KindFinally),
	}
	if w.dice.chance(40) {
		e.OrderingKey = oneOf(w.dice, w.keys.lanes)
	}
	if w.dice.chance(50) {
		e.Input = w.payload()
	}
	for i := range e.Tasks {
		e.Tasks[i].Attempts = w.dice.between(0, 3)
	}
	return e
}

func (w *world) carelessCancel() ledger.Event {
	l := w.anyLife()
	if l == nil {
		return nil
	}
	run := max(1, l.runs[len(l.runs)-1].id.Run+w.dice.between(-1, 1))
	return ledger.CancelRequested{CollectionID: l.id, Tenant: w.carelessTenant(l), Run: run, RequestHash: zeroHash()}
}

// carelessTenant is mostly the collection's own.
func (w *world) carelessTenant(l *life) string {
	if l == nil || w.dice.chance(7) {
		return oneOf(w.dice, tenants())
	}
	return l.runs[len(l.runs)-1].tenant
}

// carelessWorker is a live worker's name or a made up one.
func (w *world) carelessWorker() string {
	if c := w.oracle.claims[oneOf(w.dice, w.queues)]; c != nil && w.dice.chance(50) {
		return c.worker
	}
	return "nobody/" + itoa(w.dice.between(0, 1))
}

// carelessClaimOffset is a claim that is or was, or none at all.
func (w *world) carelessClaimOffset(queue string) int64 {
	current := int64(-1)
	if c := w.oracle.claims[queue]; c != nil {
		current = c.offset
	}
	if w.dice.chance(60) {
		return current
	}
	return max(-1, current+int64(w.dice.between(-20, 3)))
}

func (w *world) carelessClaim() ledger.Event {
	q := oneOf(w.dice, w.queues)
	prev := w.carelessClaimOffset(q)
	if w.dice.chance(60) {
		prev = int64(w.dice.between(-1, int(w.end()))) // without having looked
	}
	return ledger.PartitionClaimed{Queue: q, Prev: prev, Worker: w.carelessWorker()}
}

func (w *world) carelessRelease() ledger.Event {
	q := oneOf(w.dice, w.queues)
	e := ledger.PartitionReleased{Queue: q, Claim: max(0, w.carelessClaimOffset(q)), Worker: w.carelessWorker(), Running: []int64{}}
	for _, a := range w.oracle.open {
		if w.dice.chance(50) {
			e.Running = append(e.Running, a.id)
		}
		if w.dice.chance(50) {
			e.Worker = a.worker
		}
		if w.dice.chance(30) {
			e.Claim = a.claim
		}
	}
	if w.dice.chance(50) {
		e.GraceMS = graceMS
	}
	return e
}

// carelessStart is a start that would do, but for one thing, or for none.
func (w *world) carelessStart() ledger.Event {
	l := w.anyLife()
	if l == nil {
		return nil
	}
	r := l.runs[len(l.runs)-1]
	if w.dice.chance(20) {
		r = oneOf(w.dice, l.runs)
	}
	t := r.current()
	if t == nil {
		t = oneOf(w.dice, r.chain)
	}
	e := ledger.TaskStarted{
		CollectionID: l.id, Tenant: r.tenant, Run: r.id.Run, TaskID: t.def.ID, Attempt: t.def.Attempts + t.starts + 1,
		Claim: 1, Worker: "nobody/0",
	}
	if c := w.oracle.claims[t.def.Queue]; c != nil {
		e.Claim, e.Worker = c.offset, c.worker
	}
	switch w.dice.between(0, 8) {
	case 0:
		e.Claim = max(0, w.carelessClaimOffset(t.def.Queue))
	case 1:
		e.Worker = w.carelessWorker()
	case 2:
		e.Attempt = max(1, e.Attempt+w.dice.between(-1, 1))
	case 3:
		e.Run = max(1, e.Run+w.dice.between(-1, 1))
	case 4:
		e.TaskID = ledger.TaskID(l.id, oneOf(w.dice, []ledger.Kind{ledger.KindTask, ledger.KindFinally}), w.dice.between(0, 3))
	case 5:
		e.Tenant = w.carelessTenant(l)
	case 6:
		e.CollectionID = w.anyLife().id
	default:
	}
	return e
}

// carelessOutcome is an outcome of an attempt that is or was open.
func (w *world) carelessOutcome() ledger.Event {
	a := w.anyAttempt()
	if a == nil {
		return nil
	}
	r := a.task.run
	id, run, task, attempt, worker := r.id.Collection, r.id.Run, a.task.def.ID, a.id, a.worker
	switch w.dice.between(0, 7) {
	case 0:
		worker = w.carelessWorker()
	case 1:
		attempt = max(0, attempt+int64(w.dice.between(-1, 1)))
	case 2:
		run = max(1, run+w.dice.between(-1, 1))
	case 3:
		task = ledger.TaskID(id, a.task.kind, w.dice.between(0, 3))
	case 4:
		id = w.anyLife().id
	default:
	}
	return w.carelessOutcomeOf(a, id, run, task, attempt, worker)
}

func (w *world) anyAttempt() *attemptFact {
	if len(w.oracle.open) > 0 && w.dice.chance(75) {
		return oneOf(w.dice, w.oracle.open)
	}
	l := w.anyLife()
	if l == nil {
		return nil
	}
	for id := w.end() - 1; id > w.end()-40; id-- {
		if a := w.oracle.attempts[id]; a != nil && w.dice.chance(30) {
			return a
		}
	}
	return nil
}

func (w *world) carelessOutcomeOf(a *attemptFact, id uuid.UUID, run int, task uuid.UUID, attempt int64, worker string) ledger.Event {
	tenant := a.task.run.tenant
	if w.dice.chance(7) {
		tenant = oneOf(w.dice, tenants())
	}
	switch w.dice.between(0, 4) {
	case 0:
		return ledger.TaskDeferred{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: attempt, Worker: worker}
	case 1:
		return ledger.TaskSucceeded{CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: attempt, Worker: worker, Result: w.payload()}
	}
	codes := []string{ledger.CodeLost, ledger.CodeInterrupted, ledger.CodeTimeout, ledger.CodeCanceled, ledger.CodeExit}
	e := ledger.TaskFailed{
		CollectionID: id, Tenant: tenant, Run: run, TaskID: task, AttemptID: attempt, Worker: worker,
		Error: ledger.TaskError{Code: oneOf(w.dice, codes), Audience: ledger.AudienceOperator, Retryable: w.dice.chance(60)},
	}
	if w.dice.chance(60) {
		by := max(0, w.carelessClaimOffset(a.task.def.Queue))
		e.ByClaim = &by
		if c := w.oracle.claims[a.task.def.Queue]; c != nil && w.dice.chance(80) {
			e.Worker = c.worker
		}
	}
	return e
}

// carelessPartition repeats what concerns the whole partition.
func (w *world) carelessPartition() ledger.Event {
	if w.dice.chance(50) {
		return ledger.RulesActivated{Rules: oneOf(w.dice, []int{0, ledger.Rules})}
	}
	return ledger.LedgerOpened{LedgerID: ledgerID(), Partitions: w.partitions, Rules: ledger.Rules, Window: w.window}
}
