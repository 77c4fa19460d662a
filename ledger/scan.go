package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"
)

// maxScanNames bounds the names that a payloadScan remembers, so that they fit
// on the stack and comparing each with all stays cheap.
const maxScanNames = 32

// payloadScan judges a payload by the rules of [CheckPayload] without
// allocating. It is one-sided: what it takes the gate's token walk takes too,
// while it may give up on what that would take, such as an escape in a name.
// It never says why.
type payloadScan struct {
	b     []byte
	i     int                  // all before it was taken
	names [maxScanNames][]byte // of the open objects, the innermost last
	used  int
}

// scanPayload returns the length of the JSON value at the start of b, without
// white space around it, or 0 when the scan does not take it.
func scanPayload(b []byte) int {
	s := payloadScan{b: b}
	if !s.value(0) || s.i > MaxPayloadBytes {
		return 0
	}
	return s.i
}

// passesScan tells whether the whole of p is surely good.
func passesScan(p json.RawMessage) bool {
	s := payloadScan{b: p}
	s.space()
	if !s.value(0) {
		return false
	}
	s.space()
	return s.i == len(p)
}

// value takes the value at i, which has depth containers around it.
func (s *payloadScan) value(depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '{':
		return depth < MaxPayloadDepth && s.object(depth+1)
	case '[':
		return depth < MaxPayloadDepth && s.array(depth+1)
	case '"':
		n, _ := scanString(s.b[s.i:])
		s.i += n
		return n > 0
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *payloadScan) object(depth int) bool {
	s.i++
	s.space()
	if s.take('}') {
		return true
	}
	outer := s.used
	for {
		if !s.name(outer) {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		if !s.value(depth) {
			return false
		}
		s.space()
		if !s.take(',') {
			s.used = outer
			return s.take('}')
		}
		s.space()
	}
}

// name takes a name that the object, whose names begin at outer, does not have
// yet. An escape could spell a name in a second way.
func (s *payloadScan) name(outer int) bool {
	n, escaped := scanString(s.b[s.i:])
	if n == 0 || escaped || s.used == maxScanNames {
		return false
	}
	name := s.b[s.i : s.i+n]
	for _, other := range s.names[outer:s.used] {
		if bytes.Equal(other, name) {
			return false
		}
	}
	s.names[s.used] = name
	s.used++
	s.i += n
	return true
}

func (s *payloadScan) array(depth int) bool {
	s.i++
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		if !s.take(',') {
			return s.take(']')
		}
		s.space()
	}
}

func (s *payloadScan) number() bool {
	start := s.i
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		_ = s.take('+') || s.take('-')
		if !s.digits() {
			return false
		}
	}
	return numberRule(s.b[start:s.i]) == ""
}

func (s *payloadScan) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	return s.i > start
}

func (s *payloadScan) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *payloadScan) take(c byte) bool {
	if s.i == len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	return true
}

func (s *payloadScan) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// scanString returns the length of the JSON string at the start of b with its
// quotes, or 0 unless it is valid UTF-8 without lone surrogates and U+0000, and
// whether anything in it is escaped.
func scanString(b []byte) (n int, escaped bool) {
	if len(b) == 0 || b[0] != '"' {
		return 0, false
	}
	for i := 1; i < len(b); {
		for i+8 <= len(b) && plain8(binary.LittleEndian.Uint64(b[i:])) {
			i += 8
		}
		if i == len(b) {
			break
		}
		size := 1
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			size = scanEscape(b[i:])
		case c < ' ':
			return 0, false
		case c >= utf8.RuneSelf:
			var r rune
			if r, size = utf8.DecodeRune(b[i:]); r == utf8.RuneError && size == 1 {
				return 0, false
			}
		}
		if size == 0 {
			return 0, false
		}
		i += size
	}
	return 0, false
}

// plain8 tells whether eight bytes are all ASCII that stands for itself in a
// JSON string: a look at each would take most of the time that decoding takes.
// Where one is not, subtracting sets the high bit of its byte; it may then
// borrow from the next, which matters no more.
func plain8(w uint64) bool {
	const each, high = 0x0101010101010101, 0x8080808080808080
	return (w|(w-each*' ')|((w^each*'"')-each)|((w^each*'\\')-each))&high == 0
}

// scanEscape returns the length of the escape at the start of b, a surrogate
// pair being one, or 0.
func scanEscape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), b[1]) < 0 {
			return 0
		}
		return 2
	}
	switch r := scanUnit(b); {
	case r <= 0: // none, or U+0000
		return 0
	case r >= 0xdc00 && r < 0xe000: // the second half of a pair
		return 0
	case r >= 0xd800 && r < 0xdc00:
		if low := scanUnit(b[6:]); low < 0xdc00 || low >= 0xe000 {
			return 0
		}
		return 12
	}
	return 6
}

// scanUnit returns the UTF-16 code unit that \uXXXX at the start of b stands
// for, or -1.
func scanUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	unit := 0
	for _, c := range b[2:6] {
		switch {
		case c-'0' <= 9:
			unit = unit<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit = unit<<4 | int(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return unit
}
