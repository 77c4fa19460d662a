package outbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

const (
	formatName    = "keten.outbox"
	formatVersion = 1
	headerBytes   = len(formatName) + 2 + 4

	// frameMark begins every frame. Its first byte is in no UTF-8 text.
	frameMark = "\xffKob"
	headBytes = len(frameMark) + 4 + 4 + 4

	// maxBodyBytes bounds a frame, so that reading a damaged length does not
	// take it for a large one: an event, its key, headers and framing.
	maxBodyBytes = ledger.MaxEventBytes + 64<<10
	mostBytes    = int64(headBytes + maxBodyBytes)
)

// The kinds of frames.
const (
	kindRecord = 1
	kindDrop   = 2
)

// ErrVersion says that the folder was written by another version of Keten, in a
// format that this one does not know. Let that version bring the records to the
// ledger, or use another folder.
var ErrVersion = errors.New("format of the outbox is not known")

func appendHeader(b []byte) []byte {
	from := len(b)
	b = append(b, formatName...)
	b = binary.BigEndian.AppendUint16(b, formatVersion)
	return binary.BigEndian.AppendUint32(b, checksum(b[from:]))
}

// checkHeader reports whether b begins with a header, or an [ErrVersion] when
// that header is whole but not ours.
func checkHeader(b []byte) (bool, error) {
	if len(b) < headerBytes || string(b[:len(formatName)]) != formatName {
		return false, nil
	}
	sum := headerBytes - 4
	if binary.BigEndian.Uint32(b[sum:]) != checksum(b[:sum]) {
		return false, nil
	}
	if v := binary.BigEndian.Uint16(b[len(formatName):]); v != formatVersion {
		return false, fmt.Errorf("%w: it is version %d, this build knows %d", ErrVersion, v, formatVersion)
	}
	return true, nil
}

// recordBytes is how long the frame of a record is.
func recordBytes(m *ledger.Message) int64 {
	n := headBytes + 1 + len(m.EventID) + 4 + blobBytes(m.Key) + blobBytes(m.Value) + uvarintBytes(countOf(m.Headers))
	for _, h := range m.Headers {
		n += uvarintBytes(uint64(len(h.Key))) + len(h.Key) + blobBytes(h.Value)
	}
	return int64(n)
}

const dropBytes = int64(headBytes + 1 + len(uuid.UUID{}))

