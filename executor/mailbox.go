package executor

import (
	"sync"
	"time"
)

// A mailbox hands work to an owner's goroutine. Whoever puts something in never
// waits: the callbacks of the Kafka client and finished handlers must not depend
// on how busy an owner is. It is bounded by what sends to it: one letter per
// handler, append, slot and watch tick.
type mailbox struct {
	mu      sync.Mutex
	letters []letter
	wake    chan struct{}
}

// A letter is run by the owner's goroutine.
type letter func(now time.Time)

func newMailbox() mailbox { return mailbox{wake: make(chan struct{}, 1)} }

func (m *mailbox) put(l letter) {
	m.mu.Lock()
	m.letters = append(m.letters, l)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default: // it is awake already, and takes all there is
	}
}

// take returns all letters, oldest first, and keeps spare for the next ones.
func (m *mailbox) take(spare []letter) []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	letters := m.letters
	m.letters = spare[:0]
	return letters
}
