package main

import "slices"

// executors breaks the simulator's model of an executor: what DESIGN §5 asks of
// the real one must matter.
func executors() []mutant {
	starting := inFile("internal/simtest/starting.go", []mutant{
		{name: "exec-holds-handlers-only", in: "process.holds", old: `h != nil && !h.vanished {`, new: `h != nil && h.running {`, breaks: "§5.3: an attempt whose outcome is under way is not lost"},
		{name: "exec-holds-starts", in: "process.holds", old: `return slices.ContainsFunc(`, new: `return false && slices.ContainsFunc(`, breaks: "§5.3: an attempt whose handler is about to start is not lost", equivalent: "starts that were read back get their handlers before anything is proposed; one that waits for its task's earlier handler holds that task's proposals up anyway"},
		{name: "exec-join", in: "startHandler", old: `; h != nil {`, new: `; h != nil && false {`, breaks: "§5.3: no start while the task's earlier handler runs in this process (H6)"},
		{name: "exec-stale-handler", in: "startHandlers", old: ` || !p.fresh()`, new: ``, breaks: "§5.7: no handler starts when nothing was heard for the lease (H2)", seeds: 5_000},
	})
	network := inFile("internal/simtest/network.go", []mutant{
		{name: "exec-start-on-ack", in: "deliverHead", old: "default:\n\t\tf := c.pop()\n\t\te := w.land(f.message)", new: `default:
		f := c.pop()
		e := w.land(f.message)
		if s, ok := f.sender.(*sent); ok && s.kind == sentStart && !s.by.dead && w.oracle.attempts[e.record.Offset] == nil {
			w.oracle.handlerStarts(s.by.worker, &ledger.Attempt{ID: e.record.Offset})
		}`, breaks: "§5.2: a handler starts when its start is read back, never on the ack (H3)"},
	})
	reading := inFile("internal/simtest/reading.go", []mutant{
		{name: "exec-start-after-release", in: "startRead", old: `if o.claim != e.Claim {`, new: `if o.claim != e.Claim && o.releasing != e.Claim {`, breaks: "§5.5: after the decision to release nothing starts that is read back later (F8a)"},
		{name: "exec-foreign-claim", in: "startRead", old: `if e.Worker != p.worker {`, new: `if false {`, breaks: "§5.2: a handler starts for the own worker's starts", equivalent: "R4 accepts a start from its claim's worker only: that the claim is the own one says it already"},
		{name: "exec-outcome-once", in: "readBack", old: `p.outcomeReadBack(s, out)`, new: `p.sendOutcome(s)`, breaks: "§5.4: an outcome that was read back is not sent again"},
		{name: "exec-invalid-outcome", in: "outcomeReadBack", old: `out.Verdict == ledger.Invalid && !s.bare {`, new: `false {`, breaks: "§5.4: an own outcome read back as invalid is followed by a failure without payload (F14)", seeds: 5_000},
		{name: "exec-takeover-once", in: "readBack", old: `o.refused(s, out)`, new: `o.pending = append(o.pending, s)`, breaks: "§5.4: a start that was refused is proposed again if Next still asks"},
	})
	owner := inFile("internal/simtest/owner.go", []mutant{
		{name: "exec-release-running-only", in: "giveBack", old: ` && !h.foreign {`, new: ` && !h.foreign && h.running {`, breaks: "§5.5: running[] lists attempts whose outcome was not read back (F8b, D1)"},
		{name: "exec-release-vanished", in: "giveBack", old: ` && !h.foreign {`, new: ` && !h.foreign && !h.vanished {`, breaks: "§5.5: running[] lists every attempt whose handler was ever started"},
		{name: "exec-release-nothing", in: "giveBack", old: `e.Running = append(e.Running, h.attempt.ID)`, new: ``, breaks: "§5.5: running[] lists attempts whose outcome was not read back"},
		{name: "exec-claim-prev", in: "takeClaim", old: `prev = c.Offset`, new: `prev = min(c.Offset, -1)`, breaks: "§5.1: a claim names the one it replaces"},
		{name: "exec-acts-early", in: "restored", old: `if o.p.reader.fold.Position() < o.from {`, new: `if false {`, breaks: "§5.1: an owner claims when it has folded to a log end learnt since", equivalent: "safe by the claim's compare-and-set: one that is decided on an old fold names an old claim and is refused, and nothing is proposed before the own one is read back"},
		{name: "exec-no-reclaim", in: "advanceClaim", old: `if o.workStands() {`, new: `if false {`, breaks: "§5.1: a fenced owner claims again when work stands untouched (H4)"},
		{name: "exec-reclaim-at-once", in: "workStands", old: `stands = stands || p.w.nowMS-s.sinceMS >= o.patience`, new: `stands = true`, breaks: "§5.1: a fenced owner waits for the lease before it claims again (F18)"},
		{name: "exec-steals", in: "restored", old: `if ok && !c.Released`, new: `if false && ok && !c.Released`, breaks: "§5.1: the claim of a live member of another set is left alone (D8)", equivalent: "safe by the claim's compare-and-set: it interrupts live work, which costs time and breaks no promise"},
		{name: "exec-fenced-silent", in: "claimRead", old: "by another claim\")\n\t\to.giveBack(0)", new: "by another claim\")\n\t\to.claim = -1", breaks: "§5.5: a foreign claim read is followed by a release (F9)", equivalent: "what drains is advice: without a release the next owner waits for the takeover grace instead of the handler's own time, and R5 takes a slow worker's outcome all the same"},
		{name: "exec-fenced-goes-on", in: "claimRead", old: `case o.claim >= 0:`, new: `case false:`, breaks: "§5.5: a foreign claim read: stop starting"},
	})
	process := inFile("internal/simtest/process.go", []mutant{
		{name: "exec-error-drops", in: "appendAgain", old: `if s.retryMS == 0 || `, new: `if s.retryMS == 0 || s.kind == sentOutcome || `, breaks: "§5.4: an error of the producer never clears an outcome (H20)"},
		{name: "exec-error-forgets", in: "appendAgain", old: `s.retryMS = 0`, new: `s.retryMS = 0; if s.kind == sentOutcome { p.forget(s); p.drop(s.holding); return true }`, breaks: "§5.4: an error of the producer never clears an outcome (H20)"},
		{name: "exec-worker-id", in: "startProcess", old: ` + "-" + itoa(w.incarnations)`, new: ``, breaks: "a worker id is new for every process start"},
	})
	handling := inFile("internal/simtest/handling.go", []mutant{
		{name: "exec-deferred-not-held", in: "pend", old: "Worker: a.Worker,\n\t})", new: "Worker: a.Worker,\n\t}); p.drop(h)", breaks: "§5.4: a TaskDeferred is kept like an outcome (D1)", seeds: 3_000},
	})
	return slices.Concat(starting, network, reading, owner, process, handling)
}

