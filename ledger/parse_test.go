package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// The hash of a record is part of the rules: it never changes, whatever its
// size, and nothing of the record is left out.
func TestRecordHash(t *testing.T) {
	t.Parallel()
	r := ledger.Record{Partition: 3, Offset: 258, LeaderEpoch: 9, TimeMS: 1, Key: []byte("key"), Headers: []ledger.Header{{Key: "a", Value: []byte("bc")}, {Key: "d"}}}
	for n := range 5000 {
		r.Value = bytes.Repeat([]byte{'v'}, n)
		require.Equal(t, slowHash(r), ledger.RecordHash(r), "a value of %d bytes", n)
	}
	r.Value = []byte("value")
	h := ledger.RecordHash(r)
	require.Equal(t, "426875b0ce56cf10192ddc7b9bf3d62d19461ca7e809d42878c872ecff5bfa09", hex.EncodeToString(h[:]))
}

// slowHash hashes the parts as the comment of RecordHash has them.
func slowHash(r ledger.Record) [32]byte {
	h := sha256.New()
	number := func(n any) { _ = binary.Write(h, binary.BigEndian, n) }
	part := func(b []byte) {
		number(uint32(len(b)))
		h.Write(b)
	}
	number(r.Offset)
	part(r.Key)
	number(uint32(len(r.Headers)))
	for _, header := range r.Headers {
		part([]byte(header.Key))
		part(header.Value)
	}
	part(r.Value)
	return [32]byte(h.Sum(nil))
}
