package simtest

import (
	"encoding/json"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// A projection is a read model: rows made of outcomes and nothing else, as far
// behind the log as its luck has it. Rows and position are read together, as in
// one transaction.
type projection struct {
	w        *world
	name     string
	reader   reader
	rows     map[uuid.UUID]*row
	order    []*row
	verdicts map[uuid.UUID]decision // by event id; accepted is never overwritten
	attempts map[int64]ledger.AttemptChange
}

type decision struct {
	verdict ledger.Verdict
	reason  ledger.Reason
}

// A row is what the API knows of a collection.
type row struct {
	id       uuid.UUID
	tenant   string
	name     string
	ordering string
	hash     string
	run      int
	status   ledger.Status
	tasks    []rowTask
	finally  []ledger.Task
}

type rowTask struct {
	def      ledger.Task // with the args in force
	status   ledger.Status
	attempts int
	result   json.RawMessage
	last     ledger.TaskChange
}

func (w *world) newProjection(name string) *projection {
	return &projection{
		w: w, name: name, reader: reader{fold: ledger.NewPartition(w.index)},
		rows: map[uuid.UUID]*row{}, verdicts: map[uuid.UUID]decision{}, attempts: map[int64]ledger.AttemptChange{},
	}
}

// position is the as_of of whoever decides on what the rows say now.
func (p *projection) position() int64 { return p.reader.fold.Position() }

func (p *projection) lag() int64 { return p.w.end() - p.position() }

// project folds up to n records into the rows.
func (p *projection) project(n int) (did bool) {
	for ; n > 0 && p.reader.next < len(p.w.log) && p.w.failure == nil; n-- {
		e, out := p.w.advance(&p.reader)
		p.take(e, &out)
		did = true
	}
	return did
}

func (p *projection) take(e *entry, out *ledger.Outcome) {
	if id := e.parsed.EventID; id != uuid.Nil && p.verdicts[id].verdict != ledger.Accepted {
		if _, known := p.verdicts[id]; !known || out.Verdict == ledger.Accepted {
			p.verdicts[id] = decision{out.Verdict, out.Reason}
		}
	}
	if out.Verdict != ledger.Accepted {
		return
	}
	switch ev := e.parsed.Event.(type) {
	case ledger.CollectionCreated:
		p.create(ev)
	case ledger.RetryRequested:
		p.retry(ev)
	default:
	}
	for _, c := range out.Collections {
		if r := p.rows[c.ID]; r != nil {
			r.run, r.status = c.Run, c.Status
		}
	}
	for _, a := range out.Attempts {
		p.attempts[a.ID] = a
	}
	for _, t := range out.Tasks {
		r := p.rows[t.Collection]
		if r == nil || t.TaskKind != ledger.KindTask || t.Index >= len(r.tasks) {
			continue
		}
		rt := &r.tasks[t.Index]
		rt.status, rt.attempts, rt.last = t.Status, t.Attempts, t
		if t.Status == ledger.StatusSucceeded {
			rt.result = t.Result
		}
	}
}

func (p *projection) create(e ledger.CollectionCreated) {
	r := &row{
		id: e.CollectionID, tenant: e.Tenant, name: e.Name, ordering: e.OrderingKey, hash: e.RequestHash,
		run: 1, status: ledger.StatusPending, finally: e.Finally,
	}
	for i := range e.Tasks {
		r.tasks = append(r.tasks, rowTask{def: e.Tasks[i], status: ledger.StatusPending})
	}
	if p.rows[r.id] == nil {
		p.order = append(p.order, r)
	} else {
		for i := range p.order { // a careless author has created it again
			if p.order[i].id == r.id {
				p.order[i] = r
			}
		}
	}
	p.rows[r.id] = r
}

func (p *projection) retry(e ledger.RetryRequested) {
	r := p.rows[e.CollectionID]
	if r == nil || len(r.tasks) != e.TaskCount {
		return // a careless author
	}
	r.run, r.finally = e.Run, e.Finally
	for i := range e.Tasks {
		t := &r.tasks[e.Tasks[i].Index]
		t.def, t.status, t.result = e.Tasks[i], ledger.StatusPending, nil
	}
}

// suffix is the index of the first task that has not succeeded.
func (r *row) suffix() int {
	for i := range r.tasks {
		if r.tasks[i].status != ledger.StatusSucceeded {
			return i
		}
	}
	return len(r.tasks)
}

// retryable tells whether a user is offered a retry.
func (r *row) retryable() bool {
	return r.status == ledger.StatusFailed || r.status == ledger.StatusCanceled
}

// check compares the rows with the oracle's facts once both have read all.
func (p *projection) check() {
	for id, f := range p.w.oracle.attempts {
		a := p.attempts[id]
		if a.Status != f.status || a.Number != f.number || a.Worker != f.worker || a.Claim != f.claim || a.Run != f.task.run.id.Run ||
			a.TaskID != f.task.def.ID || a.TaskKind != f.task.kind {
			p.w.violated("G10", "%s shows attempt @%d as number %d %s, it is number %d %s", p.name, id, a.Number, a.Status, f.number, f.status)
		}
	}
	for _, l := range p.w.oracle.order {
		r := p.rows[l.id]
		if r == nil {
			if l.creations > 0 {
				p.w.violated("G10", "%s has no row for %s", p.name, p.w.short(l.id))
			}
			continue
		}
		last := l.runs[len(l.runs)-1]
		if r.run != last.id.Run || last.ended >= 0 && r.status != last.status {
			p.w.violated("G10", "%s shows %s as run %d %s, it is run %d %s", p.name, p.w.short(l.id), r.run, r.status, last.id.Run, last.status)
		}
		if !p.w.honest {
			continue
		}
		for _, f := range last.chain {
			if t := &r.tasks[f.def.Index]; !f.mayShow(t.status) {
				p.w.violated("G10", "%s shows task %d of %s as %s, its run is %s", p.name, f.def.Index, p.w.short(l.id), t.status, last.status)
			}
		}
		for i := range r.tasks {
			if t := &r.tasks[i]; t.attempts != l.starts[i] || !sameJSON(t.result, l.results[i]) {
				p.w.violated("G10", "%s shows task %d of %s with %d attempts and %s, the records say %d and %s", p.name, i,
					p.w.short(l.id), t.attempts, t.result, l.starts[i], l.results[i])
			}
		}
	}
}

// mayShow tells whether a status fits a task of a run that has ended.
func (t *taskFact) mayShow(s ledger.Status) bool {
	switch {
	case t.success >= 0:
		return s == ledger.StatusSucceeded
	case t.run.status == ledger.StatusCanceled:
		return s == ledger.StatusCanceled || s == ledger.StatusFailed && t.starts > 0
	case t == t.run.failed:
		return s == ledger.StatusFailed
	}
	return s == ledger.StatusPending
}
