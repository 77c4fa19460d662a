package ledger

import (
	"crypto/sha256"
	"encoding/binary"
)

// A Parsed record is a record with all that can be told of it without the
// records before it. It never changes: it may be made on any goroutine and be
// applied to any number of folds.
type Parsed struct {
	Record
	Envelope

	hash [32]byte
	err  error // of Decode
}

// Parse decodes and hashes a record: by far the most of what folding costs.
func Parse(r Record) Parsed {
	env, err := Decode(r)
	return Parsed{Record: r, Envelope: env, hash: RecordHash(r), err: err}
}

// RecordHash is SHA-256 over a record's offset, key, headers and value as they
// stand in the log, every part behind its length.
func RecordHash(r Record) [32]byte {
	n := 8 + 8 + len(r.Key) + len(r.Value) + 4
	for _, h := range r.Headers {
		n += 8 + len(h.Key) + len(h.Value)
	}
	var small [1536]byte // nearly every record fits, and then nothing is allocated
	b := small[:0]
	if n > len(small) {
		b = make([]byte, 0, n)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset)) //nolint:gosec // offsets are not negative
	b = appendPart(b, r.Key)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Headers))) //nolint:gosec // a record has few headers
	for _, h := range r.Headers {
		b = appendPart(b, []byte(h.Key))
		b = appendPart(b, h.Value)
	}
	return sha256.Sum256(appendPart(b, r.Value))
}

func appendPart(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // a record is far below 4 GiB
	return append(b, part...)
}
