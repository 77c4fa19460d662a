package simtest

import (
	"bytes"

	"github.com/keten-ledger/keten/ledger"
)

// snapshot is a whole one in the snapshots topic.
type snapshot struct {
	data []byte
	next int // index into the log of the record behind it
}

// mostSnapshots are kept: its writer deletes older ones.
const mostSnapshots = 3

// takeSnapshot lets some reader write one, wherever it stands.
func (w *world) takeSnapshot() {
	r := w.anyReader()
	s := snapshot{data: r.fold.Snapshot(), next: r.next}
	w.note("snapshot", "taken", int64(r.next))
	w.saw("snapshot", "taken")
	if r.next == len(w.log) {
		if !bytes.Equal(s.data, w.reference.fold.Snapshot()) {
			w.violated("G2", "two folds at position %d have different snapshots", r.fold.Position())
		}
		w.checkBound(len(s.data))
	}
	w.snapshots = append(w.snapshots, s)
	if len(w.snapshots) > mostSnapshots {
		w.snapshots = w.snapshots[1:]
	}
}

func (w *world) checkBound(size int) {
	if most := w.oracle.bound(); size > most {
		w.violated("BOUND", "a snapshot at position %d is %d bytes long, what must be remembered needs at most %d",
			w.reference.fold.Position(), size, most)
	}
}

// anyReader is a process, a projection, or the reference.
func (w *world) anyReader() *reader {
	list := []*reader{&w.reference}
	for _, p := range w.projections {
		list = append(list, &p.reader)
	}
	for _, h := range w.hosts {
		if h.process != nil && h.process.running() {
			list = append(list, &h.process.reader)
		}
	}
	return oneOf(w.dice, list)
}

// restoreReader is how a process resumes: from a whole snapshot if there is
// one, else from the first record.
func (w *world) restoreReader() reader {
	if len(w.snapshots) == 0 || w.dice.chance(15) {
		return reader{fold: ledger.NewPartition(w.index)}
	}
	w.saw("snapshot", "restored by a process")
	return w.restore(oneOf(w.dice, w.snapshots))
}

func (w *world) restore(s snapshot) reader {
	fold, err := ledger.Restore(s.data)
	if err != nil {
		w.violated("G2", "a snapshot cannot be restored: %v", err)
		return reader{fold: ledger.NewPartition(w.index)}
	}
	return reader{fold: fold, next: s.next}
}

// A probe is a fold restored somewhere in the middle that follows the log: from
// there on it must give the same outcomes and answers as the whole fold.
type probe struct {
	reader
	left int // records to follow
}

const mostProbes = 2

// plantProbe restores what some reader would write now.
func (w *world) plantProbe() {
	if len(w.probes) >= mostProbes {
		return
	}
	r := w.anyReader()
	w.note("probe", "planted", int64(r.next))
	w.saw("snapshot", "probe planted")
	restored := w.restore(snapshot{data: r.fold.Snapshot(), next: r.next})
	if w.failure == nil && restored.fold.StateHash() != r.fold.StateHash() {
		w.violated("G2", "a restored fold at position %d has another state", r.fold.Position())
	}
	w.sameAnswers(restored.fold, r.fold)
	w.probes = append(w.probes, &probe{reader: restored, left: w.dice.between(10, 80)})
}

// followProbes lets probes read on; one that has read enough is compared and
// forgotten.
func (w *world) followProbes() {
	kept := w.probes[:0]
	for _, p := range w.probes {
		for p.next < len(w.log) && w.failure == nil {
			w.advance(&p.reader)
			p.left--
		}
		w.sameAnswers(p.fold, w.reference.fold)
		if p.left > 0 {
			kept = append(kept, p)
			continue
		}
		w.sameState("a probe", &p.reader)
	}
	w.probes = kept
}

// sameState compares a fold at the log's end with the reference.
func (w *world) sameState(name string, r *reader) {
	if w.failure == nil && r.next == len(w.log) && r.fold.StateHash() != w.reference.fold.StateHash() {
		w.violated("G2", "%s and the whole fold have different states at position %d", name, r.fold.Position())
	}
}

// sameAnswers compares what two folds at one position say about the next steps.
func (w *world) sameAnswers(a, b *ledger.Partition) {
	if w.failure != nil || a.Position() != b.Position() {
		return
	}
	for _, q := range w.queues {
		c, okA := a.Claim(q)
		d, okB := b.Claim(q)
		if c != d || okA != okB {
			w.violated("G2", "two folds at position %d know different claims of %s", a.Position(), q)
		}
		if d := differentActions(a.Next(q, c.Worker, holdsNothing), b.Next(q, c.Worker, holdsNothing)); d != "" {
			w.violated("G2", "two folds at position %d name different steps: %s", a.Position(), d)
		}
	}
	for _, f := range w.oracle.open {
		run := f.task.run.id
		x, okA := a.OpenAttempt(run)
		y, okB := b.OpenAttempt(run)
		if okA != okB || x.ID != y.ID || x.Number != y.Number || x.Deferred != y.Deferred || x.Draining != y.Draining ||
			x.Canceled != y.Canceled || !sameJSON(x.Input, y.Input) || !sameJSON(x.Task.Args, y.Task.Args) {
			w.violated("G2", "two folds at position %d know different open attempts of %s", a.Position(), w.short(run.Collection))
		}
		s, okA := a.StartAfter(run, f.task.def.Queue, f.worker)
		t, okB := b.StartAfter(run, f.task.def.Queue, f.worker)
		if okA != okB || s != t {
			w.violated("G2", "two folds at position %d name different steps after @%d", a.Position(), f.id)
		}
	}
}

func differentActions(a, b []ledger.Action) string {
	if len(a) != len(b) {
		return itoa(len(a)) + " and " + itoa(len(b)) + " of them"
	}
	for i := range a {
		if a[i] != b[i] {
			return "number " + itoa(i)
		}
	}
	return ""
}
