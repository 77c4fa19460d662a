package executor

import (
	"slices"
	"sync"
	"time"
)

// slots bounds how many handlers run in the process, and how many of a type
// that has a limit. A slot is taken before a task is started in the log, so that
// an accepted start never waits for one.
//
// A class is a task type that has a limit; all others share the class "".
type slots struct {
	metrics *metrics
	limited map[string]bool

	mu   sync.Mutex
	free int            // negative while starts that nobody asked for were honored
	room map[string]int // by limited class, of its limit; may be negative, too
	// waiting get the next slots in turn, one each: a partition with much to do
	// does not starve the others. None of them could be served at once.
	waiting []place
}

// A place in the line: an owner stands in it once per class.
type place struct {
	o     *owner
	class string
}

func newSlots(n int, limits map[string]int, m *metrics) *slots {
	s := &slots{free: n, limited: make(map[string]bool), room: make(map[string]int), metrics: m}
	for class, most := range limits {
		s.limited[class], s.room[class] = true, most
	}
	m.freeSlots.Add(float64(n))
	return s
}

// class returns the class of a task type.
func (s *slots) class(taskType string) string {
	if s.limited[taskType] {
		return taskType
	}
	return ""
}

// take takes a slot for o, or lets it wait its turn: it then gets the slot by
// [owner.slotGranted].
func (s *slots) take(o *owner, class string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served(class) {
		return true
	}
	if p := (place{o, class}); !slices.Contains(s.waiting, p) {
		s.waiting = append(s.waiting, p)
	}
	return false
}

// tryTake takes a slot if there is one that nobody waits for.
func (s *slots) tryTake(class string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served(class)
}

// hasRoom reports whether a slot would be got at once.
func (s *slots) hasRoom(class string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isFree(class)
}

// force takes a slot even when none is free.
func (s *slots) force(class string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(class, -1)
}

// release gives a slot back, or on to the owner whose turn it is.
func (s *slots) release(class string) {
	s.mu.Lock()
	s.count(class, +1)
	var next place
	for i, p := range s.waiting {
		if s.served(p.class) {
			next = p
			s.waiting = slices.Delete(s.waiting, i, i+1)
			break
		}
	}
	s.mu.Unlock()
	if next.o != nil {
		next.o.mail.put(func(time.Time) { next.o.granted[next.class]++ })
	}
}

func (s *slots) served(class string) bool {
	if !s.isFree(class) {
		return false
	}
	s.count(class, -1)
	return true
}

func (s *slots) isFree(class string) bool {
	return s.free > 0 && (!s.limited[class] || s.room[class] > 0)
}

func (s *slots) count(class string, change int) {
	s.free += change
	if s.limited[class] {
		s.room[class] += change
	}
	s.metrics.freeSlots.Add(float64(change))
	s.metrics.busySlots.Add(float64(-change))
}
