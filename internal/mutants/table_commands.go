package main

// creations breaks R3, and the window check that it shares with R8.
func creations() []mutant {
	return inFile("ledger/commands.go", []mutant{
		{name: "asof-now", in: "judgeAsOf", old: `asOf > offset:`, new: `asOf >= offset:`, breaks: "R3, R8: as_of = o is fine"},
		{name: "asof-ahead", in: "judgeAsOf", old: `asOf > offset:`, new: `asOf > offset+1:`, breaks: "R3, R8: as_of = o + 1 is ahead"},
		{name: "asof-ahead-any", in: "judgeAsOf", old: `case asOf > offset:`, new: `case false:`, breaks: "R3, R8: as_of ≤ o"},
		{name: "asof-oldest", in: "judgeAsOf", old: `asOf < offset-p.window:`, new: `asOf <= offset-p.window:`, breaks: "R3, R8: as_of = o − W is fine"},
		{name: "asof-too-old", in: "judgeAsOf", old: `asOf < offset-p.window:`, new: `asOf < offset-p.window-1:`, breaks: "R3, R8: as_of = o − W − 1 is too old"},
		{name: "asof-too-old-any", in: "judgeAsOf", old: `asOf < offset-p.window:`, new: `false:`, breaks: "R3, R8: o − W ≤ as_of"},
		{name: "R3-partition", in: "applyCreated", old: `ok && want != p.index`, new: `ok && want != p.index && false`, breaks: "R3: the keys' partition is recomputed (H18, H28)"},
		{name: "R3-active", in: "applyCreated", old: `if active || `, new: `if active && false || `, breaks: "R3: the id is not in A"},
		{name: "R3-ending", in: "applyCreated", old: `active || ending ||`, new: `active || ending && false ||`, breaks: "R3: the id is not in P"},
		{name: "R3-ended", in: "applyCreated", old: `ending || ended {`, new: `ending || ended && false {`, breaks: "R3: the id is not in Win (F1)"},
		{name: "R3-as-of", in: "applyCreated", old: `reason != "" {`, new: `reason != "" && false {`, breaks: "R3: o − W ≤ as_of ≤ o (F1)"},
		{name: "R3-order", in: "applyCreated", old: `if active || ending || ended {`, new: `if (active || ending || ended) && p.judgeAsOf(e.AsOf, x.Offset) == "" {`, breaks: "order of checks: a duplicate is one whatever its as_of"},
		{name: "R3-touch", in: "applyCreated", old: `p.touch(RunID{e.CollectionID, 1})`, new: ``, breaks: "Outcome.Touched names the new run"},
		{name: "R3-lane", in: "applyCreated", old: `orderingKey: e.OrderingKey, `, new: ``, breaks: "R3: into its lane"},
		{name: "R3-finally", in: "applyCreated", old: ` finally: e.Finally,`, new: ``, breaks: "R3, G9: the finally tasks are remembered"},
		{name: "R3-name", in: "applyCreated", old: ` name: e.Name,`, new: ``, breaks: "R9: finally tasks learn the collection's name"},
		{name: "R3-tenant", in: "applyCreated", old: ` tenant: e.Tenant,`, new: ``, breaks: "the collection is the tenant's"},
		{name: "R3-since", in: "applyCreated", old: `, sinceMS: x.TimeMS}`, new: `}`, breaks: "Next knows since when the first task could start"},
		{name: "R3-shared-tasks", in: "applyCreated", old: `slices.Clone(e.Tasks)`, new: `e.Tasks`, breaks: "a Parsed never changes: folds do not share their counters"},
	})
}

