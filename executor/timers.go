package executor

import (
	"container/heap"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// timers hold at most one time per run: when its next action is due.
type timers struct {
	due  map[ledger.RunID]time.Time
	heap timerHeap // may hold entries that due no longer knows
}

func newTimers() timers { return timers{due: make(map[ledger.RunID]time.Time)} }

// staleTimers bounds the entries of the heap that count no longer, in multiples
// of those that do.
const staleTimers = 4

func (t *timers) set(id ledger.RunID, at time.Time) {
	if t.due[id].Equal(at) {
		return
	}
	t.due[id] = at
	if len(t.heap) > staleTimers*len(t.due)+64 {
		t.rebuild()
		return
	}
	heap.Push(&t.heap, timerEntry{at: at, id: id})
}

func (t *timers) rebuild() {
	t.heap = t.heap[:0]
	for id, at := range t.due {
		t.heap = append(t.heap, timerEntry{at: at, id: id})
	}
	heap.Init(&t.heap)
}

func (t *timers) drop(id ledger.RunID) { delete(t.due, id) }

func (t *timers) clear() {
	clear(t.due)
	t.heap = nil
}

// pop removes and returns a run whose time has come.
func (t *timers) pop(now time.Time) (ledger.RunID, bool) {
	at, ok := t.next()
	if !ok || at.After(now) {
		return ledger.RunID{}, false
	}
	id := t.heap[0].id
	delete(t.due, id)
	heap.Pop(&t.heap)
	return id, true
}

// next returns the earliest time.
func (t *timers) next() (time.Time, bool) {
	for len(t.heap) > 0 {
		e := t.heap[0]
		if at, ok := t.due[e.id]; ok && at.Equal(e.at) {
			return e.at, true
		}
		heap.Pop(&t.heap)
	}
	return time.Time{}, false
}

type timerEntry struct {
	at time.Time
	id ledger.RunID
}

// timerHeap implements [heap.Interface], earliest first.
type timerHeap []timerEntry

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *timerHeap) Push(x any) {
	if e, ok := x.(timerEntry); ok {
		*h = append(*h, e)
	}
}

// Pop implements [heap.Interface].
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// A recordClock tells the brokers' time between records, from the last record
// read and the monotonic clock since. Waits that count from a record's time are
// measured by it: they do not depend on whether the clock of this machine
// agrees with the brokers', nor on its jumps. It is at most as late as the
// reader lags, never early.
type recordClock struct {
	timeMS int64
	readAt time.Time
}

func (c *recordClock) observe(timeMS int64, now time.Time) { c.timeMS, c.readAt = timeMS, now }

// when returns the local time at which the brokers' clock will show timeMS.
func (c *recordClock) when(timeMS int64) time.Time {
	return c.readAt.Add(time.Duration(timeMS-c.timeMS) * time.Millisecond)
}
