package executor

import "github.com/keten-ledger/keten/ledger"

// readyRuns are the runs whose next task can start, each at most once. Tenants
// take turns, and the runs of a tenant come in the order in which they became
// ready: one tenant with very many collections does not hold up another.
type readyRuns struct {
	turns fifo[string] // tenants with runs, the next one first
	runs  map[string]*fifo[ledger.RunID]
	in    map[ledger.RunID]bool
}

func newReadyRuns() *readyRuns {
	return &readyRuns{runs: make(map[string]*fifo[ledger.RunID]), in: make(map[ledger.RunID]bool)}
}

func (q *readyRuns) len() int { return len(q.in) }

func (q *readyRuns) push(id ledger.RunID, tenant string) {
	if q.in[id] {
		return
	}
	q.in[id] = true
	runs := q.runs[tenant]
	if runs == nil {
		runs = &fifo[ledger.RunID]{}
		q.runs[tenant] = runs
		q.turns.push(tenant)
	}
	runs.push(id)
}

// pop removes and returns the next run. There must be one.
func (q *readyRuns) pop() ledger.RunID {
	tenant := q.turns.pop()
	runs := q.runs[tenant]
	id := runs.pop()
	delete(q.in, id)
	if runs.len() > 0 {
		q.turns.push(tenant)
	} else {
		delete(q.runs, tenant)
	}
	return id
}

// A fifo is a queue whose memory shrinks with it.
type fifo[T any] struct {
	list []T
	head int
}

func (f *fifo[T]) len() int { return len(f.list) - f.head }

func (f *fifo[T]) first() T { return f.list[f.head] }

func (f *fifo[T]) push(v T) { f.list = append(f.list, v) }

func (f *fifo[T]) pop() T {
	v := f.list[f.head]
	f.head++
	if f.head > len(f.list)/2 {
		n := copy(f.list, f.list[f.head:])
		clear(f.list[n:]) // what they point to is to be freed
		f.list, f.head = f.list[:n], 0
	}
	return v
}