// authors breaks the simulator's model of the API: what rests on honest authors
// must be seen to rest on them.
func authors() []mutant {
	const repeat = `a.conn.append(c.message, c)`
	refresh := func(event, asOf string) string {
		return `if env, err := ledger.Decode(ledger.Record{Partition: c.message.Partition, Key: c.message.Key, Value: c.message.Value, Headers: c.message.Headers}); err == nil {
			if e, ok := env.Event.(ledger.` + event + `); ok {
				e.AsOf = ` + asOf + `
				c.message, _ = a.w.mustEncode("api", e)
			}
		}
		` + repeat
	}
	creating := inFile("internal/simtest/api.go", []mutant{
		{name: "api-create-as-of-refreshed", in: "writer.follow", old: repeat, new: refresh("CollectionCreated", `a.w.end()`), breaks: "a repeated append keeps its as_of (F1b)", seeds: 10_000},
		{name: "api-retry-as-of-refreshed", in: "writer.follow", old: repeat, new: refresh("RetryRequested", `a.w.end()`), breaks: "a repeated append keeps its as_of (F1b)", seeds: 3_000},
		{name: "api-keyed-as-of", in: "createKeyed", old: `r.created(id, a.sees.position())`, new: `r.created(id, a.w.end())`, breaks: "a keyed create's as_of is the position of the rows without it", seeds: 6_000},
	})
	retrying := inFile("internal/simtest/api_commands.go", []mutant{
		{name: "api-retry-whole-chain", in: "retryOf", old: `r.suffix()`, new: `0 * r.suffix()`, breaks: "a retry carries the suffix that did not succeed (G6)"},
		{name: "api-retry-input", in: "retryOf", old: `e.Input = r.tasks[first-1].result`, new: ``, breaks: "a retry carries the result before its suffix"},
		{name: "api-retry-attempts", in: "retryOf", old: `t.Attempts = r.tasks[i].attempts`, new: ``, breaks: "a retry carries the attempts so far"},
		{name: "api-retry-as-of", in: "retryOf", old: `AsOf: a.sees.position()`, new: `AsOf: a.w.end()`, breaks: "a retry's as_of is the position of the row it was decided on"},
		{name: "api-retry-run", in: "retryOf", old: `Run: r.run + 1`, new: `Run: r.run + 2`, breaks: "a retry is the last run + 1 (G6)"},
		{name: "api-retry-count", in: "retryOf", old: `TaskCount: len(r.tasks)`, new: `TaskCount: len(r.tasks) + 1`, breaks: "the suffix ends where the chain does"},
	})
	projecting := inFile("internal/simtest/projection.go", []mutant{
		{name: "rows-position-ahead", in: "projection.position", old: `p.reader.fold.Position()`, new: `p.reader.fold.Position() + 30`, breaks: "rows and position are read in one snapshot (H40)", seeds: 10_000},
		{name: "rows-position-one-ahead", in: "projection.position", old: `p.reader.fold.Position()`, new: `p.reader.fold.Position() + 1`, breaks: "rows and position are read in one snapshot (H40)"},
		{name: "rows-result-kept", in: "projection.take", old: `rt.result = t.Result`, new: ``, breaks: "rows have the results"},
		{name: "rows-refused", in: "projection.take", old: `if out.Verdict != ledger.Accepted {`, new: `if false {`, breaks: "a refused record changes no row"},
	})
	return slices.Concat(creating, retrying, projecting)
}
