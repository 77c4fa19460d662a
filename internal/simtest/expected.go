package simtest

// expected is what ten thousand seeds must have met, each at least once: a
// simulation that never gets into a situation proves nothing about it. Taking a
// line away weakens every zero that the simulation reports.
func expected() []Sight {
	return append(sights(ofTheLedger()), sights(ofTheWorld())...)
}

// ofTheLedger is what the fold must have said.
func ofTheLedger() map[string][]string {
	return map[string][]string{
		"accepted LedgerOpened": {""}, "duplicate LedgerOpened": {""},
		"accepted CollectionCreated":  {""},
		"duplicate CollectionCreated": {""},
		"stale CollectionCreated":     {"window", "ahead"},
		"accepted RetryRequested":     {""},
		"stale RetryRequested":        {"window", "ahead", "active", "changed"},
		"accepted CancelRequested":    {""}, "duplicate CancelRequested": {""}, "stale CancelRequested": {"closed"},
		"accepted PartitionClaimed": {""}, "stale PartitionClaimed": {"claim"},
		"accepted PartitionReleased": {""}, "duplicate PartitionReleased": {""}, "stale PartitionReleased": {"claim"},
		"accepted TaskStarted": {""}, "stale TaskStarted": {"attempt", "claim", "canceled", "closed", "lane", "deferred"},
		"accepted TaskSucceeded": {""}, "stale TaskSucceeded": {"attempt", "closed"},
		"accepted TaskFailed": {""}, "stale TaskFailed": {"attempt", "claim", "closed", "deferred"},
		"accepted TaskDeferred": {""}, "duplicate TaskDeferred": {""}, "stale TaskDeferred": {"attempt", "closed"},
		"duplicate RulesActivated": {""},
		"foreign record":           {""}, "invalid record": {""},
		"invalid CollectionCreated": {""}, "invalid CancelRequested": {""}, "invalid TaskStarted": {""},
		"invalid TaskSucceeded": {""}, "invalid TaskFailed": {""}, "invalid TaskDeferred": {""},
		"run": {"pending", "running", "succeeded", "failed", "canceled"},
		"attempt": {
			"task running", "task succeeded", "task failed", "task superseded", "task not_started", "task deferred",
			"finally running", "finally succeeded", "finally failed", "finally superseded", "finally not_started", "finally deferred",
		},
		"failure": {
			"own unavailable", "own exit", "own panic", "own timeout", "own canceled", "own invalid_result", "own declined",
			"by_claim lost retryable", "by_claim lost", "by_claim interrupted", "by_claim timeout retryable", "by_claim canceled",
			"by_claim of a finally task",
		},
		"release": {
			"of the current claim", "after a newer claim", "leaves an attempt draining", "closes an attempt as not started",
			"ends a canceled run",
		},
		"next": {
			"start task", "start finally", "supersede task", "supersede finally", "fail retryable lost task", "fail retryable lost finally",
			"fail interrupted task", "fail interrupted finally", "fail lost task", "fail lost finally", "fail canceled task", "fail retryable timeout task",
			"fail retryable timeout finally",
		},
	}
}

// ofTheWorld is what everybody must have been through.
func ofTheWorld() map[string][]string {
	return map[string][]string{
		"fault": {
			"append landed, answered with an error", "append landed twice", "append landed and lands again later",
			"append answered with an error, lands later", "append lost", "appends reordered", "a given up append landed",
			"old record landed again", "malformed record", "process killed", "process shut down", "process paused", "process cut off",
			"outage", "session expired", "handler vanished",
		},
		"situation": {
			"superseded task", "superseded finally", "succeeded after a cancel", "finally task failed for good",
			"fenced by another claim", "claim refused", "claimed again because work stood untouched",
			"claim of a live member of another set left alone", "attempt closed by someone else, its handler runs",
			"canceled while its handler runs", "start read back after the claim was given back", "start read back without a free slot",
			"outcome read back as invalid", "outcome came too late", "outcome of a closed attempt sent once",
			"outcome from the outbox of a dead process", "start waits for the task's earlier handler",
			"takeover from a worker that is gone", "next start back to back with the outcome, task",
			"next start back to back with the outcome, finally", "shutdown abandons handlers", "came to rest",
			"finally tasks of two runs at once", "finally tasks beside the next run", "waited in its lane", "adopted an attempt",
			"the tenth loss", "outcome before its TaskDeferred",
		},
		"api": {
			"append repeated with the same event id", "decided again after stale(window)", "keyed create answered from the row",
			"keyed create with another body refused", "keyed create answered 503, the projection is behind",
			"retry answered 503, the projection is behind", "two processes at once", "args amended", "retry of a suffix",
			"second outcome for a deferred attempt",
		},
		"snapshot": {"taken", "restored by a process", "restored by a projection", "probe planted"},
		"careless": {
			"LedgerOpened", "RulesActivated", "CollectionCreated", "RetryRequested", "CancelRequested", "PartitionClaimed",
			"PartitionReleased", "TaskStarted", "TaskSucceeded", "TaskFailed", "TaskDeferred",
		},
		"property": {"touched compared", "accepted records alone"},
	}
}

func sights(lists map[string][]string) []Sight {
	var all []Sight
	for group, names := range lists {
		for _, name := range names {
			all = append(all, Sight{group, name})
		}
	}
	return all
}
