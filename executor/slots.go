package executor

import "sync"

// slots bounds how many handlers run in the process. A slot is taken before a
// task is started in the log, so that an accepted start never waits for one.
type slots struct {
	metrics *metrics

	mu   sync.Mutex
	free int // negative while starts that nobody asked for were honored
	// waiting owners get the next free slots in turn, one each: a partition
	// with much to do does not starve the others.
	waiting []*owner
}

func newSlots(n int, m *metrics) *slots {
	s := &slots{free: n, metrics: m}
	m.freeSlots.Add(float64(n))
	return s
}

// take takes a slot for o, or lets it wait its turn: it then gets the slot by
// [owner.granted]. An owner waits at most once.
func (s *slots) take(o *owner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 && len(s.waiting) == 0 {
		s.count(-1)
		return true
	}
	if !o.inLine {
		o.inLine = true
		s.waiting = append(s.waiting, o)
	}
	return false
}

// force takes a slot even when none is free.
func (s *slots) force() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(-1)
}

// release gives a slot back, or on to the owner whose turn it is.
func (s *slots) release() {
	s.mu.Lock()
	s.count(+1)
	var next *owner
	if s.free > 0 && len(s.waiting) > 0 {
		next = s.waiting[0]
		s.waiting = s.waiting[1:]
		next.inLine = false
		s.count(-1)
	}
	s.mu.Unlock()
	if next != nil {
		next.mail.put(next.slotGranted)
	}
}

func (s *slots) count(change int) {
	s.free += change
	s.metrics.freeSlots.Add(float64(change))
	s.metrics.busySlots.Add(float64(-change))
}
