package executor

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// A takeover is the wait before an attempt of another worker counts as lost.
type takeover struct {
	attemptID int64
	queue     string
	set       string    // of the worker
	since     time.Time // when this owner first saw the attempt, or read its worker's release
}

// holds reports whether this process has, or is about to start, the handler of
// an attempt, or its outcome has not been read back.
func (o *owner) holds(attemptID int64) bool {
	if o.held[attemptID] != nil {
		return true
	}
	_, ok := o.toRun[attemptID]
	return ok
}

// scanAll considers every run of a queue once its claim is ours.
func (o *owner) scanAll(ctx context.Context, now time.Time) {
	for _, t := range o.tenures {
		if !t.scan || t.standing != active {
			continue
		}
		t.scan = false
		for _, a := range o.fold.Next(t.queue, o.x.worker, o.holds) {
			o.consider(ctx, a.RunID(), now)
		}
	}
}

// consider does what the fold asks for a run now, or notes when.
func (o *owner) consider(ctx context.Context, id ledger.RunID, now time.Time) {
	a, due, ok := o.asked(id, now)
	if !ok {
		o.timers.drop(id)
		return
	}
	if due.After(now) {
		o.timers.set(id, due)
		return
	}
	o.timers.drop(id)
	if a.Kind == ledger.ActionStart {
		o.pushReady(&a)
		return
	}
	o.appendAction(ctx, a, "")
}

func (o *owner) pushReady(a *ledger.Action) {
	class := o.x.slots.class(a.TaskType)
	if o.ready[class] == nil {
		o.ready[class] = newReadyRuns()
	}
	o.ready[class].push(a.RunID(), a.Tenant)
}

// asked returns what the fold asks for a run, and when it is due. ok is
// false when there is nothing to do now or later without another record or a
// handler's return.
func (o *owner) asked(id ledger.RunID, now time.Time) (a ledger.Action, due time.Time, ok bool) {
	t := o.tenureOf(id)
	if o.stopping || o.pending[id] != nil || t == nil || t.standing != active {
		return a, due, false
	}
	a, ok = o.fold.NextFor(id, t.queue, o.x.worker, o.holds)
	if !ok || a.LostWorker == "" {
		o.endTakeover(id)
	}
	if !ok {
		o.unserved.served(id)
		delete(o.refused, id)
		return a, due, false
	}
	if a.Kind == ledger.ActionStart && !o.mayBegin(&a) {
		return a, due, false
	}
	return a, o.dueTime(&a, now), true
}

// tenureOf returns the tenure of the queue of a run's next task, or nil. A run
// that is over has none, and asks for nothing.
func (o *owner) tenureOf(id ledger.RunID) *tenure {
	queue, ok := o.fold.Queue(id)
	if !ok {
		o.unserved.served(id)
		o.endTakeover(id)
		delete(o.refused, id)
		return nil
	}
	return o.tenures[queue]
}

// mayBegin reports whether this process could run the handler of a start.
func (o *owner) mayBegin(a *ledger.Action) bool {
	if earlier := o.handlers[refOf(a)]; earlier != nil {
		earlier.awaitedBy = a.RunID() // which is considered again when it returns
		return false
	}
	return o.mayServe(a)
}

// dueTime returns when an action is due.
func (o *owner) dueTime(a *ledger.Action, now time.Time) time.Time {
	wait := time.Duration(a.WaitMS) * time.Millisecond
	switch {
	case a.BaseMS > 0:
		return o.clock.when(a.BaseMS + a.WaitMS)
	case a.LostWorker == "":
		return now.Add(wait)
	}
	t, ok := o.takeovers[a.RunID()]
	if !ok || t.attemptID != a.AttemptID {
		o.endTakeover(a.RunID())
		queue, _ := o.fold.Queue(a.RunID())
		t = takeover{attemptID: a.AttemptID, queue: queue, set: setOf(a.LostWorker), since: now}
		o.takeovers[a.RunID()] = t
		o.interest.add(t.set)
	}
	if o.members.gone(a.LostWorker, t.since) {
		wait = min(wait, ledger.GoneGraceMS*time.Millisecond)
	}
	return t.since.Add(wait)
}

func (o *owner) endTakeover(id ledger.RunID) {
	if t, ok := o.takeovers[id]; ok {
		delete(o.takeovers, id)
		o.interest.remove(t.set)
	}
}

