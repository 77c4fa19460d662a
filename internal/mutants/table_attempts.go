package main

// starts breaks R4 and R4f.
func starts() []mutant {
	list := inFile("ledger/attempts.go", []mutant{
		{name: "R4-tenant", in: "applyStarted", old: `case r.tenant != e.Tenant:`, new: `case false:`, breaks: "R4: the collection is the tenant's"},
		{name: "R4-canceled", in: "judgeStart", old: `case r.canceled:`, new: `case false:`, breaks: "R4: not canceled (G8)"},
		{name: "R4-task", in: "judgeStart", old: `case t.ID != e.TaskID:`, new: `case false:`, breaks: "R4: the task is next (G5)"},
		{name: "R4-lane", in: "judgeStart", old: `case !p.isHead(r):`, new: `case false:`, breaks: "R4: head of its lane"},
		{name: "R4-claim", in: "judgeStart", old: `case !p.holdsClaim(t.Queue, e.Claim, e.Worker):`, new: `case false:`, breaks: "R4: the queue's current unreleased claim and its worker"},
		{name: "R4-attempt", in: "judgeStart", old: `case e.Attempt != t.Attempts+1:`, new: `case false:`, breaks: "R4: attempt = accepted starts + 1 (F2)"},
		{name: "R4-attempt-lower", in: "judgeStart", old: `case e.Attempt != t.Attempts+1:`, new: `case e.Attempt > t.Attempts+1:`, breaks: "R4: attempt = accepted starts + 1 (F2)"},
		{name: "R4-attempt-higher", in: "judgeStart", old: `case e.Attempt != t.Attempts+1:`, new: `case e.Attempt < t.Attempts+1:`, breaks: "R4: attempt = accepted starts + 1"},
		{name: "R4-deferred", in: "judgeStart", old: `case r.open.deferred:`, new: `case false:`, breaks: "R4: a deferred attempt is not superseded"},
		{name: "R4-same-claim", in: "judgeStart", old: `r.open.claim == e.Claim || `, new: ``, breaks: "R4: an open attempt of the same claim is not superseded"},
		{name: "R4-fail-task", in: "judgeStart", old: ` || t.OnInterrupt != OnInterruptRestart`, new: ``, breaks: "R4: the open attempt of a fail task is never superseded (F7)"},
		{name: "R4-open", in: "judgeStart", old: `case r.isOpen() && `, new: `case r.isOpen() && false && `, breaks: "R4: no open attempt, or one of another claim of a restart task"},
		{name: "R4-order-canceled", in: "judgeStart", old: `case r.canceled:`, new: `case r.canceled && e.Attempt == t.Attempts+1:`, breaks: "order of checks: canceled comes first"},
		{name: "R4-order-claim", in: "judgeStart", old: `e.Claim, e.Worker):`, new: `e.Claim, e.Worker) && e.Attempt == t.Attempts+1:`, breaks: "order of checks: the claim comes before the attempt's number"},
		{name: "R4-supersede-counts", in: "applyStarted", old: `r.lost++`, new: ``, breaks: "R6: a superseded attempt counts as a lost one"},
		{name: "R4-supersede-fails", in: "applyStarted", old: `r.lost++`, new: `r.lost++; r.failures++`, breaks: "R6: superseded attempts are no failures (F16)"},
		{name: "R4-supersede-status", in: "applyStarted", old: `StatusSuperseded`, new: `StatusFailed`, breaks: "an attempt that was superseded says so"},
		{name: "R4-number", in: "applyStarted", old: `r.task().Attempts++`, new: ``, breaks: "R4: every accepted start counts"},
		{name: "R4-waiting", in: "applyStarted", old: `r.waiting = false`, new: ``, breaks: "a task that was started waits no more"},
		{name: "R4-started-finally", in: "applyStarted", old: `r.kind == KindTask && !r.started`, new: `!r.started`, breaks: "finally tasks never change the collection"},
		{name: "R4-started-once", in: "applyStarted", old: ` && !r.started {`, new: ` {`, breaks: "a run starts once"},
		{name: "R4-touch", in: "applyStarted", old: `p.touch(id)`, new: ``, breaks: "Outcome.Touched names the run"},
	})
	return append(list, inFile("ledger/run.go", []mutant{
		{name: "R4-run", in: "find", old: `r != nil && r.number == id.Run {`, new: `r != nil {`, breaks: "R4, R5: run equal"},
		{name: "R4f-run", in: "find", old: `if r.number == id.Run {`, new: `if r.number != 0 {`, breaks: "R4f, R5: (id, run) in P"},
		{name: "R4f-ending", in: "find", old: `range p.ending[id.Collection]`, new: `range p.ending[uuid.Nil]`, breaks: "R4f: finally tasks are started (F4)"},
		{name: "R4f-canceled", in: "end", old: `kind: KindFinally, `, new: `kind: KindFinally, canceled: r.canceled, `, breaks: "R4f: the cancel does not matter to finally tasks (F4, D5)"},
		{name: "R4f-lane", in: "end", old: `kind: KindFinally, `, new: `kind: KindFinally, orderingKey: r.orderingKey, `, breaks: "R4f: the lane does not matter to finally tasks (F4)"},
		{name: "R4f-attempts", in: "end", old: `slices.Clone(r.finally)`, new: `r.finally`, breaks: "R4f: a finally task's attempts count within (task, run)"},
	})...)
}

