package main

// next breaks Partition.Next.
func next() []mutant {
	return inFile("ledger/next.go", []mutant{
		{name: "next-worker", in: "Partition.next", old: `claim.Worker != worker || `, new: ``, breaks: "Next: without a claim of worker there is nothing to do"},
		{name: "next-released", in: "Partition.next", old: `claim.Released || `, new: ``, breaks: "Next: nothing under a released claim"},
		{name: "next-queue", in: "Partition.next", old: ` || t.Queue != queue`, new: ``, breaks: "Next: tasks of the queue"},
		{name: "next-lane", in: "Partition.next", old: `case !r.isOpen() && !p.isHead(r):`, new: `case false:`, breaks: "Next: the lane's head"},
		{name: "next-deferred", in: "Partition.next", old: `case r.open.deferred:`, new: `case false:`, breaks: "Next: leaves a deferred attempt alone"},
		{name: "next-holding", in: "Partition.next", old: `case holding(r.open.id):`, new: `case false:`, breaks: "Next: leaves alone what this process holds"},
		{name: "next-deferred-held", in: "Partition.next", old: `case r.open.deferred:`, new: `case r.open.deferred && !holding(r.open.id):`, breaks: "Next: a deferred attempt is held by nobody"},
		{name: "next-ending", in: "Partition.runs", old: `list = append(list, runs...)`, new: `_ = runs`, breaks: "Next: finally tasks are started (G9)"},
		{name: "next-order", in: "Partition.runs", old: `return cmp.Or(`, new: `return 0 * cmp.Or(`, breaks: "Next: in the order of the ids"},
		{name: "next-order-runs", in: "Partition.runs", old: `, cmp.Compare(a.number, b.number))`, new: `, cmp.Compare(b.number, a.number))`, breaks: "Next: in the order of the runs"},
		{name: "next-attempt", in: "nextStart", old: `r.task().Attempts+1, r.sinceMS`, new: `r.task().Attempts+2, r.sinceMS`, breaks: "Next: what it proposes is accepted"},
		{name: "next-waiting", in: "nextStart", old: `if r.waiting {`, new: `if false {`, breaks: "Next: a task that has failed waits"},
		{name: "next-waiting-base", in: "nextStart", old: `a.BaseMS, a.WaitMS = r.failure.timeMS,`, new: `a.BaseMS, a.WaitMS = 0,`, breaks: "Next: the back-off counts from the failure"},
		{name: "next-since", in: "nextStart", old: `a.SinceMS = a.BaseMS + a.WaitMS`, new: ``, breaks: "Next: a task that waits is not late"},
		{name: "next-by-claim", in: "Action.Event", old: `ByClaim: &claim, `, new: `ByClaim: []*int64{nil, &claim}[0], `, breaks: "Next: a takeover is by_claim"},
		{name: "next-deferred-canceled", in: "nextDeferred", old: `if r.canceled {`, new: `if false {`, breaks: "R5b: a deferred attempt of a canceled run ends at once"},
		{name: "next-deferred-timeout", in: "nextDeferred", old: `r.open.deferredMS, r.task().TimeoutMS`, new: `r.open.deferredMS, 0`, breaks: "R5b: deferred until timeout_ms"},
		{name: "next-deferred-base", in: "nextDeferred", old: `r.open.deferredMS, r.task().TimeoutMS`, new: `r.open.startedMS, r.task().TimeoutMS`, breaks: "R5b, D7: timeout_ms after the TaskDeferred"},
		{name: "next-deferred-retryable", in: "nextDeferred", old: `, Retryable: true}`, new: `}`, breaks: "R5b: a timeout is retryable"},
		{name: "next-deferred-code", in: "nextDeferred", old: `Code: CodeTimeout`, new: `Code: CodeLost`, breaks: "R5b: TaskFailed(timeout, by_claim)"},
	})
}

// takeovers breaks what Next says of attempts of other workers.
func takeovers() []mutant {
	return inFile("ledger/next.go", []mutant{
		{name: "takeover-own-waits", in: "nextTakeover", old: `if !own {`, new: `if true {`, breaks: "an own attempt that is not held is lost at once"},
		{name: "takeover-no-grace", in: "nextTakeover", old: `if !own {`, new: `if false {`, breaks: "another worker's attempt is left alone for a grace (F9)"},
		{name: "takeover-lost-worker", in: "nextTakeover", old: `r.takeoverMS(), r.open.worker`, new: `r.takeoverMS(), ""`, breaks: "Next names the lost worker, so that a gone one is waited for 1 s"},
		{name: "takeover-canceled", in: "nextTakeover", old: `case r.canceled || `, new: `case `, breaks: "a lost attempt of a canceled run is interrupted, never superseded (F5)"},
		{name: "takeover-fail-task", in: "nextTakeover", old: `r.canceled || t.OnInterrupt == OnInterruptFail:`, new: `r.canceled:`, breaks: "a lost attempt of a fail task is interrupted, never superseded"},
		{name: "takeover-lost-limit", in: "nextTakeover", old: `case r.lost >= MaxLostAttempts-1:`, new: `case false:`, breaks: "the tenth loss is the last (D3)"},
		{name: "takeover-lost-limit-more", in: "nextTakeover", old: `r.lost >= MaxLostAttempts-1`, new: `r.lost >= MaxLostAttempts`, breaks: "the tenth loss is the last (D3)"},
		{name: "takeover-lost-limit-less", in: "nextTakeover", old: `r.lost >= MaxLostAttempts-1`, new: `r.lost >= MaxLostAttempts-2`, breaks: "nine losses are fine (D3)"},
		{name: "takeover-own-lost", in: "nextTakeover", old: `case own || r.open.claim == a.Claim:`, new: `case r.open.claim == a.Claim:`, breaks: "an own lost attempt is failed, not superseded"},
		{name: "takeover-own-retryable", in: "nextTakeover", old: `a.Error.Retryable = true`, new: ``, breaks: "an own lost attempt may start again"},
		{name: "takeover-attempt", in: "nextTakeover", old: `t.Attempts+1, TaskError{}`, new: `t.Attempts, TaskError{}`, breaks: "Next: what it proposes is accepted"},
		{name: "takeover-draining", in: "takeoverMS", old: `case !r.open.draining:`, new: `case true:`, breaks: "a draining attempt is left alone for as long as it may run"},
		{name: "takeover-grace", in: "takeoverMS", old: `case r.open.graceMS > 0:`, new: `case false:`, breaks: "not longer than the worker's shutdown grace (F10)"},
		{name: "takeover-grace-max", in: "takeoverMS", old: `min(r.task().TimeoutMS, r.open.graceMS)`, new: `max(r.task().TimeoutMS, r.open.graceMS)`, breaks: "min(timeout_ms, grace_ms) (F10)"},
	})
}

