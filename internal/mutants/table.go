package main

import "slices"

// table is all mutants, in the order of the rules.
func table() []mutant {
	return slices.Concat(
		order(), opening(), claims(), creations(), retries(), cancels(),
		starts(), outcomes(), afterOutcomes(), deferrals(), releases(),
		lanes(), ends(), windows(),
		next(), takeovers(), backoffs(), attempts(), startAfters(),
		snapshots(), snapshotsOfRuns(), snapshotsOfTasks(), restores(),
		headers(), decoding(), hot(), gates(), scans(), ids(), limits(), definitions(),
		executors(), authors(),
	)
}
