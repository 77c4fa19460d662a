package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// freshness is how recent an owner's knowledge of the log is: it was folded to
// a log end that a broker gave at that time. A process that was paused, or lost
// its brokers, finds its knowledge old and starts nothing until it caught up.
type freshness struct {
	at    time.Time
	ahead []logEnd // log ends beyond the fold, oldest first
}

type logEnd struct {
	offset int64
	at     time.Time // when it was asked for
}

// mostEnds bounds the log ends that are remembered. The oldest are kept, since
// they are reached first.
const mostEnds = 16

func (f *freshness) ended(e logEnd, position int64) {
	if len(f.ahead) < mostEnds {
		f.ahead = append(f.ahead, e)
	}
	f.reach(position)
}

func (f *freshness) reach(position int64) {
	n := 0
	for n < len(f.ahead) && f.ahead[n].offset <= position {
		f.at = f.ahead[n].at
		n++
	}
	f.ahead = append(f.ahead[:0], f.ahead[n:]...)
}

func (f *freshness) within(lease time.Duration, now time.Time) bool {
	return !f.at.IsZero() && now.Sub(f.at) < lease
}

// maxSetBytes bounds the name of a set of queues, which is part of worker ids
// and of the names of consumer groups.
const maxSetBytes = 64

// setName is the name of a set of queues: executors that serve the same queues
// have the same, and share partitions in one consumer group.
func setName(queues []string) string {
	escaped := make([]string, len(queues))
	for i, q := range queues {
		escaped[i] = url.QueryEscape(q) // no slash and no plus is left
	}
	slices.Sort(escaped)
	name := strings.Join(slices.Compact(escaped), "+")
	if len(name) > maxSetBytes {
		hash := sha256.Sum256([]byte(name))
		name = "set-" + hex.EncodeToString(hash[:12])
	}
	return name
}

// setOf returns the set that a worker belongs to: its id begins with the name.
func setOf(worker string) string {
	set, _, _ := strings.Cut(worker, "/")
	return set
}

// memberships are who was in the consumer groups of sets, each at a time.
type memberships map[string]membership

type membership struct {
	workers map[string]bool
	at      time.Time
	before  *membership // the answer before this one; that one has none before it
}

// read takes newer answers.
func (m memberships) read(newer memberships) {
	for set, group := range newer {
		if before, ok := m[set]; ok {
			before.before = nil
			group.before = &before
		}
		m[set] = group
	}
}

// gone reports whether a worker is known to have left its group after a time: it
// was missing from two answers in a row. Members that join again, as they do in
// every rebalance, may be missing from one.
func (m memberships) gone(worker string, since time.Time) bool {
	group, ok := m[setOf(worker)]
	return ok && group.lacks(worker, since) && group.before != nil && group.before.lacks(worker, since)
}

func (m *membership) lacks(worker string, since time.Time) bool {
	return !m.at.Before(since) && !m.workers[worker]
}

// An interest is the sets whose members an owner wants to know. The owner counts
// the reasons; the watch reads what is published.
type interest struct {
	reasons   map[string]int
	published atomic.Pointer[[]string]
}

func newInterest() *interest { return &interest{reasons: make(map[string]int)} }

func (i *interest) add(set string) {
	i.reasons[set]++
	if i.reasons[set] == 1 {
		i.publish()
	}
}

func (i *interest) remove(set string) {
	i.reasons[set]--
	if i.reasons[set] == 0 {
		delete(i.reasons, set)
		i.publish()
	}
}

func (i *interest) publish() {
	sets := make([]string, 0, len(i.reasons))
	for set := range i.reasons {
		sets = append(sets, set)
	}
	i.published.Store(&sets)
}

// sets returns the sets of interest. It may be called from any goroutine.
func (i *interest) sets() []string {
	if sets := i.published.Load(); sets != nil {
		return *sets
	}
	return nil
}
