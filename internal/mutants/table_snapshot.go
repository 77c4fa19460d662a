package main

// snapshots leaves parts of a partition out of its snapshot, in both directions.
func snapshots() []mutant {
	return inFile("ledger/snapshot.go", []mutant{
		{name: "snapshot-rules", in: "coder.partition", old: `c.int(&p.rules)`, new: ``, breaks: "a snapshot holds the rules"},
		{name: "snapshot-ledger-id", in: "coder.partition", old: `c.uuid(&p.ledgerID)`, new: ``, breaks: "a snapshot holds the ledger id"},
		{name: "snapshot-index", in: "coder.partition", old: `c.int32(&p.index)`, new: ``, breaks: "a snapshot holds the partition"},
		{name: "snapshot-position", in: "coder.partition", old: `c.int64(&p.position)`, new: ``, breaks: "a snapshot holds the position"},
		{name: "snapshot-epoch", in: "coder.partition", old: `c.int32(&p.epoch)`, new: ``, breaks: "a snapshot holds the leader epoch (F12)"},
		{name: "snapshot-last", in: "coder.partition", old: `c.bytes32(&p.last)`, new: ``, breaks: "a snapshot holds the last record's hash (F12)"},
		{name: "snapshot-chain", in: "coder.partition", old: `c.bytes32(&p.chain)`, new: ``, breaks: "a snapshot holds the chain hash"},
		{name: "snapshot-opened", in: "coder.partition", old: `c.bool(&p.opened)`, new: ``, breaks: "a snapshot holds whether the partition is open"},
		{name: "snapshot-partitions", in: "coder.partition", old: `c.int32(&p.partitions)`, new: ``, breaks: "a snapshot holds N"},
		{name: "snapshot-window", in: "coder.partition", old: `c.int64(&p.window)`, new: ``, breaks: "a snapshot holds W"},
		{name: "snapshot-claims", in: "coder.partition", old: `c.claims(p)`, new: ``, breaks: "a snapshot holds the claims"},
		{name: "snapshot-active", in: "coder.partition", old: `c.active(p)`, new: ``, breaks: "a snapshot holds A"},
		{name: "snapshot-ending", in: "coder.partition", old: `c.ending(p)`, new: ``, breaks: "a snapshot holds P"},
		{name: "snapshot-win", in: "coder.partition", old: `c.win(&p.win)`, new: ``, breaks: "a snapshot holds Win"},
		{name: "snapshot-claim-offset", in: "coder.claims", old: `c.int64(&claim.Offset)`, new: ``, breaks: "a snapshot holds a claim's offset"},
		{name: "snapshot-claim-worker", in: "coder.claims", old: `c.text(&claim.Worker)`, new: ``, breaks: "a snapshot holds a claim's worker"},
		{name: "snapshot-claim-released", in: "coder.claims", old: `c.bool(&claim.Released)`, new: ``, breaks: "a snapshot holds whether a claim is released"},
		{name: "snapshot-win-at", in: "coder.win", old: `c.int64(&e.at)`, new: ``, breaks: "a snapshot holds ended_at"},
	})
}

