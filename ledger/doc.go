// Package ledger decides what is true about collections of tasks.
//
// A [Partition] is the fold of one partition's records, oldest first, and
// nothing else. Commands ask, executors report; both only append.
// [Partition.Apply], which every reader runs over the same records in the same
// order, has the last word: a record it refuses stays in the log and changes
// nothing, for everyone.
//
// The package is pure: no clock, no context, no goroutine, no I/O and no
// randomness. Times and random bytes are handed in by its callers.
package ledger
