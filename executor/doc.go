// Package executor owns partitions of the ledger and runs the handlers of their
// tasks.
//
// Processes that serve the same queues form one Kafka consumer group. Its
// assignment only suggests who should own a partition; the claim in the log
// decides. Per partition one goroutine, the owner, folds the records with
// [ledger.Partition], asks it what should be appended next and appends it. The
// owner waits for nothing: handlers run beside it, appends end in callbacks.
//
// A handler is started for an accepted TaskStarted only, once that record was
// read back, and at most once per attempt. What it returns is appended as the
// attempt's outcome and kept until it, too, was read back; while the brokers are
// away it waits on the disk. The outcome of a task and the start of the next one
// are appended together, so a task costs one awaited round trip.
//
// An owner has a tenure per queue that its process serves: the claim it acts
// under. When it loses the partition, or its process ends, it gives its claims
// back and says which handlers still run; they finish, and whoever owns the
// partition then leaves them alone.
//
// # What handlers can rely on
//
// A handler's context ends when the task's timeout is over, when the run is
// canceled, when another owner has taken the attempt over, and at the end of the
// grace period of a shutdown; [context.Cause] tells which. A handler that does
// not heed its context keeps its attempt and its slot until it returns: only
// then is the timeout reported, because the same task must not run twice in one
// process.
//
// A task may run more than once: a process can die between a side effect and
// the record of it. Task id (the same in every attempt and after every retry)
// and fence (it grows with every attempt of a partition) are there to be handed
// to the systems that a handler calls.
//
// # What the package must not know
//
// Postgres, HTTP, the catalog, and what a task's type means.
package executor
