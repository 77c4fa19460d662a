package ledger

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"unicode/utf8"

	"github.com/google/uuid"
)

// coder writes values behind each other, or reads them back in the same order:
// integers as zigzag varints, text and payloads behind their length. After the
// first error it reads zero values.
type coder struct {
	buf     []byte // written so far, or still to be read
	reading bool
	err     error
	known   map[string]string // short texts read so far, so that equal ones share memory
}

// internBytes is the length up to which equal texts are worth sharing: names,
// types, queues and workers repeat, descriptions and messages hardly.
const internBytes = 64

func (c *coder) int64(v *int64) {
	if !c.reading {
		c.buf = binary.AppendVarint(c.buf, *v)
		return
	}
	n := 0
	if c.err == nil {
		*v, n = binary.Varint(c.buf)
	}
	if n <= 0 {
		*v = 0
		c.fail("ends within a number")
		return
	}
	c.buf = c.buf[n:]
}

func (c *coder) int(v *int) {
	wide := int64(*v)
	c.int64(&wide)
	*v = int(wide)
}

func (c *coder) int32(v *int32) {
	wide := int64(*v)
	c.int64(&wide)
	if wide < math.MinInt32 || wide > math.MaxInt32 {
		wide = 0
		c.fail("has a number beyond 32 bits")
	}
	*v = int32(wide)
}

func (c *coder) bool(v *bool) {
	n := 0
	if *v {
		n = 1
	}
	c.int(&n)
	*v = n == 1
}

// count walks the length of a list. What is read is no more than there are bytes
// left, so that a damaged one cannot ask for more memory than that.
func (c *coder) count(n int) int {
	c.int(&n)
	if c.reading && (n < 0 || n > len(c.buf)) {
		c.fail("names more entries than it has")
		return 0
	}
	return n
}

// take reads n bytes, which are not to be kept.
func (c *coder) take(n int) []byte {
	if c.err != nil || n > len(c.buf) {
		c.fail("ends within a value")
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) fixed(v []byte) {
	if !c.reading {
		c.buf = append(c.buf, v...)
		return
	}
	copy(v, c.take(len(v)))
}

func (c *coder) uuid(v *uuid.UUID)   { c.fixed(v[:]) }
func (c *coder) bytes32(v *[32]byte) { c.fixed(v[:]) }

func (c *coder) text(v *string) {
	n := c.count(len(*v))
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	b := c.take(n)
	if !utf8.Valid(b) {
		c.fail("has a text that is not UTF-8")
	}
	if len(b) > internBytes {
		*v = string(b)
		return
	}
	s, ok := c.known[string(b)]
	if !ok {
		s = string(b)
		c.known[s] = s
	}
	*v = s
}

// payload walks free JSON; none and empty are the same.
func (c *coder) payload(v *json.RawMessage) {
	n := c.count(len(*v))
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = nil
	if n > 0 {
		*v = append(json.RawMessage(nil), c.take(n)...)
	}
}
