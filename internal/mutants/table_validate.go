package main

// limits breaks the limits of events, one of each kind.
func limits() []mutant {
	list := inFile("ledger/validate.go", []mutant{
		{name: "limit-event", in: "checkEvent", old: `if len(value) > MaxEventBytes {`, new: `if false {`, breaks: "one event ≤ 768 KiB (H33)"},
		{name: "limit-definitions", in: "checkDefinitionSize", old: `n > MaxDefinitionBytes {`, new: `n > MaxDefinitionBytes && false {`, breaks: "definitions ≤ 448 KiB (F13)"},
		{name: "limit-definitions-retry", in: "checkRetry", old: `return checkDefinitionSize(value)`, new: `return nil`, breaks: "definitions ≤ 448 KiB, also of a retry (F13)"},
		{name: "limit-definitions-created", in: "checkCreated", old: `return checkDefinitionSize(value)`, new: `return nil`, breaks: "definitions ≤ 448 KiB (F13)"},
		{name: "limit-opened-id", in: "checkOpened", old: `if e.LedgerID == uuid.Nil {`, new: `if false {`, breaks: "a ledger has an id"},
		{name: "limit-partitions", in: "checkOpened", old: `within("/partitions", int64(e.Partitions), 1, MaxPartitions)`, new: `within("/partitions", int64(e.Partitions), 1, MaxPartitions+1)`, breaks: "at most 4096 partitions"},
		{name: "limit-window", in: "checkOpened", old: `within("/window", e.Window, 1, 1<<40)`, new: `within("/window", e.Window, -1, 1<<40)`, breaks: "W ≥ 1"},
		{name: "limit-window-most", in: "checkOpened", old: `1<<40)`, new: `1<<62)`, breaks: "W is bounded, so that no difference overflows"},
		{name: "limit-prev", in: "checkEvent", old: `atLeast("/prev", e.Prev, -1)`, new: `atLeast("/prev", e.Prev, -2)`, breaks: "prev ≥ −1"},
		{name: "limit-grace", in: "checkReleased", old: `within("/grace_ms", e.GraceMS, 0, MaxTimeoutMS)`, new: `within("/grace_ms", e.GraceMS, -1, MaxTimeoutMS)`, breaks: "grace_ms is a duration"},
		{name: "limit-attempt", in: "checkStarted", old: `within("/attempt", int64(e.Attempt), 1, MaxCount)`, new: `within("/attempt", int64(e.Attempt), 0, MaxCount)`, breaks: "attempts count from 1"},
		{name: "limit-retry-run", in: "checkRetry", old: `within("/run", int64(e.Run), 2, MaxCount)`, new: `within("/run", int64(e.Run), 1, MaxCount)`, breaks: "a retry is run 2 or later"},
		{name: "limit-as-of", in: "checkCreated", old: "\n\t\tatLeast(\"/as_of\", e.AsOf, 0),", new: ``, breaks: "R3: as_of ≥ 0, −2⁶³ is no position"},
		{name: "limit-as-of-retry", in: "checkRetry", old: "\n\t\tatLeast(\"/as_of\", e.AsOf, 0),", new: ``, breaks: "R8: as_of ≥ 0, −2⁶³ is no position"},
		{name: "limit-running", in: "checkReleased", old: `atLeast("/running/"+strconv.Itoa(i), id, 0)`, new: `atLeast("/running/"+strconv.Itoa(i), id, -1)`, breaks: "running[] names offsets"},
		{name: "limit-run", in: "checkTaskEvent", old: `within("/run", int64(run), 1, MaxCount)`, new: `within("/run", int64(run), 0, MaxCount)`, breaks: "runs count from 1"},
		{name: "limit-retry-after", in: "checkFailed", old: `within("/retry_after_ms", e.RetryAfterMS, 0, MaxBackoffMS)`, new: `within("/retry_after_ms", e.RetryAfterMS, -1, MaxBackoffMS+1)`, breaks: "retry_after_ms is 0 to 24 h"},
		{name: "limit-audience", in: "checkFailed", old: `a != AudienceUser && a != AudienceOperator`, new: `false`, breaks: "audience is user or operator"},
		{name: "limit-by-claim", in: "checkFailed", old: `atLeast("/by_claim", *e.ByClaim, 0)`, new: `atLeast("/by_claim", *e.ByClaim, -1)`, breaks: "by_claim is an offset"},
		{name: "limit-detail", in: "checkFailed", old: `e.Error.Detail, MaxDetailBytes)`, new: `e.Error.Detail, MaxDetailBytes+1)`, breaks: "detail ≤ 64 KiB"},
		{name: "limit-message", in: "checkSucceeded", old: `e.Message, MaxMessageBytes)`, new: `e.Message, MaxMessageBytes+1)`, breaks: "message ≤ 4 KiB"},
		{name: "limit-reason", in: "checkRetry", old: `e.Reason, MaxMessageBytes)`, new: `e.Reason, MaxMessageBytes+1)`, breaks: "reason ≤ 4 KiB"},
		{name: "limit-worker", in: "checkTaskEvent", old: `, checkName("/worker", worker, MaxKeyBytes)`, new: ``, breaks: "a worker has a name"},
		{name: "limit-tenant", in: "checkCreated", old: "\n\t\tcheckName(\"/tenant\", e.Tenant, MaxKeyBytes),", new: ``, breaks: "a collection has a tenant"},
		{name: "limit-actor", in: "checkCancel", old: "\n\t\tcheckActor(e.Actor),", new: ``, breaks: "the actor is text"},
		{name: "limit-hash", in: "checkHash", old: `len(h) != 64 || `, new: ``, breaks: "request_hash is SHA-256"},
		{name: "limit-hash-case", in: "checkHash", old: `"0123456789abcdef"`, new: `"0123456789abcdefABCDEF"`, breaks: "request_hash is in lower case"},
	})
	return append(list, inFile("ledger/limits.go", []mutant{
		{name: "limit-text", in: "CheckText", old: `case len(s) > limit:`, new: `case len(s) > limit+1:`, breaks: "text has a limit"},
		{name: "limit-text-utf8", in: "CheckText", old: `case !utf8.ValidString(s):`, new: `case false:`, breaks: "text is valid UTF-8"},
		{name: "limit-text-nul", in: "CheckText", old: `strings.IndexByte(s, 0) >= 0`, new: `strings.IndexByte(s, 0) > 0`, breaks: "text has no U+0000"},
		{name: "limit-labels", in: "CheckLabels", old: `if len(labels) > MaxLabels {`, new: `if len(labels) > MaxLabels+1 {`, breaks: "32 labels"},
		{name: "limit-label-key", in: "CheckLabels", old: `checkName(path, k, MaxLabelKeyBytes)`, new: `checkName(path, k, MaxLabelKeyBytes+1)`, breaks: "label keys ≤ 63"},
		{name: "limit-label-value", in: "CheckLabels", old: `CheckText(path, v, MaxLabelValueBytes)`, new: `CheckText(path, v, MaxLabelValueBytes+1)`, breaks: "label values ≤ 256"},
		{name: "limit-label-order", in: "CheckLabels", old: `(worst == nil || k < worstKey)`, new: `(worst == nil || k < worstKey && false)`, breaks: "G2: a reason does not depend on a map's order"},
		{name: "limit-definitions-finally", in: "definitionBytes", old: ` || name.String() == "finally"`, new: ``, breaks: "definitions are tasks and finally"},
		{name: "limit-reason-bytes", in: "tame", old: `if len(s) > maxReasonBytes {`, new: `if false {`, breaks: "what the fold says about a record is short"},
		{name: "limit-reason-ascii", in: "tame", old: `return r < ' ' || r > '~' }) < 0 {`, new: `return r < ' ' }) < 0 {`, breaks: "what the fold says about a record is in ASCII"},
	})...)
}

