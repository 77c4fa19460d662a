package simtest

import (
	"slices"
	"strings"
)

// group is a consumer group of processes that serve the same queues. It only
// suggests: its messages arrive late, and for a while two members may both
// believe that the partition is theirs.
type group struct {
	w        *world
	name     string
	queues   []string
	members  []*member
	assignee *process
}

type member struct {
	process *process
	seenMS  int64 // last heartbeat
}

// sessionMS is how long a member may be silent.
const sessionMS = 6_000

func (g *group) join(p *process) {
	g.members = append(g.members, &member{process: p, seenMS: g.w.nowMS})
	if g.assignee == nil || g.w.dice.chance(30) {
		g.rebalance()
	}
}

func (g *group) leave(p *process) {
	g.members = slices.DeleteFunc(g.members, func(m *member) bool { return m.process == p })
	if g.assignee == p {
		g.assignee = nil
		g.rebalance()
	}
}

// rebalance suggests a member; the same one may lose the partition and get it
// right back.
func (g *group) rebalance() {
	if len(g.members) == 0 {
		g.assignee = nil
		return
	}
	next := oneOf(g.w.dice, g.members).process
	if next == g.assignee && g.w.dice.chance(50) {
		return
	}
	if g.assignee != nil {
		g.assignee.inbox = append(g.assignee.inbox, revoked)
	}
	g.w.note(g.name, "assigns to "+next.worker, 0)
	g.assignee = next
	next.inbox = append(next.inbox, assigned)
}

// tick takes heartbeats and lets sessions expire.
func (g *group) tick() {
	var gone []*process
	for _, m := range g.members {
		switch {
		case m.process.reachable():
			m.seenMS = g.w.nowMS
		case g.w.nowMS-m.seenMS >= sessionMS:
			gone = append(gone, m.process)
		}
	}
	for _, p := range gone {
		g.w.saw("fault", "session expired")
		g.w.note(g.name, "expels "+p.worker, 0)
		p.expelled = true
		g.leave(p)
	}
}

func (g *group) has(worker string) bool {
	return slices.ContainsFunc(g.members, func(m *member) bool { return m.process.worker == worker })
}

// memberGone asks the worker's group, whose name its id starts with.
func (w *world) memberGone(worker string) bool {
	name, _, _ := strings.Cut(worker, "/")
	for _, g := range w.groups {
		if g.name == name {
			return !g.has(worker)
		}
	}
	return true
}

func groupOf(worker string) string {
	name, _, _ := strings.Cut(worker, "/")
	return name
}

// A suggestion is a message of the group to a member.
type suggestion int

const (
	assigned suggestion = iota + 1
	revoked
)
