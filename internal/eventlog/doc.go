// Package eventlog is the ledger's topic in Kafka: it creates and checks the
// topic, opens its partitions, appends records and reads them back. Beside it
// keeps snapshots of the folds, in a topic of their own. It is the only package
// that knows Kafka.
//
// It decides how records travel, never what they mean: an acknowledged append
// is a proposal, and whoever folds the partition decides. The package must not
// know collections, tasks, Postgres or HTTP, nor what is in a snapshot.
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
//
// # Snapshots
//
// The topic <prefix>.snapshots is compacted and has the ledger's partitions. A
// snapshot is the canonical encoding of a fold at one position, cut into chunks
// of at most 512 KiB. Each chunk is a record in the partition it is about:
//
//	key      <partition>/<position>/<state hash>/<i>/<n>
//	headers  ledger_id, topic_id (of the ledger's topic)
//	value    the i-th of n equal pieces, from 0
//
// The state hash is SHA-256 of the whole, in lower-case hex. A snapshot counts
// when all n chunks are there and together have that hash; a key has one value
// only, whoever writes it. So writers need to agree on nothing: they may write at
// the same time, repeat each other, and die at any point. What they leave is torn,
// used by nobody, and deleted by a later writer together with all snapshots
// before the second newest.
//
// A snapshot is a shortcut and a witness. As a shortcut it may be missing, torn,
// damaged or of an unknown codec: then an older one is used, or the partition is
// folded from offset 0, and the topic may be deleted at any time. As a witness
// it says what the log held. A log that ends before a snapshot, or has another
// record before its position, and a topic with snapshots of another ledger, are
// [ErrDataLoss]: no older snapshot is tried, since it would only hide the loss.
package eventlog