// definitions breaks the checks of tasks.
func definitions() []mutant {
	return inFile("ledger/validate.go", []mutant{
		{name: "task-count", in: "checkTasks", old: `n < 1 || to > MaxTasks`, new: `n < 1 || to > MaxTasks+1`, breaks: "1 to 200 tasks"},
		{name: "task-none", in: "checkTasks", old: `n < 1 || to > MaxTasks`, new: `n < 0 || to > MaxTasks`, breaks: "at least one task (F6)"},
		{name: "task-index", in: "checkTasks", old: `if t.Index != from+i {`, new: `if false {`, breaks: "tasks are consecutive (F6)"},
		{name: "task-name-twice", in: "checkTasks", old: `if names[t.Name] {`, new: `if false {`, breaks: "names are unique in the chain"},
		{name: "task-check", in: "checkTasks", old: `if err := checkTask(t); err != nil {`, new: `if err := checkTask(t); err != nil && false {`, breaks: "definitions are checked"},
		{name: "task-finally", in: "checkFinally", old: `checkTasks("/finally", id, KindFinally, tasks, 0, len(tasks))`, new: `nil`, breaks: "finally definitions are checked"},
		{name: "task-finally-kind", in: "checkFinally", old: `KindFinally`, new: `KindTask`, breaks: "finally tasks have ids of their own kind"},
		{name: "task-finally-attempts", in: "checkFinally", old: "\n\t\tcheckUnstarted(\"/finally\", tasks),", new: ``, breaks: "attempts of finally tasks are 0"},
		{name: "task-attempts", in: "checkCreated", old: "\n\t\tcheckUnstarted(\"/tasks\", e.Tasks),", new: ``, breaks: "attempts are 0 in a creation"},
		{name: "task-fail-attempts", in: "checkTask", old: `if t.MaxAttempts != 1 {`, new: `if false {`, breaks: "on_interrupt fail requires max_attempts 1 (F7)"},
		{name: "task-interrupt", in: "checkTask", old: `return invalid("/on_interrupt", "is %.32q, want restart or fail", t.OnInterrupt)`, new: `return nil`, breaks: "on_interrupt is restart or fail"},
		{name: "task-max-attempts", in: "checkTask", old: `int64(t.MaxAttempts), 1, MaxAttempts)`, new: `int64(t.MaxAttempts), 0, MaxAttempts+1)`, breaks: "max_attempts is 1 to 1,000"},
		{name: "task-timeout", in: "checkTask", old: `t.TimeoutMS, 1, MaxTimeoutMS)`, new: `t.TimeoutMS, 0, MaxTimeoutMS)`, breaks: "timeout_ms is always set (F10)"},
		{name: "task-timeout-most", in: "checkTask", old: `t.TimeoutMS, 1, MaxTimeoutMS)`, new: `t.TimeoutMS, 1, MaxTimeoutMS+1)`, breaks: "timeout_ms ≤ 24 h"},
		{name: "task-multiplier", in: "checkTask", old: `t.Backoff.Multiplier, 1, MaxMultiplier)`, new: `t.Backoff.Multiplier, 0, MaxMultiplier+1)`, breaks: "the multiplier is 1 to 100"},
		{name: "task-backoff-max", in: "checkTask", old: `t.Backoff.MaxMS, t.Backoff.InitialMS, MaxBackoffMS)`, new: `t.Backoff.MaxMS, 0, MaxBackoffMS)`, breaks: "the back-off's max is at least its initial"},
		{name: "task-queue", in: "checkTask", old: "\n\t\tcheckName(\"/queue\", t.Queue, MaxKeyBytes),", new: ``, breaks: "a task has a queue"},
		{name: "suffix-empty", in: "checkSuffix", old: `len(e.Tasks) == 0 || `, new: ``, breaks: "R8: a suffix of ≥ 1 task (F6)"},
		{name: "suffix-longer", in: "checkSuffix", old: ` || len(e.Tasks) > e.TaskCount`, new: ``, breaks: "R8: a suffix is no longer than the chain"},
		{name: "suffix-end", in: "checkSuffix", old: `e.TaskCount-len(e.Tasks), e.TaskCount)`, new: `e.Tasks[0].Index, e.Tasks[0].Index+len(e.Tasks))`, breaks: "R8: consecutive up to task_count (D9)"},
		{name: "suffix-count", in: "checkSuffix", old: `within("/task_count", int64(e.TaskCount), 1, MaxTasks)`, new: `within("/task_count", int64(e.TaskCount), 1, MaxTasks+1)`, breaks: "R8: task_count is 1 to 200"},
		{name: "suffix-amended", in: "checkSuffix", old: `case !slices.ContainsFunc(e.Tasks, func(t Task) bool { return t.ID == id }):`, new: `case false:`, breaks: "R8: amended names tasks of the suffix"},
		{name: "suffix-amended-twice", in: "checkSuffix", old: `case slices.Contains(e.Amended[:i], id):`, new: `case false:`, breaks: "R8: amended names each task once"},
		{name: "suffix-tasks", in: "checkRetry", old: "\n\t\tcheckSuffix(e),", new: ``, breaks: "R8: the suffix is checked"},
	})
}
