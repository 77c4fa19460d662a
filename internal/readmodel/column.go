package readmodel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// A column is one array parameter in PostgreSQL's binary format, one element
// per row: a batch is written as arrays that the server unnests. It is built
// here by hand because a general encoder spends more time on looking at types
// than the server on storing the values.
type column struct {
	oid   uint32 // of the elements
	n     int
	nulls bool
	buf   []byte // behind room for the header
}

// arrayHeader is: dimensions, has nulls, element type, length, lower bound.
const arrayHeader = 5 * 4

func newColumn(oid uint32, rows int) *column {
	return &column{oid: oid, buf: make([]byte, arrayHeader, arrayHeader+24*rows)}
}

// param returns the encoded array; the column must not be used any more.
func (c *column) param() []byte {
	h := c.buf[:0]
	if c.n == 0 {
		h = binary.BigEndian.AppendUint32(h, 0)
		h = binary.BigEndian.AppendUint32(h, 0)
		binary.BigEndian.AppendUint32(h, c.oid)
		return c.buf[:3*4]
	}
	h = binary.BigEndian.AppendUint32(h, 1)
	if c.nulls {
		h = binary.BigEndian.AppendUint32(h, 1)
	} else {
		h = binary.BigEndian.AppendUint32(h, 0)
	}
	h = binary.BigEndian.AppendUint32(h, c.oid)
	h = binary.BigEndian.AppendUint32(h, uint32(c.n)) //nolint:gosec // a batch is bounded
	binary.BigEndian.AppendUint32(h, 1)
	return c.buf
}

func (c *column) size(n int) {
	c.n++
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n)) //nolint:gosec // a value is far below 2 GiB
}

func (c *column) null() {
	c.nulls = true
	c.n++
	c.buf = binary.BigEndian.AppendUint32(c.buf, 1<<32-1)
}

func (c *column) uuid(v uuid.UUID) {
	c.size(len(v))
	c.buf = append(c.buf, v[:]...)
}

// uuidOrNull stores null for the nil UUID.
func (c *column) uuidOrNull(v uuid.UUID) {
	if v == uuid.Nil {
		c.null()
		return
	}
	c.uuid(v)
}

func (c *column) int4(v int) {
	c.size(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(v)) //nolint:gosec // the ledger's limits are below
}

// int4OrNull stores null for a negative number.
func (c *column) int4OrNull(v int) {
	if v < 0 {
		c.null()
		return
	}
	c.int4(v)
}

func (c *column) int8(v int64) {
	c.size(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(v)) //nolint:gosec // two's complement is the format
}

func (c *column) bool(v bool) { //nolint:revive // v is the value, not a control flag
	c.size(1)
	if v {
		c.buf = append(c.buf, 1)
		return
	}
	c.buf = append(c.buf, 0)
}

// postgresEpochMS is 2000-01-01 in Unix milliseconds, from where PostgreSQL
// counts its microseconds.
const postgresEpochMS = 946_684_800_000

func (c *column) time(ms int64) { c.int8((ms - postgresEpochMS) * 1000) }

// timeOrNull stores null for 0.
func (c *column) timeOrNull(ms int64) {
	if ms == 0 {
		c.null()
		return
	}
	c.time(ms)
}

// text stores what PostgreSQL would refuse as U+FFFD. The ledger's gate keeps
// such strings out of accepted events, not out of the headers and names of
// invalid ones.
func (c *column) text(s string) {
	s = cleanText(s)
	c.size(len(s))
	c.buf = append(c.buf, s...)
}

// textOrNull stores null for "".
func (c *column) textOrNull(s string) {
	if s == "" {
		c.null()
		return
	}
	c.text(s)
}

func (c *column) bytes(b []byte) {
	if b == nil {
		c.null()
		return
	}
	c.size(len(b))
	c.buf = append(c.buf, b...)
}

// json stores null for an empty payload.
func (c *column) json(v json.RawMessage) {
	if len(v) == 0 {
		c.null()
		return
	}
	v = cleanJSON(v)
	c.size(1 + len(v))
	c.buf = append(c.buf, 1) // jsonb's version
	c.buf = append(c.buf, v...)
}

// payload stores args or a result in a column of type json, which keeps the
// text: jsonb prints numbers and spaces its own way, so that what a retry
// carries would not be what was asked for, and could be too long for the
// ledger.
func (c *column) payload(v json.RawMessage) {
	if len(v) == 0 {
		c.null()
		return
	}
	v = cleanJSON(v)
	c.size(len(v))
	c.buf = append(c.buf, v...)
}

func cleanText(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// cleanJSON writes U+FFFD where valid JSON says U+0000, which jsonb refuses.
func cleanJSON(v []byte) []byte {
	escape := []byte(`\u0000`)
	if !bytes.Contains(v, escape) {
		return v
	}
	v = bytes.Clone(v)
	for i := 0; i+len(escape) <= len(v); i++ {
		if v[i] != '\\' {
			continue
		}
		if bytes.HasPrefix(v[i:], escape) {
			copy(v[i:], `\ufffd`)
		}
		i++ // whatever is escaped, a backslash too
	}
	return v
}

// The element types of the columns.
const (
	oidUUID  = pgtype.UUIDOID
	oidText  = pgtype.TextOID
	oidInt4  = pgtype.Int4OID
	oidInt8  = pgtype.Int8OID
	oidBool  = pgtype.BoolOID
	oidTime  = pgtype.TimestamptzOID
	oidJSON  = pgtype.JSONBOID
	oidBytea = pgtype.ByteaOID

	oidPayload = pgtype.JSONOID
)
