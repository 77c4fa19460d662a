package ledger

import "github.com/google/uuid"

// window is what a reader must remember of runs that have ended: id → offset
// of the record that ended it, for the last W offsets.
type window struct {
	at    map[uuid.UUID]int64
	order []endedRun // by offset; entries before head are evicted
	head  int
}

type endedRun struct {
	at int64
	id uuid.UUID
}

func newWindow() window { return window{at: make(map[uuid.UUID]int64)} }

func (w *window) ended(id uuid.UUID) (int64, bool) {
	at, ok := w.at[id]
	return at, ok
}

func (w *window) add(id uuid.UUID, at int64) {
	w.at[id] = at
	w.order = append(w.order, endedRun{at, id})
}

// evict forgets what ended before an offset. A collection that ended again
// since keeps its newer entry.
func (w *window) evict(before int64) {
	for w.head < len(w.order) && w.order[w.head].at < before {
		e := w.order[w.head]
		if w.at[e.id] == e.at {
			delete(w.at, e.id)
		}
		w.head++
	}
	if w.head > len(w.order)/2 && w.head > 64 {
		w.order = append(w.order[:0], w.order[w.head:]...)
		w.head = 0
	}
}