// backoffs breaks the wait before an automatic attempt.
func backoffs() []mutant {
	return inFile("ledger/next.go", []mutant{
		{name: "backoff-retry-after", in: "backoffMS", old: `if r.failure.retryAfterMS > 0 {`, new: `if false {`, breaks: "retry_after_ms takes the place of the back-off"},
		{name: "backoff-initial", in: "backoffMS", old: `wait := b.InitialMS`, new: `wait := b.InitialMS + 1`, breaks: "initial × multiplier^(n−1)"},
		{name: "backoff-exponent", in: "backoffMS", old: `i < r.failures`, new: `i <= r.failures`, breaks: "initial × multiplier^(n−1)"},
		{name: "backoff-multiplier", in: "backoffMS", old: `wait *= b.Multiplier`, new: `wait += b.Multiplier`, breaks: "initial × multiplier^(n−1)"},
		{name: "backoff-overflow", in: "backoffMS", old: ` && wait < b.MaxMS`, new: ``, breaks: "the back-off does not overflow"},
		{name: "backoff-max", in: "backoffMS", old: `wait = min(wait, b.MaxMS)`, new: ``, breaks: "at most max"},
		{name: "backoff-jitter", in: "backoffMS", old: `return wait - int64`, new: `return wait - 0*int64`, breaks: "the second half is jitter"},
		{name: "backoff-jitter-half", in: "backoffMS", old: `uint64(wait/2+1)`, new: `uint64(wait+1)`, breaks: "at least half of the wait"},
		{name: "backoff-jitter-attempt", in: "backoffMS", old: `uint64(r.failure.attemptID)`, new: `uint64(r.failures)`, breaks: "jitter comes from the attempt's id"},
	})
}

// attempts breaks what a handler gets.
func attempts() []mutant {
	return inFile("ledger/next.go", []mutant{
		{name: "attempt-input", in: "OpenAttempt", old: `Input: r.handed(), `, new: ``, breaks: "G5: a handler gets the previous result"},
		{name: "attempt-canceled", in: "OpenAttempt", old: ` Canceled: r.canceled,`, new: ``, breaks: "a handler's context is canceled with the run"},
		{name: "attempt-deferred", in: "OpenAttempt", old: `Deferred: r.open.deferred, `, new: ``, breaks: "OpenAttempt says that the attempt is deferred"},
		{name: "attempt-deferred-ms", in: "OpenAttempt", old: `DeferredMS: r.open.deferredMS, `, new: ``, breaks: "OpenAttempt says since when the attempt is deferred"},
		{name: "attempt-draining", in: "OpenAttempt", old: ` Draining: r.open.draining,`, new: ``, breaks: "OpenAttempt says that the attempt is draining"},
		{name: "attempt-number", in: "OpenAttempt", old: `Number: t.Attempts,`, new: `Number: 1,`, breaks: "a handler gets the attempt's number"},
		{name: "attempt-started", in: "OpenAttempt", old: `StartedMS: r.open.startedMS,`, new: ``, breaks: "a handler's deadline counts from its start"},
		{name: "attempt-name", in: "OpenAttempt", old: `Name: r.name, `, new: ``, breaks: "a handler gets the collection's name"},
	})
}

// startAfters breaks Partition.StartAfter.
func startAfters() []mutant {
	return inFile("ledger/next.go", []mutant{
		{name: "after-open", in: "StartAfter", old: `!r.isOpen() || `, new: ``, breaks: "StartAfter: there is an open attempt"},
		{name: "after-canceled", in: "StartAfter", old: `r.canceled || `, new: ``, breaks: "StartAfter: not in a canceled run"},
		{name: "after-worker", in: "StartAfter", old: `claim.Worker != worker || `, new: ``, breaks: "StartAfter: worker holds the claim"},
		{name: "after-released", in: "StartAfter", old: `claim.Released || `, new: ``, breaks: "StartAfter: the claim is not released"},
		{name: "after-queue", in: "StartAfter", old: `if t.Queue != queue {`, new: `if false {`, breaks: "StartAfter: a task of the queue"},
		{name: "after-last", in: "StartAfter", old: `r.next+1 >= len(r.tasks)`, new: `r.next >= len(r.tasks)`, breaks: "StartAfter: there is a next task"},
		{name: "after-attempt", in: "StartAfter", old: `t.Attempts + 1`, new: `1`, breaks: "StartAfter: what it proposes is accepted after a retry"},
		{name: "after-task", in: "StartAfter", old: `t := &r.tasks[r.next+1]`, new: `t := r.task()`, breaks: "StartAfter: the task behind the open attempt's"},
	})
}
