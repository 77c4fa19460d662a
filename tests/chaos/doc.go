// Package chaos tests executors as processes of their own on a real Apache
// Kafka: killed, paused, cut off from their broker, and lied to by a log that
// is no longer the one they read.
//
// The processes are this test's binary, run again. What their handlers do is
// noted by the test itself, which nobody kills. Afterwards the whole ledger is
// judged twice, by ledger.Partition and by a fold of this package that shares
// no code with it, and both are held to the journal.
//
// The package must not know how an executor works inside: it sees records,
// handlers and processes.
package chaos
