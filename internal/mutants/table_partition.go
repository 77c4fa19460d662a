package main

// order breaks what holds for every record, whatever its rule.
func order() []mutant {
	return inFile("ledger/partition.go", []mutant{
		{name: "order-offset", in: "ApplyParsed", old: `x.Offset < p.position || `, new: ``, breaks: "records are applied in the order of their offsets"},
		{name: "order-partition", in: "ApplyParsed", old: ` || x.Partition != p.index`, new: ``, breaks: "a fold is of one partition"},
		{name: "order-last-offset", in: "ApplyParsed", old: ` || x.Offset == math.MaxInt64`, new: ``, breaks: "the position never moves back"},
		{name: "order-unknown-type", in: "ApplyParsed", old: `errors.Is(x.err, ErrUnknownType)`, new: `false`, breaks: "an unknown type stops the reader"},
		{name: "order-foreign", in: "ApplyParsed", old: `errors.Is(x.err, ErrForeign)`, new: `false`, breaks: "a record without a keten type is foreign"},
		{name: "order-chain", in: "advance", old: `copy(link[:32], p.chain[:])`, new: ``, breaks: "the chain hash is over all records"},
		{name: "order-chain-record", in: "advance", old: `copy(link[32:], x.hash[:])`, new: ``, breaks: "the chain hash is over all records"},
		{name: "order-last-hash", in: "advance", old: `p.last, p.chain = x.hash,`, new: `_, p.chain = x.hash,`, breaks: "the state has the last record's hash"},
		{name: "order-epoch", in: "advance", old: `p.epoch = x.LeaderEpoch`, new: ``, breaks: "the state has the last record's leader epoch"},
		{name: "order-evict-accepted-only", in: "advance", old: `if p.opened {`, new: `if p.opened && p.out.Verdict == Accepted {`, breaks: "Win drops what is old after every record, also a refused one"},
		{name: "order-stale-outcome", in: "begin", old: `o.Runs[:0]`, new: `o.Runs`, breaks: "an outcome is of one record"},
	})
}

// opening breaks R1 and R1b.
func opening() []mutant {
	return inFile("ledger/partition.go", []mutant{
		{name: "R1-not-opened", in: "judge", old: `if !p.opened {`, new: `if false {`, breaks: "R1: until it is opened every other record is refused"},
		{name: "R1-twice", in: "applyOpened", old: `case p.opened:`, new: `case p.opened && e.Window == p.window:`, breaks: "R1: the first LedgerOpened counts, others are duplicates"},
		{name: "R1-newer-rules", in: "applyOpened", old: `e.Rules > Rules:`, new: `e.Rules > Rules+1:`, breaks: "R1: unknown rules stop the reader"},
		{name: "R1-older-rules", in: "applyOpened", old: `case e.Rules < Rules:`, new: `case false:`, breaks: "R1: draft rules stop the reader"},
		{name: "R1-window", in: "applyOpened", old: `e.Partitions, e.Window, e.Rules`, new: `e.Partitions, 65_536, e.Rules`, breaks: "R1: W is the genesis'"},
		{name: "R1-partitions", in: "applyOpened", old: `e.LedgerID, e.Partitions,`, new: `e.LedgerID, 1,`, breaks: "R1: N is the genesis'"},
		{name: "R1-ledger-id", in: "applyOpened", old: `true, e.LedgerID,`, new: `true, p.ledgerID,`, breaks: "R1: the ledger id is the genesis'"},
		{name: "R1b-halt", in: "applyRules", old: `if e.Rules > p.rules {`, new: `if e.Rules > p.rules+1 {`, breaks: "R1b: rules that this build does not know stop the reader"},
		{name: "R1b-lower", in: "applyRules", old: `p.refuse(Duplicate, "")`, new: ``, breaks: "R1b: an activation at or below the rules in force is a duplicate"},
	})
}

// claims breaks R2 and what it means to hold a claim.
func claims() []mutant {
	return inFile("ledger/partition.go", []mutant{
		{name: "R2-prev", in: "applyClaimed", old: `case e.Prev != prev:`, new: `case false && e.Prev != prev:`, breaks: "R2: a claim is a compare-and-set (H4)"},
		{name: "R2-prev-newer", in: "applyClaimed", old: `case e.Prev != prev:`, new: `case e.Prev < prev:`, breaks: "R2: prev is the claim's offset, nothing later"},
		{name: "R2-prev-older", in: "applyClaimed", old: `case e.Prev != prev:`, new: `case e.Prev > prev:`, breaks: "R2: prev is the claim's offset, nothing earlier"},
		{name: "R2-prev-released", in: "applyClaimed", old: "if ok {\n\t\tprev", new: "if ok && !current.Released {\n\t\tprev", breaks: "R11: the next claim names the released one as prev"},
		{name: "R2-queues", in: "applyClaimed", old: `case !ok && len(p.claims) >= MaxQueues:`, new: `case false:`, breaks: "R2: not a 65th queue"},
		{name: "R2-queues-off-by-one", in: "applyClaimed", old: `>= MaxQueues`, new: `> MaxQueues`, breaks: "R2: not a 65th queue"},
		{name: "R2-queues-known", in: "applyClaimed", old: `case !ok && len`, new: `case len`, breaks: "R2: with 64 queues claimed each may be claimed again"},
		{name: "R2-order", in: "applyClaimed", old: `>= MaxQueues:`, new: `>= MaxQueues && e.Prev == prev:`, breaks: "order of checks: invalid comes before stale"},
		{name: "R2-released", in: "applyClaimed", old: `Worker: e.Worker}`, new: `Worker: e.Worker, Released: current.Released}`, breaks: "R2: a new claim is not released"},
		{name: "claim-offset", in: "holdsClaim", old: ` && c.Offset == offset`, new: ``, breaks: "R4, R5: the claim is the queue's current one"},
		{name: "claim-worker", in: "holdsClaim", old: ` && c.Worker == worker`, new: ``, breaks: "R4, R5: the worker is the claim's"},
		{name: "claim-released", in: "holdsClaim", old: ` && !c.Released`, new: ``, breaks: "R4, R5, R11: nothing happens under a released claim (F8)"},
	})
}

// windows breaks what is remembered of ended runs: the edges of the window.
func windows() []mutant {
	list := inFile("ledger/partition.go", []mutant{
		{name: "window-evict-early", in: "advance", old: `p.win.evict(p.position - p.window)`, new: `p.win.evict(p.position - p.window + 1)`, breaks: "Win keeps ended_at ≥ position − W"},
		{name: "window-evict-late", in: "advance", old: `p.win.evict(p.position - p.window)`, new: `p.win.evict(p.position - p.window - 1)`, breaks: "Win drops ended_at < position − W"},
	})
	return append(list, inFile("ledger/window.go", []mutant{
		{name: "window-ended-again", in: "evict", old: `if w.at[e.id] == e.at {`, new: `if true {`, breaks: "Win: a collection that ended again keeps its newer entry"},
		{name: "window-compaction", in: "evict", old: `w.head = 0`, new: ``, breaks: "Win forgets nothing when it makes room"},
		{name: "window-compaction-shift", in: "evict", old: `w.order[w.head:]...)`, new: `w.order[w.head+1:]...)`, breaks: "Win forgets nothing when it makes room"},
		{name: "window-no-compaction", in: "evict", old: `w.head > len(w.order)/2`, new: `false`, breaks: "what is remembered is bounded by W"},
	})...)
}