// snapshotsOfRuns leaves parts of runs out.
func snapshotsOfRuns() []mutant {
	return inFile("ledger/snapshot.go", []mutant{
		{name: "snapshot-opened-at", in: "coder.active", old: `c.int64(&r.opened)`, new: ``, breaks: "a snapshot holds a run's place in its lane"},
		{name: "snapshot-lane", in: "coder.active", old: `c.text(&r.orderingKey)`, new: ``, breaks: "a snapshot holds the lanes"},
		{name: "snapshot-lane-order", in: "coder.active", old: `cmp.Compare(a.opened, b.opened)`, new: `bytes.Compare(a.id[:], b.id[:])`, breaks: "a snapshot keeps the order within a lane"},
		{name: "snapshot-lane-join", in: "coder.active", old: `p.joinLane(r)`, new: ``, breaks: "a restored run is in its lane"},
		{name: "snapshot-started", in: "coder.active", old: `c.bool(&r.started)`, new: ``, breaks: "a snapshot holds whether a run has started"},
		{name: "snapshot-canceled", in: "coder.active", old: `c.bool(&r.canceled)`, new: ``, breaks: "a snapshot holds whether a run is canceled"},
		{name: "snapshot-finally", in: "coder.active", old: `c.tasks(&r.finally)`, new: ``, breaks: "a snapshot holds the finally tasks to come"},
		{name: "snapshot-input", in: "coder.active", old: `c.payload(&r.input)`, new: ``, breaks: "a snapshot holds the input"},
		{name: "snapshot-status", in: "coder.ending", old: `c.text((*string)(&r.status))`, new: ``, breaks: "a snapshot holds the status of an ended run"},
		{name: "snapshot-ended", in: "coder.ending", old: `c.int64(&r.endedMS)`, new: ``, breaks: "a snapshot holds when a run ended"},
		{name: "snapshot-failed", in: "coder.ending", old: `c.failed(r)`, new: ``, breaks: "a snapshot holds the failed task"},
		{name: "snapshot-failed-type", in: "coder.failed", old: `c.text(&r.failed.Type)`, new: ``, breaks: "a snapshot holds the failed task's type"},
		{name: "snapshot-failed-code", in: "coder.failed", old: `c.text(&r.failed.Error.Code)`, new: ``, breaks: "a snapshot holds the failed task's error"},
		{name: "snapshot-failed-message", in: "coder.failed", old: `c.text(&r.failed.Error.Message)`, new: ``, breaks: "a snapshot holds the failed task's error"},
		{name: "snapshot-ending-order", in: "coder.ending", old: `bytes.Compare(a[:], b[:])`, new: `0 * bytes.Compare(a[:], b[:])`, breaks: "a snapshot is canonical: equal folds, equal bytes"},
		{name: "snapshot-run-number", in: "coder.run", old: `c.int(&r.number)`, new: ``, breaks: "a snapshot holds a run's number"},
		{name: "snapshot-tenant", in: "coder.run", old: `c.text(&r.tenant)`, new: ``, breaks: "a snapshot holds the tenant"},
		{name: "snapshot-name", in: "coder.run", old: `c.text(&r.name)`, new: ``, breaks: "a snapshot holds the collection's name"},
		{name: "snapshot-next", in: "coder.run", old: `c.int(&r.next)`, new: ``, breaks: "a snapshot holds the next task"},
		{name: "snapshot-waiting", in: "coder.run", old: `c.bool(&r.waiting)`, new: ``, breaks: "a snapshot holds whether a task waits"},
		{name: "snapshot-failures", in: "coder.run", old: `c.int(&r.failures)`, new: ``, breaks: "a snapshot holds the failures"},
		{name: "snapshot-lost", in: "coder.run", old: `c.int(&r.lost)`, new: ``, breaks: "a snapshot holds the lost attempts (D3)"},
		{name: "snapshot-open", in: "coder.run", old: `c.openAttempt(&r.open)`, new: ``, breaks: "a snapshot holds the open attempt"},
		{name: "snapshot-failure-attempt", in: "coder.run", old: `c.int64(&r.failure.attemptID)`, new: ``, breaks: "a snapshot holds the failed attempt (D7)"},
		{name: "snapshot-failure-time", in: "coder.run", old: `c.int64(&r.failure.timeMS)`, new: ``, breaks: "a snapshot holds the failure's time (D7)"},
		{name: "snapshot-failure-after", in: "coder.run", old: `c.int64(&r.failure.retryAfterMS)`, new: ``, breaks: "a snapshot holds retry_after_ms (D7)"},
		{name: "snapshot-since", in: "coder.run", old: `c.int64(&r.sinceMS)`, new: ``, breaks: "a snapshot holds since when a task could start"},
		{name: "snapshot-open-claim", in: "coder.openAttempt", old: `c.int64(&o.claim)`, new: ``, breaks: "a snapshot holds the open attempt's claim"},
		{name: "snapshot-open-started", in: "coder.openAttempt", old: `c.int64(&o.startedMS)`, new: ``, breaks: "a snapshot holds when the attempt started"},
		{name: "snapshot-open-draining", in: "coder.openAttempt", old: `c.bool(&o.draining)`, new: ``, breaks: "a snapshot holds whether the attempt is draining"},
		{name: "snapshot-open-grace", in: "coder.openAttempt", old: `c.int64(&o.graceMS)`, new: ``, breaks: "a snapshot holds the attempt's grace"},
		{name: "snapshot-open-deferred", in: "coder.openAttempt", old: `c.bool(&o.deferred)`, new: ``, breaks: "a snapshot holds whether the attempt is deferred"},
		{name: "snapshot-open-deferred-ms", in: "coder.openAttempt", old: `c.int64(&o.deferredMS)`, new: ``, breaks: "a snapshot holds since when the attempt is deferred (D7)"},
	})
}