// membersRead takes the members of groups, asked at a time.
func (o *owner) membersRead(ctx context.Context, m memberships, now time.Time) {
	o.members.read(m)
	if o.phase != present {
		return
	}
	for id := range o.takeovers {
		o.consider(ctx, id, now)
	}
}

// mayStart reports whether tasks may be started: what is known of the log is not
// older than the lease, and there is room for outcomes if the brokers go away.
func (o *owner) mayStart(now time.Time) bool {
	return !o.stopping && o.phase == present && o.fresh.within(o.x.lease, now) && !o.x.outboxFull()
}

// startReady appends starts for as long as there are slots.
func (o *owner) startReady(ctx context.Context, now time.Time) {
	for class, ready := range o.ready {
		for ready.len() > 0 && o.mayStart(now) && o.takeSlot(class) {
			id := ready.pop()
			a, due, ok := o.asked(id, now)
			if !ok || a.Kind != ledger.ActionStart || due.After(now) || o.x.slots.class(a.TaskType) != class {
				o.x.slots.release(class)
				o.consider(ctx, id, now)
				continue
			}
			o.appendAction(ctx, a, class)
		}
		if ready.len() == 0 {
			delete(o.ready, class)
		}
	}
}

func (o *owner) takeSlot(class string) bool {
	if o.granted[class] > 0 {
		o.granted[class]--
		return true
	}
	return o.x.slots.take(o, class)
}

// returnGranted gives back slots that came too late to be of use.
func (o *owner) returnGranted() {
	for class, n := range o.granted {
		for range n {
			o.x.slots.release(class)
		}
	}
	clear(o.granted)
}

// appendAction appends the event that an action asks for. A start comes with a
// slot of a class.
func (o *owner) appendAction(ctx context.Context, a ledger.Action, class string) {
	msg, err := o.x.encode(o.partition, a.Event())
	if err != nil {
		o.stop(ctx, err) // cannot be: the fold asks for what it accepts
		return
	}
	kind := sentTakeover
	if a.Kind == ledger.ActionStart {
		kind = sentStart
	}
	o.send(&sent{kind: kind, tenure: o.tenureByClaim(a.Claim), msg: msg, action: a, class: class, sinceMS: a.SinceMS})
}

func (o *owner) tenureByClaim(claim int64) *tenure {
	for _, t := range o.tenures {
		if t.claim == claim {
			return t
		}
	}
	return nil
}

// startHandlers starts the handlers of accepted starts that were read back. It
// runs after a whole fetch: an attempt that ended within it is not started.
func (o *owner) startHandlers(ctx context.Context, now time.Time) {
	if len(o.toRun) == 0 || !o.fresh.within(o.x.lease, now) {
		return
	}
	for id, r := range o.toRun {
		def, ok := o.fold.OpenAttempt(r.run)
		delete(o.toRun, id)
		if !ok || def.ID != id {
			o.x.slots.release(r.class) // cannot be: noteClosed has seen its end
			continue
		}
		o.startHandler(ctx, def, r.class)
	}
}

func (o *owner) startHandler(ctx context.Context, def ledger.Attempt, class string) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &attempt{def: def, class: class, cancel: cancel, running: true}
	if def.Canceled {
		cancel(ErrCanceled)
	}
	o.held[def.ID] = a
	o.handlers[a.ref()] = a
	o.x.tally.running(+1)
	h := o.x.handlers[def.Task.Type]
	if h == nil {
		h = missingHandler
	}
	o.x.running.Go(func() {
		o.x.runHandler(ctx, h, a, func(r report) {
			o.mail.put(func(now time.Time) { o.handlerReturned(ctx, a, &r, now) })
		})
	})
}

// missingHandler answers for a task that was started although its type has no
// handler here, which an own start never is.
func missingHandler(_ context.Context, t RawTask) (json.RawMessage, error) {
	return nil, &Error{Code: ledger.CodeConfig, Message: "task type " + t.Type + " has no handler in this executor"}
}