func appendRecord(b []byte, m *ledger.Message) []byte {
	b, from := beginFrame(b)
	b = append(b, kindRecord)
	b = append(b, m.EventID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(m.Partition)) //nolint:gosec // back again when it is read
	b = appendBlob(b, m.Key)
	b = appendBlob(b, m.Value)
	b = binary.AppendUvarint(b, countOf(m.Headers))
	for _, h := range m.Headers {
		b = binary.AppendUvarint(b, uint64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBlob(b, h.Value)
	}
	return endFrame(b, from)
}

func appendDrop(b []byte, id uuid.UUID) []byte {
	b, from := beginFrame(b)
	b = append(b, kindDrop)
	b = append(b, id[:]...)
	return endFrame(b, from)
}

func beginFrame(b []byte) ([]byte, int) {
	var rest [headBytes - len(frameMark)]byte
	return append(append(b, frameMark...), rest[:]...), len(b)
}

func endFrame(b []byte, from int) []byte {
	head, body := b[from:from+headBytes], b[from+headBytes:]
	binary.BigEndian.PutUint32(head[4:], uint32(len(body))) //nolint:gosec // at most maxBodyBytes
	binary.BigEndian.PutUint32(head[8:], checksum(head[:8]))
	binary.BigEndian.PutUint32(head[12:], checksum(body))
	return b
}

// Slices are written with their length plus one, so that none and an empty one,
// which Kafka tells apart, stay different.

func countOf[T any](s []T) uint64 {
	if s == nil {
		return 0
	}
	return uint64(len(s)) + 1
}

func appendBlob(b, blob []byte) []byte {
	return append(binary.AppendUvarint(b, countOf(blob)), blob...)
}

func blobBytes(blob []byte) int { return uvarintBytes(countOf(blob)) + len(blob) }

func uvarintBytes(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// contents is what was read of a file.
type contents struct {
	entries []*entry // in order, without the dropped ones
	whole   bool     // header and all frames up to end can be read
	end     int64    // behind the last frame that can be read
	damage  Damage
}

// readContents reads a file. The only error is [ErrVersion].
func readContents(b []byte) (contents, error) {
	var c contents
	ours, err := checkHeader(b)
	if err != nil {
		return c, err
	}
	at, end := 0, 0
	if ours {
		at, end = headerBytes, headerBytes
	}
	var found replay
	for at < len(b) {
		f, n := readFrame(b[at:])
		if n == 0 {
			skip := bytes.Index(b[at+1:], []byte(frameMark))
			if skip < 0 {
				break
			}
			at += 1 + skip
			continue
		}
		if at > end {
			c.damage.Places++
			c.damage.Bytes += int64(at - end)
		}
		found.apply(f, int64(n))
		at += n
		end = at
	}
	c.entries = found.left()
	c.end = int64(end)
	c.damage.Torn = int64(len(b) - end)
	c.whole = ours && c.damage.Places == 0
	return c, nil
}

// A replay follows the frames of a file.
type replay struct {
	entries []*entry
	byID    map[uuid.UUID]*entry
}

func (r *replay) apply(f frame, size int64) {
	if f.kind == kindDrop {
		if e := r.byID[f.msg.EventID]; e != nil {
			e.dropped = true
			delete(r.byID, f.msg.EventID)
		}
		return
	}
	if r.byID[f.msg.EventID] != nil {
		return
	}
	if r.byID == nil {
		r.byID = make(map[uuid.UUID]*entry)
	}
	e := &entry{msg: f.msg, bytes: size, state: kept}
	r.byID[f.msg.EventID] = e
	r.entries = append(r.entries, e)
}

func (r *replay) left() []*entry {
	var left []*entry
	for _, e := range r.entries {
		if !e.dropped {
			left = append(left, e)
		}
	}
	return left
}

// A frame is a record, or the event id of one that was dropped.
type frame struct {
	kind byte
	msg  ledger.Message
}

// readFrame reads the frame that b begins with and returns how long it is, or 0
// when there is none that is whole. It shares no bytes with b.
func readFrame(b []byte) (frame, int) {
	if len(b) < headBytes || string(b[:len(frameMark)]) != frameMark || binary.BigEndian.Uint32(b[8:]) != checksum(b[:8]) {
		return frame{}, 0
	}
	n := binary.BigEndian.Uint32(b[4:])
	if n > maxBodyBytes || int(n) > len(b)-headBytes {
		return frame{}, 0
	}
	body := b[headBytes : headBytes+int(n)]
	if binary.BigEndian.Uint32(b[12:]) != checksum(body) {
		return frame{}, 0
	}
	f, ok := readBody(body)
	if !ok {
		return frame{}, 0
	}
	return f, headBytes + int(n)
}

func readBody(body []byte) (frame, bool) {
	r := cursor{rest: body}
	f := frame{kind: r.take(1)[0]}
	copy(f.msg.EventID[:], r.take(len(f.msg.EventID)))
	switch f.kind {
	case kindDrop:
	case kindRecord:
		f.msg.Partition = int32(binary.BigEndian.Uint32(r.take(4))) //nolint:gosec // as it was written
		f.msg.Key, f.msg.Value = r.blob(), r.blob()
		f.msg.Headers = r.headers()
	default:
		return f, false
	}
	return f, !r.short && len(r.rest) == 0
}

// A cursor reads a body. Beyond the end it reads zeros and is short.
type cursor struct {
	rest  []byte
	short bool
}

func (r *cursor) take(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.short = nil, true
		return make([]byte, min(n, len(uuid.UUID{}))) // callers ask for more only of what is there
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// length reads a number that something of that many bytes must follow.
func (r *cursor) length() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > uint64(len(r.rest)) {
		r.rest, r.short = nil, true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *cursor) blob() []byte {
	n := r.length()
	if n == 0 {
		return nil
	}
	return append([]byte{}, r.take(int(n-1))...) //nolint:gosec // no longer than the body
}

func (r *cursor) headers() []ledger.Header {
	n := r.length()
	if n == 0 {
		return nil
	}
	headers := []ledger.Header{}
	for range n - 1 {
		key := string(r.take(int(r.length()))) //nolint:gosec // no longer than the body
		headers = append(headers, ledger.Header{Key: key, Value: r.blob()})
		if r.short {
			break
		}
	}
	return headers
}
