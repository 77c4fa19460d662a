package eventlog

const (
	// maxChunkBytes bounds a chunk, so that brokers take it under their default
	// settings and nobody needs much memory for one.
	maxChunkBytes = 512 << 10
	// maxChunkBatchBytes bounds a batch of the snapshots topic, which must take
	// as much (preflight). There is one chunk in a batch.
	maxChunkBatchBytes = maxChunkBytes + batchOverhead
)
