package main

// lanes breaks R10.
func lanes() []mutant {
	return inFile("ledger/run.go", []mutant{
		{name: "R10-head", in: "isHead", old: ` || p.lanes[r.lane()][0] == r.id`, new: ` || true`, breaks: "R10: one active collection of a lane at a time"},
		{name: "R10-tail", in: "joinLane", old: `append(p.lanes[r.lane()], r.id)`, new: `append([]uuid.UUID{r.id}, p.lanes[r.lane()]...)`, breaks: "R10: in log order, at the lane's tail"},
		{name: "R10-middle", in: "leaveLane", old: `slices.Index(ids, r.id)`, new: `max(0, 0*slices.Index(ids, r.id))`, breaks: "R10: a run leaves its lane wherever it stands"},
		{name: "R10-touch-head", in: "leaveLane", old: "if i == 0 {\n\t\tp.touch", new: "if false {\n\t\tp.touch", breaks: "R10: the new head is touched"},
		{name: "R10-tenant", in: "run.lane", old: `lane{r.tenant, r.orderingKey}`, new: `lane{"", r.orderingKey}`, breaks: "R10: a lane is a tenant's"},
		{name: "R10-leave", in: "end", old: `p.leaveLane(r)`, new: ``, breaks: "R10: moves on when the head's run ends"},
		{name: "R10-empty-lane", in: "leaveLane", old: `delete(p.lanes, r.lane())`, new: `p.lanes[r.lane()] = ids`, breaks: "an empty lane is forgotten"},
	})
}

// ends breaks what the end of a run does.
func ends() []mutant {
	return inFile("ledger/run.go", []mutant{
		{name: "end-active", in: "end", old: `delete(p.active, r.id)`, new: ``, breaks: "run ends: out of A"},
		{name: "end-window", in: "end", old: `p.win.add(r.id, x.Offset)`, new: ``, breaks: "run ends: ended_at = o into Win"},
		{name: "end-window-offset", in: "end", old: `p.win.add(r.id, x.Offset)`, new: `p.win.add(r.id, x.Offset-1)`, breaks: "run ends: ended_at = o"},
		{name: "end-finally", in: "end", old: `if len(r.finally) == 0 {`, new: `if true {`, breaks: "run ends: finally tasks into P (G9)"},
		{name: "end-finally-canceled", in: "end", old: `if len(r.finally) == 0 {`, new: `if len(r.finally) == 0 || s == StatusCanceled {`, breaks: "G9: finally tasks run after every run, whatever its outcome"},
		{name: "end-finally-other-run", in: "end", old: `append(p.ending[r.id], ended)`, new: `append(p.ending[r.id][:0], ended)`, breaks: "R8: P stays when a retry comes"},
		{name: "end-failed-task", in: "end", old: `change.FailedTask = failed.ID`, new: ``, breaks: "the outcome names the failed task"},
		{name: "end-failed-input", in: "end", old: `ended.failed = &`, new: `_ = &`, breaks: "R9: finally tasks learn the failed task"},
		{name: "end-time", in: "end", old: `, endedMS: x.TimeMS,`, new: `,`, breaks: "R9: finished_at is the record time of the end"},
		{name: "end-since", in: "end", old: `, sinceMS: x.TimeMS}`, new: `}`, breaks: "Next knows since when the first finally task could start"},
		{name: "end-canceled-tasks", in: "end", old: `if s == StatusCanceled {`, new: `if false {`, breaks: "what was not done of a canceled run is canceled"},
		{name: "end-canceled-last", in: "reportCanceled", old: `n > 0 && p.out`, new: `false && n > 0 && p.out`, breaks: "a task that has just failed is not also canceled"},
		{name: "end-canceled-next", in: "reportCanceled", old: `i := r.next;`, new: `i := r.next + 1;`, breaks: "what was not done of a canceled run is canceled"},
	})
}
