// Package httpapi takes commands over HTTP and answers reads from the read
// model.
//
// It decides what a request means and refuses, before anything is appended,
// what the ledger would refuse. A request that passes becomes one record; what
// the record means is decided by the fold alone, and the answer waits for that
// verdict as long as the caller wants. Bodies are decoded strictly and args
// reach the ledger byte for byte. Every error is an RFC 9457 problem with a
// stable code, made in problem.go and nowhere else. The package must not know
// Kafka, tables, the projector or the executor.
package httpapi
