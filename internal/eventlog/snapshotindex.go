package eventlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// snapshotFetchBytes is what is fetched of the snapshots topic at once, and so
// the memory for looking through it.
const snapshotFetchBytes = 4 << 20

// errChunkGone reports that a chunk was deleted after the partition was looked
// through: a newer snapshot is there.
var errChunkGone = errors.New("a chunk was deleted while the snapshot was read")

// snapshotIndex is which chunks a partition of the snapshots topic has, without
// their bytes.
type snapshotIndex struct {
	partition int32
	chunks    map[chunkKey]storedChunk
}

type storedChunk struct {
	offset            int64 // of its record in the snapshots topic
	bytes             int
	ledgerID, topicID uuid.UUID // zero where it does not say
}

// storedSnapshot is a snapshot all of whose chunks are there.
type storedSnapshot struct {
	position int64
	hash     [sha256.Size]byte
	chunks   []int64 // the offsets of their records, in order
	bytes    int64
}

func (s *storedSnapshot) ref() SnapshotRef {
	return SnapshotRef{Position: s.position, Bytes: s.bytes}
}

// add notes a record. The last one of a key counts, as it does for compaction.
func (x *snapshotIndex) add(r *kgo.Record) {
	key, ok := parseChunkKey(x.partition, string(r.Key))
	if !ok {
		return
	}
	if r.Value == nil {
		delete(x.chunks, key)
		return
	}
	ledgerID, topicID := chunkHeaders(r)
	x.chunks[key] = storedChunk{offset: r.Offset, bytes: len(r.Value), ledgerID: ledgerID, topicID: topicID}
}

// complete returns the snapshots taken of a topic of which all chunks are there,
// the newest first; of one position, that which was written last.
func (x *snapshotIndex) complete(topicID uuid.UUID) []storedSnapshot {
	var all []storedSnapshot
	for key := range x.chunks {
		if key.index != 0 {
			continue
		}
		if s, ok := x.collect(key, topicID); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b storedSnapshot) int {
		return cmp.Or(cmp.Compare(b.position, a.position), cmp.Compare(slices.Max(b.chunks), slices.Max(a.chunks)))
	})
	return all
}

// collect gathers the chunks of the snapshot that key is the first of.
func (x *snapshotIndex) collect(key chunkKey, topicID uuid.UUID) (storedSnapshot, bool) {
	s := storedSnapshot{position: key.position, hash: key.hash}
	for key.index = 0; key.index < key.n; key.index++ {
		chunk, ok := x.chunks[key]
		if !ok || chunk.topicID != topicID {
			return s, false
		}
		s.chunks = append(s.chunks, chunk.offset)
		s.bytes += int64(chunk.bytes)
	}
	return s, true
}

// below returns the chunks of all snapshots before a position, in order.
func (x *snapshotIndex) below(position int64) []chunkKey {
	var keys []chunkKey
	for key := range x.chunks {
		if key.position < position {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b chunkKey) int {
		return cmp.Or(cmp.Compare(a.position, b.position), bytes.Compare(a.hash[:], b.hash[:]),
			cmp.Compare(a.n, b.n), cmp.Compare(a.index, b.index))
	})
	return keys
}

// indexSnapshots looks through a partition of the snapshots topic, from its
// beginning to its end. When the topic is missing it is made.
func (l *Log) indexSnapshots(ctx context.Context, partition int32) (*snapshotIndex, error) {
	x := &snapshotIndex{partition: partition, chunks: make(map[chunkKey]storedChunk)}
	req := fetchRequest{topic: l.snapshotsTopic, partition: partition, bytes: snapshotFetchBytes}
	for {
		answer, err := l.fetch(ctx, req)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			// The brokers tell each other of it in their time, so whoever asks
			// waits before asking again.
			if failed := l.remakeSnapshots(ctx); failed != nil {
				return nil, failed
			}
			return nil, err
		case errors.Is(err, kerr.OffsetOutOfRange):
			if req.offset > 0 {
				return nil, fmt.Errorf("%w: %w", errNoAnswer, err) // it moves; look again in a moment
			}
			if req.offset, err = l.snapshotsStart(ctx, partition); err != nil {
				return nil, err
			}
			if req.offset == 0 {
				return nil, fmt.Errorf("partition %d of topic %s has no beginning: %w", partition, l.snapshotsTopic, errNoAnswer)
			}
			continue
		case err != nil:
			return nil, err
		}
		for _, r := range answer.records {
			x.add(r)
		}
		// What is written from now on does not matter. An answer that brings
		// nothing is the end, too: compaction may have left nothing before it.
		if answer.next >= answer.end || answer.next == req.offset {
			return x, nil
		}
		req.offset = answer.next
	}
}

// snapshotsStart asks where a partition of the snapshots topic begins.
func (l *Log) snapshotsStart(ctx context.Context, partition int32) (int64, error) {
	starts, err := l.admin.ListStartOffsets(ctx, l.snapshotsTopic)
	if err != nil {
		return 0, err
	}
	start, ok := starts.Lookup(l.snapshotsTopic, partition)
	if !ok {
		return 0, fmt.Errorf("partition %d: %w", partition, errNoAnswer)
	}
	return start.Offset, start.Err
}

// readChunks hands the chunks of a snapshot to use, in order. intact reports
// whether all of them together are what was written.
func (l *Log) readChunks(ctx context.Context, partition int32, s storedSnapshot, use func([]byte)) (intact bool, err error) {
	sum := sha256.New()
	for i, offset := range s.chunks {
		answer, err := l.fetch(ctx, fetchRequest{
			topic: l.snapshotsTopic, partition: partition, offset: offset, bytes: maxChunkBatchBytes,
		})
		if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.OffsetOutOfRange) {
			return false, errChunkGone // the whole topic is
		}
		if err != nil {
			return false, err
		}
		want := chunkKey{position: s.position, hash: s.hash, index: i, n: len(s.chunks)}.text(partition)
		if len(answer.records) == 0 || string(answer.records[0].Key) != want {
			return false, errChunkGone
		}
		sum.Write(answer.records[0].Value)
		use(answer.records[0].Value)
	}
	return [sha256.Size]byte(sum.Sum(nil)) == s.hash, nil
}