// outcomes breaks R5.
func outcomes() []mutant {
	return inFile("ledger/attempts.go", []mutant{
		{name: "R5-tenant", in: "judgeOpen", old: `case r.tenant != tenant:`, new: `case false:`, breaks: "R5: the collection is the tenant's"},
		{name: "R5-nothing-open", in: "judgeOpen", old: `!r.isOpen() || `, new: ``, breaks: "R5: there is an open attempt"},
		{name: "R5-attempt", in: "judgeOpen", old: `r.open.id != attemptID || `, new: ``, breaks: "R5: attempt_id is the open attempt (G3)"},
		{name: "R5-task", in: "judgeOpen", old: ` || r.task().ID != task`, new: ``, breaks: "R5: the task fits"},
		{name: "R5-touch", in: "judgeOpen", old: `p.touch(id)`, new: ``, breaks: "Outcome.Touched names the run"},
		{name: "R5-worker-success", in: "applySucceeded", old: `if r.open.worker != e.Worker {`, new: `if false {`, breaks: "R5: the worker is the attempt's own"},
		{name: "R5-claim-success", in: "applySucceeded", old: `if r.open.worker != e.Worker {`, new: `if r.open.worker != e.Worker || !p.holdsClaim(r.task().Queue, r.open.claim, e.Worker) {`, breaks: "R5: a slow but honest worker's outcome needs no claim (H5)"},
		{name: "R5-worker-failure", in: "applyFailed", old: `case e.ByClaim == nil && r.open.worker != e.Worker:`, new: `case false:`, breaks: "R5: the worker is the attempt's own"},
		{name: "R5-claim-failure", in: "applyFailed", old: `case e.ByClaim == nil && r.open.worker != e.Worker:`, new: `case e.ByClaim == nil && !p.holdsClaim(r.task().Queue, r.open.claim, e.Worker):`, breaks: "R5: a slow but honest worker's outcome needs no claim (H5)"},
		{name: "R5-by-claim", in: "applyFailed", old: `case e.ByClaim != nil && !p.holdsClaim(r.task().Queue, *e.ByClaim, e.Worker):`, new: `case false:`, breaks: "R5: by_claim is the queue's current unreleased claim (F3)"},
		{name: "R5-by-claim-queue", in: "applyFailed", old: `p.holdsClaim(r.task().Queue, *e.ByClaim`, new: `p.holdsClaim(DefaultQueue, *e.ByClaim`, breaks: "R5: by_claim is the claim of the task's queue"},
		{name: "R5-lost-deferred", in: "applyFailed", old: `case lost && r.open.deferred:`, new: `case false:`, breaks: "R5: a deferred attempt is not lost (D2)"},
		{name: "R5-timeout-deferred", in: "applyFailed", old: `case lost && r.open.deferred:`, new: `case e.ByClaim != nil && r.open.deferred:`, breaks: "R5: only code lost or interrupted is refused for a deferred attempt"},
		{name: "R5-code-lost", in: "applyFailed", old: `e.Error.Code == CodeLost || `, new: ``, breaks: "R5, R6: lost by_claim is no failure"},
		{name: "R5-code-interrupted", in: "applyFailed", old: ` || e.Error.Code == CodeInterrupted`, new: ``, breaks: "R5, R6: interrupted by_claim is no failure"},
		{name: "R5-lost-any-code", in: "applyFailed", old: ` && (e.Error.Code == CodeLost || e.Error.Code == CodeInterrupted)`, new: ``, breaks: "R5, R6: a timeout by_claim is a failure"},
		{name: "R5-lost-own", in: "applyFailed", old: `e.ByClaim != nil && (e.Error`, new: `(e.Error`, breaks: "R6: lost and interrupted count as lost only by_claim"},
		{name: "R5-result", in: "applySucceeded", old: `StatusSucceeded, e.Result,`, new: `StatusSucceeded, nil,`, breaks: "the outcome has the result"},
		{name: "R5-message", in: "applySucceeded", old: `e.Result, e.Message, nil)`, new: `e.Result, "", nil)`, breaks: "the outcome has the message"},
		{name: "R5-close", in: "closeAttempt", old: `r.open = openAttempt{}`, new: ``, breaks: "R5: the attempt is closed (G3)"},
	})
}

