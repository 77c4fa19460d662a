package simtest

import (
	"bytes"

	"github.com/keten-ledger/keten/ledger"
)

// foreign puts a record into the topic that is none of ours.
func (w *world) foreign() {
	m := ledger.Message{Partition: w.index, Key: []byte("key"), Value: w.noise()}
	if w.dice.chance(50) {
		m.Headers = []ledger.Header{{Key: ledger.HeaderType, Value: []byte("com.example.order.placed")}, {Key: ledger.HeaderID, Value: []byte("7")}}
	}
	w.note("stranger", "writes", int64(len(m.Value)))
	w.land(m)
}

func (w *world) noise() []byte {
	b := make([]byte, w.dice.between(0, 40))
	for i := range b {
		b[i] = byte(w.dice.between(0, 255)) //nolint:gosec // a byte
	}
	return b
}

// malformed damages a record that was in the log.
func (w *world) malformed() {
	old := oneOf(w.dice, w.log)
	if old.parsed.Event == nil {
		return
	}
	r := old.record
	m := ledger.Message{Partition: w.index, Key: r.Key, Value: bytes.Clone(r.Value)}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, ledger.Header{Key: h.Key, Value: h.Value})
	}
	switch w.dice.between(0, 6) {
	case 0:
		m.Value = m.Value[:len(m.Value)/2]
	case 1:
		m.Value = append(m.Value[:len(m.Value)-1], `,"unknown":1}`...)
	case 2:
		m.Key = []byte("wrong")
	case 3:
		m.Headers = append(m.Headers, ledger.Header{Key: ledger.HeaderType, Value: []byte("keten.v1.TaskStarted")})
	case 4:
		m.Headers = without(m.Headers, ledger.HeaderID)
	case 5:
		m.Value = append(m.Value, ' ', '{', '}')
	default:
		m.Value = w.noise()
	}
	w.note("stranger", "damages", r.Offset)
	w.saw("fault", "malformed record")
	w.land(m)
}

func without(hs []ledger.Header, key string) []ledger.Header {
	var kept []ledger.Header
	for _, h := range hs {
		if h.Key != key {
			kept = append(kept, h)
		}
	}
	return kept
}

// replay appends an old record again: producers leave such duplicates, however
// late.
func (w *world) replay() {
	old := oneOf(w.dice, w.log)
	r := old.record
	w.note("network", "replays", r.Offset)
	w.saw("fault", "old record landed again")
	w.land(ledger.Message{Partition: w.index, Key: r.Key, Value: r.Value, Headers: r.Headers})
}
