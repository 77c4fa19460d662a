package simtest

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// An entry is one record of the log, parsed once, with what the first fold said.
type entry struct {
	record ledger.Record
	parsed ledger.Parsed
	saved  saved
}

// A reader is a fold somewhere in the log.
type reader struct {
	fold *ledger.Partition
	next int // index into the log of the record to come
}

// end is the log's end as a broker tells it: the next offset.
func (w *world) end() int64 {
	if len(w.log) == 0 {
		return 0
	}
	return w.log[len(w.log)-1].record.Offset + 1
}

// land puts a record at the end of the log. The reference fold and the oracle
// judge it at once: what they say is what every other reader will come to.
func (w *world) land(m ledger.Message) *entry {
	offset := w.end()
	if w.dice.chance(1) {
		offset += int64(w.dice.between(1, 3)) // Kafka promises ascending offsets, not dense ones
	}
	e := &entry{record: ledger.Record{
		Partition: w.index, Offset: offset, LeaderEpoch: w.epoch, TimeMS: w.nowMS + w.skewMS,
		Key: m.Key, Value: m.Value, Headers: m.Headers,
	}}
	e.parsed = ledger.Parse(e.record)
	w.beforeRecord()
	out, err := w.reference.fold.ApplyParsed(&e.parsed)
	if err != nil {
		w.violated("TOTAL", "the fold stops at offset %d: %v", offset, err)
		return e
	}
	e.saved = save(&out)
	w.log = append(w.log, e)
	w.reference.next = len(w.log)
	w.noteRecord(e)
	w.sawRecord(e)
	if e.saved.verdict == ledger.Invalid && w.honest && m.EventID != uuid.Nil && !w.invalidOnPurpose[m.EventID] {
		w.violated("VERDICT", "offset %d is invalid, its writer is honest: %s", offset, e.saved.reason)
	}
	w.oracle.record(e)
	w.afterRecord(e)
	return e
}

// advance folds the next record into a reader and compares the outcome with
// the reference's.
func (w *world) advance(r *reader) (*entry, ledger.Outcome) {
	e := w.log[r.next]
	out, err := r.fold.ApplyParsed(&e.parsed)
	if err != nil {
		w.violated("G2", "a fold stops at offset %d where another went on: %v", e.record.Offset, err)
		return e, out
	}
	r.next++
	if d := e.saved.difference(&out); d != "" {
		w.violated("G2", "two folds disagree about offset %d: %s", e.record.Offset, d)
	}
	return e, out
}

// sawRecord counts verdicts and rules for the coverage.
func (w *world) sawRecord(e *entry) {
	name := "record"
	if e.parsed.Event != nil {
		name = e.parsed.Event.EventName()
	}
	reason := e.saved.reason
	if e.saved.verdict == ledger.Invalid {
		reason = "" // a sentence: too many to count
	}
	w.saw(string(e.saved.verdict)+" "+name, string(reason))
	for i := range e.saved.attempts {
		w.saw("attempt", string(e.saved.attempts[i].TaskKind)+" "+string(e.saved.attempts[i].Status))
	}
	for i := range e.saved.runs {
		w.saw("run", string(e.saved.runs[i].Status))
	}
}

// encode makes a record of an event of ours.
func (w *world) encode(role string, e ledger.Event) (ledger.Message, error) {
	w.events++
	m, err := ledger.Encode(w.index, ledger.Meta{EventID: eventID(w.events), Source: "/keten/simulation/" + role, Time: w.wall()}, e)
	if err != nil {
		return m, fmt.Errorf("encode %s: %w", e.EventName(), err)
	}
	return m, nil
}

// mustEncode is encode for events whose authors are sure of themselves.
func (w *world) mustEncode(role string, e ledger.Event) (ledger.Message, bool) {
	m, err := w.encode(role, e)
	if err != nil {
		w.violated("VERDICT", "an own event cannot be encoded: %v", err)
		return m, false
	}
	return m, true
}
