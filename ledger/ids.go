package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// MaxPartitions is the largest partition count of a ledger: an id has 12 bits
// for its partition.
const MaxPartitions = 4096

// Kind tells the two lists of tasks of a collection apart. It is part of a
// task's id.
type Kind string

// The kinds of tasks.
const (
	KindTask    Kind = "task"
	KindFinally Kind = "finally"
)

// hashParts is SHA-256 over a sequence of UTF-8 parts, each behind its length
// as uint32 big-endian, so that no two sequences run together.
func hashParts(parts ...string) [sha256.Size]byte {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	buf := make([]byte, 0, n)
	for _, p := range parts {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(p))) //nolint:gosec // parts are short strings, far below 4 GiB
		buf = append(buf, p...)
	}
	return sha256.Sum256(buf)
}

// NewCollectionID returns a UUIDv7 (RFC 9562) whose 12 rand_a bits are the
// partition. partition is in [0, MaxPartitions), at the time of creation, and
// random eight fresh random bytes.
func NewCollectionID(partition int32, at time.Time, random [8]byte) uuid.UUID {
	var id uuid.UUID
	putMillis(&id, at.UnixMilli())
	copy(id[8:], random[:])
	return stamp(id, 7, partition)
}

// KeyedCollectionID returns the UUIDv8 (RFC 9562) of the one collection that
// may exist for an idempotency key within a tenant and ordering key: the 12
// bits behind the version are the partition, the rest is from
// SHA-256(tenant, ordering key, idempotency key).
func KeyedCollectionID(tenant, orderingKey, idempotencyKey string, partition int32) uuid.UUID {
	h := hashParts(tenant, orderingKey, idempotencyKey)
	var id uuid.UUID
	copy(id[:], h[:16])
	return stamp(id, 8, partition)
}

// TaskID returns the UUIDv8 of a task: the time and partition bits of its
// collection's id, the rest from SHA-256(collection id, kind, index). index
// counts from 0 within kind.
func TaskID(collection uuid.UUID, kind Kind, index int) uuid.UUID {
	h := hashParts(collection.String(), string(kind), strconv.Itoa(index))
	var id uuid.UUID
	copy(id[:6], collection[:6])
	copy(id[8:], h[:8])
	return stamp(id, 8, PartitionOf(collection))
}

// PartitionOf returns the partition that an id carries, in [0, MaxPartitions).
// It holds for collection ids and task ids.
func PartitionOf(id uuid.UUID) int32 {
	return int32(id[6]&0x0f)<<8 | int32(id[7])
}

// PartitionFor returns the partition of a collection that has an ordering key
// or an idempotency key, in a ledger of n partitions: SHA-256 of tenant and
// ordering key (without one: idempotency key), first 8 bytes, mod n. With
// neither key any partition will do and ok is false.
func PartitionFor(tenant, orderingKey, idempotencyKey string, n int32) (partition int32, ok bool) {
	key := orderingKey
	if key == "" {
		key = idempotencyKey
	}
	if key == "" || n <= 0 {
		return 0, false
	}
	h := hashParts(tenant, key)
	return int32(binary.BigEndian.Uint64(h[:8]) % uint64(n)), true //nolint:gosec // below n, an int32
}

// CheckID returns an error unless id is a collection id: UUIDv7 or v8 of the
// RFC 9562 variant.
func CheckID(id uuid.UUID) error {
	if v := id.Version(); v != 7 && v != 8 {
		return fmt.Errorf("id %s is a UUID of version %d, want 7 or 8", id, v)
	}
	if id.Variant() != uuid.RFC4122 {
		return fmt.Errorf("id %s is not a UUID of RFC 9562", id)
	}
	return nil
}

func putMillis(id *uuid.UUID, ms int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms)) //nolint:gosec // milliseconds since 1970 are positive
	copy(id[:6], b[2:])
}

func stamp(id uuid.UUID, version byte, partition int32) uuid.UUID {
	id[6] = version<<4 | byte(partition>>8)&0x0f //nolint:gosec // 12 bits of a partition below MaxPartitions
	id[7] = byte(partition)                      //nolint:gosec // the lower 8 of them
	id[8] = id[8]&0x3f | 0x80
	return id
}