// snapshotsOfTasks leaves parts of definitions out.
func snapshotsOfTasks() []mutant {
	return inFile("ledger/snapshot.go", []mutant{
		{name: "snapshot-task-index", in: "coder.task", old: `c.int(&t.Index)`, new: ``, breaks: "a snapshot holds a task's index"},
		{name: "snapshot-task-name", in: "coder.task", old: `c.text(&t.Name)`, new: ``, breaks: "a snapshot holds a task's name"},
		{name: "snapshot-task-type", in: "coder.task", old: `c.text(&t.Type)`, new: ``, breaks: "a snapshot holds a task's type"},
		{name: "snapshot-task-queue", in: "coder.task", old: `c.text(&t.Queue)`, new: ``, breaks: "a snapshot holds a task's queue"},
		{name: "snapshot-task-description", in: "coder.task", old: `c.text(&t.Description)`, new: ``, breaks: "a snapshot holds a task's description"},
		{name: "snapshot-task-args", in: "coder.task", old: `c.payload(&t.Args)`, new: ``, breaks: "a snapshot holds a task's args"},
		{name: "snapshot-task-immutable", in: "coder.task", old: `c.bool(&t.Immutable)`, new: ``, breaks: "a snapshot holds whether a task is immutable"},
		{name: "snapshot-task-interrupt", in: "coder.task", old: `c.text((*string)(&t.OnInterrupt))`, new: ``, breaks: "a snapshot holds on_interrupt"},
		{name: "snapshot-task-max-attempts", in: "coder.task", old: `c.int(&t.MaxAttempts)`, new: ``, breaks: "a snapshot holds max_attempts"},
		{name: "snapshot-task-initial", in: "coder.task", old: `c.int64(&t.Backoff.InitialMS)`, new: ``, breaks: "a snapshot holds the back-off"},
		{name: "snapshot-task-multiplier", in: "coder.task", old: `c.int64(&t.Backoff.Multiplier)`, new: ``, breaks: "a snapshot holds the back-off"},
		{name: "snapshot-task-max", in: "coder.task", old: `c.int64(&t.Backoff.MaxMS)`, new: ``, breaks: "a snapshot holds the back-off"},
		{name: "snapshot-task-timeout", in: "coder.task", old: `c.int64(&t.TimeoutMS)`, new: ``, breaks: "a snapshot holds timeout_ms"},
		{name: "snapshot-task-attempts", in: "coder.task", old: `c.int(&t.Attempts)`, new: ``, breaks: "a snapshot holds the attempts of a task"},
	})
}

