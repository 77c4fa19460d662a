// Package projector keeps the read model up to date with the ledger.
//
// It reads all partitions, folds them like everybody else, and decides when
// what they mean is written and which of several projectors writes: the one
// whose compare-and-set of the checkpoints succeeds. The others stand by. It
// knows neither tables nor executors nor the API.
package projector
