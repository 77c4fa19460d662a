// Package eventlog is the ledger's topic in Kafka: it creates and checks the
// topic, opens its partitions, appends records and reads them back. It is the
// only package that knows Kafka.
//
// It decides how records travel, never what they mean: an acknowledged append
// is a proposal, and whoever folds the partition decides. The package must not
// know collections, tasks, Postgres or HTTP.
//
// # Appending
//
// A record, once taken, is sent until the broker acknowledges it: there is no
// delivery timeout and no limit of retries, because an idempotent producer
// cannot take back what is in flight. Only a refusal that no retry mends ends it
// earlier (no authorization, a deleted topic), or closing. A caller that waits
// no longer ([Log.AppendWait] with a deadline) therefore knows nothing about its
// record, which may land later: [ErrOutcomeUnknown]. Any other error of an
// append means the same, except [ErrOverloaded]: that record was never taken.
// Who must see a record in the log appends it again, with the same event id,
// until it is read back. Records can therefore appear twice, as they can after
// the broker forgot the producer; the fold absorbs that.
//
// # Reading
//
// A [Reader] hands out records in order, each partition from where its owner
// says, and never jumps: history that was lost, replaced or cannot be decoded
// ends the partition with [ErrDataLoss] or [ErrCorrupt], and the other
// partitions go on. A broker that is away is waited for. Offsets are never
// committed; where to start is the owner's knowledge.
package eventlog