// handlerReturned appends the outcome of an attempt and, with a success, the
// start of the next task: the two travel together.
func (o *owner) handlerReturned(ctx context.Context, a *attempt, r *report, now time.Time) {
	a.running = false
	a.cancel(nil)
	delete(o.handlers, a.ref())
	// Last, so that a shutdown always sees the handler or its outcome.
	defer o.x.tally.running(-1)
	o.x.slots.release(a.class)
	switch {
	case r.abandoned:
		// It stays held: nobody here may start it again.
		o.x.metrics.attempts.WithLabelValues(a.def.Task.Type, r.result).Inc()
		a.logger(o.logger).InfoContext(ctx, "attempt left to the next owner")
	case r.broken != nil:
		o.stop(ctx, r.broken)
	case a.closed, o.phase == stopped:
		o.sendOnce(a, r)
		if o.phase == present {
			o.consider(ctx, a.awaitedBy, now)
		}
	default:
		o.send(&sent{kind: sentOutcome, msg: r.msg, attempt: a, report: *r})
		if r.succeeded {
			o.startNext(ctx, a, now)
		}
	}
}

// sendOnce appends an outcome that will not count, for the record.
func (o *owner) sendOnce(a *attempt, r *report) {
	delete(o.held, a.def.ID)
	o.x.metrics.attempts.WithLabelValues(a.def.Task.Type, resultTakenOver).Inc()
	o.x.log.Append(r.msg, func(int64, error) {})
}

// startNext appends the start of the task behind an attempt that succeeded,
// unless others wait for the slot: then the run takes its turn again once its
// success was read back.
func (o *owner) startNext(ctx context.Context, a *attempt, now time.Time) {
	t := o.tenures[a.def.Task.Queue]
	if t == nil || t.standing != active || !o.mayStart(now) || o.pending[a.runID()] != nil {
		return
	}
	next, ok := o.fold.StartAfter(a.runID(), t.queue, o.x.worker)
	if !ok || o.handlers[refOf(&next)] != nil || !o.mayServe(&next) {
		return
	}
	class := o.x.slots.class(next.TaskType)
	if ready := o.ready[class]; ready != nil && ready.len() > 0 || !o.x.slots.tryTake(class) {
		return
	}
	o.appendAction(ctx, next, class)
}

// A taskRef is what must not run twice at once in a process: a task, and of the
// finally tasks, which different runs of a collection may run side by side, one
// run's.
type taskRef struct {
	id  uuid.UUID
	run int // 0 but for finally tasks
}

func newTaskRef(id uuid.UUID, kind ledger.Kind, run int) taskRef {
	if kind != ledger.KindFinally {
		run = 0
	}
	return taskRef{id, run}
}

func refOf(a *ledger.Action) taskRef { return newTaskRef(a.TaskID, a.TaskKind, a.Run) }

func (a *attempt) ref() taskRef { return newTaskRef(a.def.Task.ID, a.def.TaskKind, a.def.Run) }

// mayServe reports whether there is a handler for the task of a start, and
// notes when not: it waits for an executor that has one.
func (o *owner) mayServe(a *ledger.Action) bool {
	if o.x.handlers[a.TaskType] != nil {
		o.unserved.served(a.RunID())
		return true
	}
	o.unserved.wait(o.logger, a)
	return false
}

// unserved knows the runs whose next task has a type without a handler here.
type unserved struct {
	metrics *metrics
	waiting map[ledger.RunID]string // the type
	logged  map[string]bool
}

func newUnserved(m *metrics) unserved {
	return unserved{metrics: m, waiting: make(map[ledger.RunID]string), logged: make(map[string]bool)}
}

func (u *unserved) wait(logger *slog.Logger, a *ledger.Action) {
	id := a.RunID()
	if u.waiting[id] == a.TaskType {
		return
	}
	u.served(id)
	u.waiting[id] = a.TaskType
	u.metrics.unserved.WithLabelValues(a.TaskType).Inc()
	if !u.logged[a.TaskType] {
		u.logged[a.TaskType] = true
		logger.Warn("task type has no handler here; its tasks wait", slog.String("type", a.TaskType), slog.String("collection_id", id.Collection.String()))
	}
}

// served notes that a run's next task does not wait for a handler.
func (u *unserved) served(id ledger.RunID) {
	if taskType, ok := u.waiting[id]; ok {
		delete(u.waiting, id)
		u.metrics.unserved.WithLabelValues(taskType).Dec()
	}
}

// nobodyWaits is for an owner that no longer is one.
func (u *unserved) nobodyWaits() {
	for id := range u.waiting {
		u.served(id)
	}
}
