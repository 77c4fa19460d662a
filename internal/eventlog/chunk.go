package eventlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// maxChunkBytes bounds a chunk, so that brokers take it under their default
	// settings and nobody needs much memory for one.
	maxChunkBytes = 512 << 10
	// maxChunkBatchBytes bounds a batch of the snapshots topic, which must take
	// as much (preflight). There is one chunk in a batch.
	maxChunkBatchBytes = maxChunkBytes + batchOverhead
	// maxChunks bounds a snapshot, and with it the memory that a key may ask
	// for.
	maxChunks = 2048
	// maxSnapshotBytes is what maxChunks hold.
	maxSnapshotBytes = maxChunks * maxChunkBytes
)

// The headers of a chunk. They tell whose snapshot it is before it is decoded,
// also to a build that cannot decode it.
const (
	headerLedgerID = "ledger_id"
	headerTopicID  = "topic_id" // of the ledger's topic
)

// A chunkKey is what the key of a chunk's record says, beside the partition. The
// index counts from 0.
type chunkKey struct {
	position int64
	hash     [sha256.Size]byte // of the whole snapshot
	index, n int
}

// text is the record's key: <partition>/<position>/<state hash>/<index>/<n>.
func (k chunkKey) text(partition int32) string {
	return fmt.Sprintf("%d/%d/%x/%d/%d", partition, k.position, k.hash, k.index, k.n)
}

// parseChunkKey reads a record's key. Keys that are written in another way than
// text writes them are somebody else's.
func parseChunkKey(partition int32, text string) (k chunkKey, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 5 {
		return k, false
	}
	position, err := strconv.ParseInt(parts[1], 10, 64)
	index, err2 := strconv.Atoi(parts[3])
	n, err3 := strconv.Atoi(parts[4])
	hash, err4 := hex.DecodeString(parts[2])
	if err != nil || err2 != nil || err3 != nil || err4 != nil || len(hash) != sha256.Size {
		return k, false
	}
	k = chunkKey{position: position, hash: [sha256.Size]byte(hash), index: index, n: n}
	return k, index >= 0 && index < n && n <= maxChunks && k.text(partition) == text
}

// chunkCount is the number of chunks that a snapshot is cut into.
func chunkCount(size int) int { return max(1, (size+maxChunkBytes-1)/maxChunkBytes) }

// cutChunk returns one of the n chunks of a snapshot. What it holds follows from
// the snapshot and n: whoever writes a record with one key writes the same
// bytes, so writers of one snapshot may get in each other's way.
func cutChunk(state []byte, index, n int) []byte {
	size := (len(state) + n - 1) / n
	return state[min(index*size, len(state)):min((index+1)*size, len(state))]
}

// chunkRecord is the record of a chunk; with a nil value it deletes the chunk.
func (l *Log) chunkRecord(partition int32, k chunkKey, value []byte) *kgo.Record {
	r := &kgo.Record{Topic: l.snapshotsTopic, Partition: partition, Key: []byte(k.text(partition)), Value: value}
	if value != nil {
		r.Headers = []kgo.RecordHeader{
			{Key: headerLedgerID, Value: []byte(l.info.LedgerID.String())},
			{Key: headerTopicID, Value: []byte(l.topicID.String())},
		}
	}
	return r
}

// chunkHeaders returns whose snapshot a chunk is part of, zero where it does not
// say.
func chunkHeaders(r *kgo.Record) (ledgerID, topicID uuid.UUID) {
	for _, h := range r.Headers {
		id, err := uuid.ParseBytes(h.Value)
		switch {
		case err != nil:
		case h.Key == headerLedgerID:
			ledgerID = id
		case h.Key == headerTopicID:
			topicID = id
		}
	}
	return ledgerID, topicID
}