// restores breaks what Restore refuses.
func restores() []mutant {
	list := inFile("ledger/snapshot.go", []mutant{
		{name: "restore-canonical", in: "Restore", old: `!bytes.Equal(p.Snapshot(), b) {`, new: `false {`, breaks: "Restore: one state, one snapshot"},
		{name: "restore-codec", in: "coder.partition", old: ` || codec != snapshotCodec`, new: ``, breaks: "Restore: an unknown codec is not usable"},
		{name: "restore-magic", in: "coder.partition", old: `magic != snapshotMagic || `, new: ``, breaks: "Restore: other bytes are not usable", equivalent: "what has other bytes in front is not in canonical form, which is looked at in the end: only the words of the error differ"},
		{name: "restore-rules", in: "coder.partition", old: `p.opened && p.rules != Rules {`, new: `false {`, breaks: "Restore: unknown rules are not usable"},
		{name: "restore-twice", in: "coder.active", old: `p.active[r.id] != nil || `, new: ``, breaks: "Restore: a damaged snapshot is refused", equivalent: "of two runs with one id the fold keeps one, so that its own snapshot is another: not in canonical form, only the words of the error differ"},
		{name: "restore-opened-twice", in: "coder.active", old: ` || r.opened <= last`, new: ` || r.opened < last`, breaks: "Restore: one state, one snapshot, also of damaged bytes"},
		{name: "restore-next", in: "coder.run", old: `r.next < 0 || r.next >= len(r.tasks)`, new: `false`, breaks: "Restore: a damaged snapshot is refused, not a panic later"},
		{name: "restore-next-negative", in: "coder.run", old: `r.next < 0 || `, new: ``, breaks: "Restore: a damaged snapshot is refused, not a panic later"},
		{name: "restore-failures", in: "coder.run", old: ` || r.failures >= r.task().MaxAttempts:`, new: `:`, breaks: "Restore: values that no history leads to are refused"},
		{name: "restore-lost", in: "coder.run", old: `case r.lost < 0 || `, new: `case `, breaks: "Restore: values that no history leads to are refused"},
		{name: "restore-task", in: "coder.task", old: `err != nil {`, new: `err != nil && false {`, breaks: "Restore: definitions that no event can bring are refused"},
		{name: "restore-tasks", in: "coder.tasks", old: `if n > MaxTasks {`, new: `if false {`, breaks: "Restore: a damaged length does not ask for much memory"},
	})
	return append(list, inFile("ledger/coder.go", []mutant{
		{name: "restore-count", in: "coder.count", old: `n < 0 || n > len(c.buf)`, new: `n < 0`, breaks: "Restore: a damaged length does not ask for much memory", equivalent: "reading stops at the first entry that is not there, and a list of tasks has a limit of its own: only the words of the error differ"},
		{name: "restore-count-negative", in: "coder.count", old: `n < 0 || n > len(c.buf)`, new: `n > len(c.buf)`, breaks: "Restore: a damaged length is no panic"},
		{name: "restore-take", in: "coder.take", old: `c.err != nil || n > len(c.buf)`, new: `c.err != nil`, breaks: "Restore: a snapshot that was cut off is refused"},
		{name: "restore-number", in: "coder.int64", old: `if n <= 0 {`, new: `if false {`, breaks: "Restore: a snapshot that was cut off is refused"},
		{name: "restore-int32", in: "coder.int32", old: `wide < math.MinInt32 || wide > math.MaxInt32`, new: `wide < math.MinInt32 && wide > math.MaxInt32`, breaks: "Restore: a damaged snapshot is refused"},
		{name: "restore-text", in: "coder.text", old: `if !utf8.Valid(b) {`, new: `if false {`, breaks: "Restore: a damaged snapshot is refused, not a panic later"},
		{name: "restore-keeps-bytes", in: "coder.payload", old: `append(json.RawMessage(nil), c.take(n)...)`, new: `json.RawMessage(c.take(n))`, breaks: "Restore: nothing of the snapshot's bytes is kept"},
	})...)
}