// afterOutcomes breaks R6 and R9.
func afterOutcomes() []mutant {
	list := inFile("ledger/attempts.go", []mutant{
		{name: "R6-succeeds-canceled", in: "taskDone", old: `case !more:`, new: `case !more && !r.canceled:`, breaks: "R6: all done is succeeded, even after a cancel (F6)"},
		{name: "R6-canceled-goes-on", in: "taskDone", old: `case r.canceled:`, new: `case false:`, breaks: "R6: succeeded and canceled, not all done: run canceled"},
		{name: "R6-status", in: "taskDone", old: `StatusCanceled, nil, nil)`, new: `StatusFailed, nil, nil)`, breaks: "R6: succeeded and canceled, not all done: run canceled"},
		{name: "R6-input", in: "taskDone", old: `r.step(result, x.TimeMS)`, new: `r.step(r.input, x.TimeMS)`, breaks: "R6: input = result"},
		{name: "R6-failed-canceled", in: "afterFailure", old: `case r.canceled:`, new: `case false:`, breaks: "R6: failed and canceled: run canceled"},
		{name: "R6-canceled-late", in: "afterFailure", old: `case r.canceled:`, new: `case r.canceled && !e.Error.Retryable:`, breaks: "R6: the cancel is looked at first, also of a retryable failure (F5)"},
		{name: "R6-canceled-late-lost", in: "afterFailure", old: `case r.canceled:`, new: `case r.canceled && !lost:`, breaks: "R6: the cancel is looked at first, also of a lost attempt (F5)"},
		{name: "R6-lost", in: "afterFailure", old: `case lost && `, new: `case false && lost && `, breaks: "R6: a lost attempt of a restart task is runnable again, no failure"},
		{name: "R6-lost-not-retryable", in: "afterFailure", old: `case lost && e.Error.Retryable && `, new: `case lost && `, breaks: "R6: the tenth loss is not retryable (D3)"},
		{name: "R6-lost-fail-task", in: "afterFailure", old: ` && t.OnInterrupt == OnInterruptRestart:`, new: `:`, breaks: "R6: a fail task that was lost has failed (F7)"},
		{name: "R6-lost-counts", in: "afterFailure", old: `r.lost++`, new: ``, breaks: "R6: lost attempts are counted (D3)"},
		{name: "R6-lost-is-failure", in: "afterFailure", old: `r.lost++`, new: `r.lost++; r.failures++`, breaks: "R6: lost attempts are no failures (F16)"},
		{name: "R6-lost-waits", in: "afterFailure", old: `r.lost++`, new: `r.lost++; r.waiting = true`, breaks: "R6: after a loss the task is runnable again at once"},
		{name: "R6-lost-since", in: "afterFailure", old: `r.sinceMS = x.TimeMS`, new: ``, breaks: "Next knows since when the task could start"},
		{name: "R6-retryable", in: "afterFailure", old: `case e.Error.Retryable && r.failures+1`, new: `case r.failures+1`, breaks: "R6: only a retryable failure is followed by another attempt"},
		{name: "R6-max-attempts-more", in: "afterFailure", old: `r.failures+1 < t.MaxAttempts`, new: `r.failures < t.MaxAttempts`, breaks: "R6: failures < max_attempts"},
		{name: "R6-max-attempts-less", in: "afterFailure", old: `r.failures+1 < t.MaxAttempts`, new: `r.failures+2 < t.MaxAttempts`, breaks: "R6: failures < max_attempts"},
		{name: "R6-max-attempts-all-runs", in: "afterFailure", old: `r.failures+1 < t.MaxAttempts`, new: `t.Attempts < t.MaxAttempts`, breaks: "R6: failures count in this run, attempts do not (F16)"},
		{name: "R6-failures", in: "afterFailure", old: `r.failures++`, new: ``, breaks: "R6: failures + 1"},
		{name: "R6-waiting", in: "afterFailure", old: `r.waiting = true`, new: ``, breaks: "R6: the task waits for its next attempt"},
		{name: "R6-failure-attempt", in: "afterFailure", old: `attemptID: attemptID, `, new: `attemptID: 0 * attemptID, `, breaks: "D7: jitter comes from the attempt that failed"},
		{name: "R6-failure-time", in: "afterFailure", old: ` timeMS: x.TimeMS,`, new: ``, breaks: "D7: the back-off counts from the failure's record time"},
		{name: "R6-failure-after", in: "afterFailure", old: `, retryAfterMS: e.RetryAfterMS}`, new: `}`, breaks: "D7: retry_after_ms is remembered"},
		{name: "R6-failed-task", in: "afterFailure", old: `StatusFailed, t, &e.Error)`, new: `StatusFailed, nil, nil)`, breaks: "a failed run names its task and error"},
		{name: "R9-lost-is-failure", in: "afterFailure", old: `case lost && `, new: `case lost && r.kind == KindTask && `, breaks: "R9: lost attempts of finally tasks are no failures (D5b)"},
		{name: "R9-next", in: "afterFailure", old: `p.taskDone(x, r, nil) //`, new: `p.finish(r) //`, breaks: "R9: a failed finally task does not stop the next"},
		{name: "R9-ends-collection", in: "afterFailure", old: `case r.kind == KindFinally:`, new: `case false:`, breaks: "R9: finally tasks never change the outcome"},
		{name: "R9-none-left", in: "taskDone", old: `p.finish(r)`, new: `r.next--`, breaks: "R9: none left: out of P"},
	})
	return append(list, inFile("ledger/run.go", []mutant{
		{name: "R6-lost-reset", in: "chain.step", old: `= 0, 0, lastFailure{}`, new: `= 0, c.lost, lastFailure{}`, breaks: "R6: a success resets the lost attempts (D4)"},
		{name: "R6-failures-reset", in: "chain.step", old: `= 0, 0, lastFailure{}`, new: `= c.failures, 0, lastFailure{}`, breaks: "R6: a success resets the failures"},
		{name: "R6-step-since", in: "chain.step", old: `false, input, nowMS`, new: `false, input, c.sinceMS`, breaks: "Next knows since when the task could start"},
		{name: "R9-other-run", in: "finish", old: `if len(runs) == 1 {`, new: `if true {`, breaks: "R9: finally tasks of two runs may be under way together"},
		{name: "R9-input-run", in: "handed", old: `Run: r.number, `, new: ``, breaks: "R9: input {run, …}"},
		{name: "R9-input-status", in: "handed", old: `Status: r.status, `, new: ``, breaks: "R9: input {status, …}"},
		{name: "R9-input-failed-task", in: "handed", old: `FailedTask: r.failed, `, new: ``, breaks: "R9: input {failed_task, …}"},
		{name: "R9-input-name", in: "handed", old: `Name: r.name, `, new: ``, breaks: "R9: input {name, …}"},
		{name: "R9-input-finished", in: "handed", old: `time.UnixMilli(endedMS)`, new: `time.UnixMilli(0 * endedMS)`, breaks: "R9: input {finished_at, …}"},
		{name: "R9-input-calendar", in: "handed", old: `min(max(r.endedMS, 0), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli())`, new: `r.endedMS`, breaks: "a record time beyond the calendar stops nobody"},
		{name: "R9-immutable", in: "handed", old: `case r.task().Immutable:`, new: `case false:`, breaks: "an immutable task gets no input"},
	})...)
}

