package simtest

import (
	"bytes"
	"errors"
	"slices"

	"github.com/keten-ledger/keten/ledger"
)

// touchCheck sees to it that an outcome names every run about which Next says
// something else than before: who relies on it would overlook the others.
type touchCheck struct {
	said [][]ledger.Action // per queue
}

func (t *touchCheck) ask(w *world) [][]ledger.Action {
	var all [][]ledger.Action
	for _, q := range w.queues {
		c, _ := w.reference.fold.Claim(q)
		all = append(all, w.reference.fold.Next(q, c.Worker, holdsNothing))
	}
	return all
}

func (t *touchCheck) before(w *world) { t.said = t.ask(w) }

func (t *touchCheck) after(w *world, e *entry) {
	// A claim or its end concerns the whole queue: an owner looks at all of it.
	switch e.parsed.Event.(type) {
	case ledger.PartitionClaimed, ledger.PartitionReleased:
		if e.saved.verdict == ledger.Accepted {
			return
		}
	default:
	}
	w.saw("property", "touched compared")
	for i, now := range t.ask(w) {
		for _, a := range now {
			if !slices.Contains(t.said[i], a) {
				t.mustBeTouched(w, e, a.RunID())
			}
		}
		for _, a := range t.said[i] {
			if !slices.ContainsFunc(now, func(b ledger.Action) bool { return a.RunID() == b.RunID() }) {
				t.mustBeTouched(w, e, a.RunID())
			}
		}
	}
}

func (t *touchCheck) mustBeTouched(w *world, e *entry, run ledger.RunID) {
	if !slices.Contains(e.saved.touched, run) {
		w.violated("TOUCHED", "offset %d changes the next step of %s run %d and does not name it", e.record.Offset, w.short(run.Collection), run.Run)
	}
}

// onlyAccepted folds the accepted records, with strangers' records in the places
// of all others: refused records must have changed nothing but the position.
func (w *world) onlyAccepted() {
	w.saw("property", "accepted records alone")
	p := ledger.NewPartition(w.index)
	for _, e := range w.log {
		x := e.parsed
		accepted := e.saved.verdict == ledger.Accepted
		if !accepted {
			x = ledger.Parse(ledger.Record{Partition: w.index, Offset: e.record.Offset})
		}
		out, err := p.ApplyParsed(&x)
		if err != nil {
			w.violated("NOEFFECT", "without the refused records the fold stops at offset %d: %v", e.record.Offset, err)
			return
		}
		if d := e.saved.difference(&out); accepted && d != "" {
			w.violated("NOEFFECT", "without the refused records offset %d has another outcome: %s", e.record.Offset, d)
			return
		}
	}
	w.sameAnswers(p, w.reference.fold)
}

// wholeReplay folds the log once more from its first record.
func (w *world) wholeReplay() {
	r := reader{fold: ledger.NewPartition(w.index)}
	for r.next < len(w.log) && w.failure == nil {
		w.advance(&r)
	}
	w.sameState("a replay", &r)
}

// unknownType is a record of a newer build: it stops every reader, in front of
// it.
func (w *world) unknownType() {
	r := w.restore(snapshot{data: w.reference.fold.Snapshot(), next: w.reference.next})
	before := r.fold.StateHash()
	_, err := r.fold.Apply(ledger.Record{
		Partition: w.index, Offset: w.end(), Value: []byte("{}"),
		Headers: []ledger.Header{{Key: ledger.HeaderType, Value: []byte("keten.v1.TaskSkipped")}},
	})
	if err == nil || r.fold.StateHash() != before {
		w.violated("G13", "a record of an unknown type does not stop the fold in front of it: %v", err)
	}
}

// damaged restores snapshots with a few wrong bytes: an error, or a fold that
// somebody else must tell from the right one by its hash; never a panic.
func (w *world) damaged() {
	whole := w.reference.fold.Snapshot()
	for range 8 {
		b := bytes.Clone(whole)
		for range w.dice.between(1, 3) {
			b[w.dice.between(0, len(b)-1)] ^= byte(w.dice.between(1, 255)) //nolint:gosec // a byte
		}
		if w.dice.chance(30) {
			b = b[:w.dice.between(0, len(b)-1)]
		}
		if _, err := ledger.Restore(b); err == nil {
			w.saw("property", "damaged snapshot restored")
		} else if !errors.Is(err, ledger.ErrSnapshot) {
			w.violated("TOTAL", "a damaged snapshot ends in another error: %v", err)
		}
	}
}

// forgetful lets the window pass: only the claims may be left.
func (w *world) forgetful() {
	r := w.restore(snapshot{data: w.reference.fold.Snapshot(), next: w.reference.next})
	last := ledger.Record{Partition: w.index, Offset: w.end() + w.window, TimeMS: w.nowMS, Value: []byte("tick")}
	if _, err := r.fold.Apply(last); err != nil {
		w.violated("TOTAL", "the fold stops at a foreign record: %v", err)
		return
	}
	const perClaim, rest = 200, 600
	if size := len(r.fold.Snapshot()); size > rest+perClaim*len(w.oracle.claims) {
		w.violated("BOUND", "with nothing active and the window over, a snapshot is %d bytes long", size)
	}
}