// retries breaks R8.
func retries() []mutant {
	return inFile("ledger/commands.go", []mutant{
		{name: "R8-partition", in: "applyRetry", old: `ok && want != p.index`, new: `ok && want != p.index && false`, breaks: "R8: the lane's partition is recomputed"},
		{name: "R8-partition-key", in: "applyRetry", old: `e.OrderingKey, "", p`, new: `e.OrderingKey, e.IdempotencyKey, p`, breaks: "R8: the retry's idempotency key does not route"},
		{name: "R8-active", in: "judgeRetry", old: `active {`, new: `active && false {`, breaks: "R8: not in A"},
		{name: "R8-ended-at", in: "judgeRetry", old: `ok && at >= e.AsOf {`, new: `ok && at >= e.AsOf && false {`, breaks: "R8: no ended_at ≥ as_of"},
		{name: "R8-ended-at-equal", in: "judgeRetry", old: `at >= e.AsOf`, new: `at > e.AsOf`, breaks: "R8: ended_at = as_of is a change"},
		{name: "R8-ended-at-one-less", in: "judgeRetry", old: `at >= e.AsOf`, new: `at >= e.AsOf-1`, breaks: "R8: ended_at = as_of − 1 has been seen"},
		{name: "R8-ending", in: "judgeRetry", old: `if e.Run <= r.number {`, new: `if false && e.Run <= r.number {`, breaks: "R8: run > every run of it in P"},
		{name: "R8-ending-equal", in: "judgeRetry", old: `e.Run <= r.number`, new: `e.Run < r.number`, breaks: "R8: run > every run of it in P"},
		{name: "R8-as-of", in: "judgeRetry", old: `return p.judgeAsOf(e.AsOf, offset)`, new: `return ""`, breaks: "R8: o − W ≤ as_of"},
		{name: "R8-ahead-first", in: "judgeRetry", old: `if e.AsOf > offset {`, new: `if false {`, breaks: "order of checks: ahead is lost history and comes before all else"},
		{name: "R8-order", in: "judgeRetry", old: "if e.AsOf > offset {\n\t\treturn ReasonAhead", new: "if reason := p.judgeAsOf(e.AsOf, offset); reason != \"\" {\n\t\treturn reason", breaks: "order of checks: active and changed are final, window is decided again"},
		{name: "R8-touch", in: "applyRetry", old: `p.touch(RunID{e.CollectionID, e.Run})`, new: ``, breaks: "Outcome.Touched names the new run"},
		{name: "R8-input", in: "applyRetry", old: ` input: e.Input,`, new: ``, breaks: "R8: the suffix's first task gets the input"},
		{name: "R8-lane", in: "applyRetry", old: `orderingKey: e.OrderingKey, `, new: ``, breaks: "R8: into its lane"},
		{name: "R8-finally", in: "applyRetry", old: ` finally: e.Finally,`, new: ``, breaks: "R8, G9: the finally tasks are remembered"},
		{name: "R8-name", in: "applyRetry", old: ` name: e.Name,`, new: ``, breaks: "R9: finally tasks learn the collection's name"},
		{name: "R8-since", in: "applyRetry", old: `, sinceMS: x.TimeMS}`, new: `}`, breaks: "Next knows since when the first task could start"},
		{name: "R8-shared-tasks", in: "applyRetry", old: `slices.Clone(e.Tasks)`, new: `e.Tasks`, breaks: "a Parsed never changes: folds do not share their counters"},
	})
}

// cancels breaks R7.
func cancels() []mutant {
	return inFile("ledger/commands.go", []mutant{
		{name: "R7-run", in: "applyCancel", old: `r == nil || r.number != e.Run`, new: `r == nil`, breaks: "R7: run equal"},
		{name: "R7-tenant", in: "applyCancel", old: `case r.tenant != e.Tenant:`, new: `case false:`, breaks: "R7: nobody cancels another tenant's collection"},
		{name: "R7-again", in: "applyCancel", old: `case r.canceled:`, new: `case false:`, breaks: "R7: already canceled is a duplicate"},
		{name: "R7-mark", in: "applyCancel", old: `r.canceled = true`, new: ``, breaks: "R7: nothing new starts"},
		{name: "R7-open", in: "applyCancel", old: `case r.isOpen():`, new: `case false:`, breaks: "R7: the open attempt's outcome is still recorded (H22)"},
		{name: "R7-ends-at-once", in: "applyCancel", old: `case r.isOpen():`, new: `case true:`, breaks: "R7: the run ends at once if nothing is open"},
		{name: "R7-waiting", in: "applyCancel", old: `case r.isOpen():`, new: `case r.isOpen() || r.waiting:`, breaks: "R7: a task that waits for its next attempt is not open"},
		{name: "R7-status", in: "applyCancel", old: `StatusCanceled, nil`, new: `StatusFailed, nil`, breaks: "R7: the run is canceled"},
		{name: "R7-touch", in: "applyCancel", old: `p.touch(id)`, new: `_ = id`, breaks: "Outcome.Touched names the run"},
	})
}