// deferrals breaks R5b.
func deferrals() []mutant {
	return inFile("ledger/attempts.go", []mutant{
		{name: "R5b-worker", in: "applyDeferred", old: `case r.open.worker != e.Worker:`, new: `case false:`, breaks: "R5b: worker its own"},
		{name: "R5b-again", in: "applyDeferred", old: `case r.open.deferred:`, new: `case false:`, breaks: "R5b: not yet deferred"},
		{name: "R5b-mark", in: "applyDeferred", old: `= true, x.TimeMS`, new: `= false, x.TimeMS`, breaks: "R5b: deferred"},
		{name: "R5b-time", in: "applyDeferred", old: `= true, x.TimeMS`, new: `= true, r.open.startedMS`, breaks: "R5b, D7: the timeout counts from the TaskDeferred's record time"},
		{name: "R5b-change", in: "applyDeferred", old: `r.attempt(StatusDeferred)`, new: `r.attempt(StatusRunning)`, breaks: "the outcome says that the attempt is deferred"},
	})
}

// releases breaks R11.
func releases() []mutant {
	return inFile("ledger/attempts.go", []mutant{
		{name: "R11-unclaimed", in: "applyReleased", old: `case !ok || `, new: `case `, breaks: "R11: a queue that was never claimed cannot be released"},
		{name: "R11-future", in: "applyReleased", old: `e.Claim > claim.Offset || `, new: ``, breaks: "R11: a claim that never was cannot be released"},
		{name: "R11-late", in: "applyReleased", old: `e.Claim > claim.Offset || `, new: `e.Claim != claim.Offset || `, breaks: "R11: a release counts also after a newer claim (F8c)"},
		{name: "R11-worker", in: "applyReleased", old: ` || current && e.Worker != claim.Worker:`, new: `:`, breaks: "R11: the current claim is released by its worker"},
		{name: "R11-again", in: "applyReleased", old: `case current && claim.Released:`, new: `case false:`, breaks: "R11: already released is a duplicate"},
		{name: "R11-literally", in: "applyReleased", old: `case current:`, new: `default:`, breaks: "R11: a late release does not end the new owner's claim (D6)"},
		{name: "R11-mark", in: "applyReleased", old: `claim.Released = true`, new: ``, breaks: "R11: the claim ends (F8d)"},
		{name: "R11-listed", in: "applyReleased", old: `case running[r.open.id]:`, new: `case false:`, breaks: "R11: listed in running[] is draining, not closed (F8b)"},
		{name: "R11-all-listed", in: "applyReleased", old: `case running[r.open.id]:`, new: `case true:`, breaks: "R11: not listed and opened under this claim is closed (F8a)"},
		{name: "R11-other-claim", in: "applyReleased", old: `case r.open.claim == e.Claim:`, new: `default:`, breaks: "R11: only what was opened under this claim is closed"},
		{name: "R11-draining", in: "applyReleased", old: `= true, e.GraceMS`, new: `= false, e.GraceMS`, breaks: "R11: listed in running[] is draining"},
		{name: "R11-grace", in: "applyReleased", old: `= true, e.GraceMS`, new: `= true, 0`, breaks: "R11: draining for the worker's grace (F10)"},
		{name: "R11-touch-draining", in: "applyReleased", old: "e.GraceMS\n\t\t\tp.touch(r.runID())", new: `e.GraceMS`, breaks: "Outcome.Touched names what drains"},
		{name: "R11-touch-closed", in: "applyReleased", old: "e.Claim:\n\t\t\tp.touch(r.runID())", new: `e.Claim:`, breaks: "Outcome.Touched names what was closed"},
		{name: "R11-held-worker", in: "heldBy", old: `r.open.worker == worker && `, new: `r.isOpen() && `, breaks: "R11: open attempts of this worker"},
		{name: "R11-held-deferred", in: "heldBy", old: `!r.open.deferred && `, new: ``, breaks: "R11: not deferred attempts"},
		{name: "R11-held-queue", in: "heldBy", old: ` && r.task().Queue == queue`, new: ``, breaks: "R11: open attempts of this queue"},
		{name: "R11-held-active", in: "heldBy", old: `range p.active {`, new: `range map[uuid.UUID]*run{} {`, breaks: "R11: attempts of active runs"},
		{name: "R11-held-ending", in: "heldBy", old: `range p.ending {`, new: `range map[uuid.UUID][]*run{} {`, breaks: "R11: attempts of finally tasks"},
		{name: "R11-held-order", in: "heldBy", old: `return cmp.Compare(a.open.id, b.open.id)`, new: `return 0 * cmp.Compare(a.open.id, b.open.id)`, breaks: "G2: a release closes attempts in one order"},
		{name: "R11-canceled", in: "neverStarted", old: `if r.canceled {`, new: `if false {`, breaks: "R11: in a canceled run the run then ends"},
		{name: "R11-is-failure", in: "neverStarted", old: `p.closeAttempt(`, new: `r.failures++; p.closeAttempt(`, breaks: "R6: not started attempts are no failures (F16)"},
		{name: "R11-is-loss", in: "neverStarted", old: `p.closeAttempt(`, new: `r.lost++; p.closeAttempt(`, breaks: "R6: not started attempts are not lost ones"},
		{name: "R11-status", in: "neverStarted", old: `StatusNotStarted`, new: `StatusFailed`, breaks: "an attempt that was never started says so"},
		{name: "R11-since", in: "neverStarted", old: `r.sinceMS = x.TimeMS`, new: ``, breaks: "Next knows since when the task could start"},
	})
}
