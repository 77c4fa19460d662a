package ledger

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
)

// snapshotCodec is the version of the snapshots' encoding. Whatever state a
// newer build adds comes with a new one; an unknown one is not usable, and the
// reader folds from an older snapshot or from offset 0.
const snapshotCodec = 1

const snapshotMagic = "keten snapshot\n"

// ErrSnapshot reports bytes that are no snapshot which this build can use:
// damaged, or of another codec or rules version.
var ErrSnapshot = errors.New("snapshot cannot be used")

// Snapshot returns the exact state of the fold in its canonical encoding: equal
// folds have equal bytes. It holds active collections, finally tasks under way,
// the window and the claims, and nothing of what has ended before.
func (p *Partition) Snapshot() []byte {
	c := &coder{buf: make([]byte, 0, 4096+len(p.active)*1024+len(p.win.at)*24)}
	c.partition(p)
	return c.buf
}

// StateHash is SHA-256 over [Partition.Snapshot].
func (p *Partition) StateHash() [32]byte { return sha256.Sum256(p.Snapshot()) }

// Restore returns the fold that a snapshot was taken of. It takes any bytes; the
// error wraps [ErrSnapshot]. Nothing of b is kept. That b is what a fold wrote,
// and of this log, is for the caller to know: by its hash, and by that of the
// last record.
func Restore(b []byte) (*Partition, error) {
	c := &coder{buf: b, reading: true, known: make(map[string]string)}
	p := NewPartition(0)
	c.partition(p)
	if c.err == nil && len(c.buf) > 0 {
		c.fail("has data behind its end")
	}
	if c.err == nil && !bytes.Equal(p.Snapshot(), b) {
		c.fail("is not in canonical form")
	}
	if c.err != nil {
		return nil, c.err
	}
	return p, nil
}

// partition and the methods below walk the state in both directions, so that
// what is written and what is read cannot differ.
func (c *coder) partition(p *Partition) {
	magic, codec := snapshotMagic, int64(snapshotCodec)
	c.text(&magic)
	c.int64(&codec)
	if c.err == nil && (magic != snapshotMagic || codec != snapshotCodec) {
		c.fail("is of codec %d, this build knows %d", codec, snapshotCodec)
	}
	c.int(&p.rules)
	c.uuid(&p.ledgerID)
	c.int32(&p.index)
	c.int64(&p.position)
	c.int32(&p.epoch)
	c.bytes32(&p.last)
	c.bytes32(&p.chain)
	c.bool(&p.opened)
	if c.err == nil && p.opened && p.rules != Rules {
		c.fail("is of rules version %d, this build knows %d", p.rules, Rules)
	}
	c.int32(&p.partitions)
	c.int64(&p.window)
	c.claims(p)
	c.active(p)
	c.ending(p)
	c.win(&p.win)
}

func (c *coder) claims(p *Partition) {
	queues := slices.Sorted(maps.Keys(p.claims))
	for i := range c.count(len(queues)) {
		if c.err != nil {
			return
		}
		queue, claim := "", Claim{}
		if !c.reading {
			queue, claim = queues[i], p.claims[queues[i]]
		}
		c.text(&queue)
		c.int64(&claim.Offset)
		c.text(&claim.Worker)
		c.bool(&claim.Released)
		p.claims[queue] = claim
	}
}

// active walks the active collections in log order, which is also the order
// within their lanes.
func (c *coder) active(p *Partition) {
	var list []*run
	last := int64(-1)
	if !c.reading {
		list = slices.SortedFunc(maps.Values(p.active), func(a, b *run) int { return cmp.Compare(a.opened, b.opened) })
	}
	for i := range c.count(len(list)) {
		if c.err != nil {
			return
		}
		r := &run{kind: KindTask}
		if !c.reading {
			r = list[i]
		}
		c.run(r)
		c.int64(&r.opened)
		c.text(&r.orderingKey)
		c.bool(&r.started)
		c.bool(&r.canceled)
		c.tasks(&r.finally)
		c.payload(&r.input)
		if !c.reading || c.err != nil {
			continue
		}
		if p.active[r.id] != nil || r.opened <= last {
			c.fail("has collection %s twice, or out of order", r.id)
			return
		}
		last = r.opened
		p.active[r.id] = r
		p.joinLane(r)
	}
}

func (c *coder) ending(p *Partition) {
	var list []*run
	if !c.reading {
		for _, id := range slices.SortedFunc(maps.Keys(p.ending), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
			list = append(list, p.ending[id]...)
		}
	}
	for i := range c.count(len(list)) {
		if c.err != nil {
			return
		}
		r := &run{kind: KindFinally}
		if !c.reading {
			r = list[i]
		}
		c.run(r)
		c.text((*string)(&r.status))
		c.int64(&r.endedMS)
		c.failed(r)
		if c.reading && c.err == nil {
			p.ending[r.id] = append(p.ending[r.id], r)
		}
	}
}

func (c *coder) failed(r *run) {
	is := r.failed != nil
	c.bool(&is)
	if !is || c.err != nil {
		return
	}
	if c.reading {
		r.failed = new(FailedTask)
	}
	c.uuid(&r.failed.ID)
	c.text(&r.failed.Type)
	c.text(&r.failed.Error.Code)
	c.text(&r.failed.Error.Message)
}

// run walks what runs in A and P have in common.
func (c *coder) run(r *run) {
	c.uuid(&r.id)
	c.int(&r.number)
	c.text(&r.tenant)
	c.text(&r.name)
	c.tasks(&r.tasks)
	c.int(&r.next)
	c.bool(&r.waiting)
	c.int(&r.failures)
	c.int(&r.lost)
	c.openAttempt(&r.open)
	c.int64(&r.failure.attemptID)
	c.int64(&r.failure.timeMS)
	c.int64(&r.failure.retryAfterMS)
	c.int64(&r.sinceMS)
	switch {
	case !c.reading || c.err != nil:
	case r.next < 0 || r.next >= len(r.tasks):
		c.fail("has run %d of collection %s at task %d of %d", r.number, r.id, r.next, len(r.tasks))
	case r.lost < 0 || r.failures < 0 || r.failures >= r.task().MaxAttempts:
		c.fail("has run %d of collection %s after %d failures of at most %d", r.number, r.id, r.failures, r.task().MaxAttempts)
	}
}

func (c *coder) openAttempt(o *openAttempt) {
	c.text(&o.worker)
	if o.worker == "" {
		return
	}
	c.int64(&o.id)
	c.int64(&o.claim)
	c.int64(&o.startedMS)
	c.bool(&o.draining)
	c.int64(&o.graceMS)
	c.bool(&o.deferred)
	c.int64(&o.deferredMS)
}

func (c *coder) tasks(list *[]Task) {
	n := c.count(len(*list))
	if n > MaxTasks {
		c.fail("has a run with %d tasks", n)
		return
	}
	if c.reading && n > 0 {
		*list = make([]Task, n)
	}
	for i := range n {
		c.task(&(*list)[i])
		if c.err != nil {
			return
		}
	}
}

func (c *coder) task(t *Task) {
	c.uuid(&t.ID)
	c.int(&t.Index)
	c.text(&t.Name)
	c.text(&t.Type)
	c.text(&t.Queue)
	c.text(&t.Description)
	c.payload(&t.Args)
	c.bool(&t.Immutable)
	c.text((*string)(&t.OnInterrupt))
	c.int(&t.MaxAttempts)
	c.int64(&t.Backoff.InitialMS)
	c.int64(&t.Backoff.Multiplier)
	c.int64(&t.Backoff.MaxMS)
	c.int64(&t.TimeoutMS)
	c.int(&t.Attempts)
	if c.reading && c.err == nil {
		if err := checkTask(t); err != nil {
			c.fail("has a task that no event can bring: %v", err)
		}
	}
}

// win walks the ends of runs in log order. A collection that ended again since
// has its newer end only.
func (c *coder) win(w *window) {
	var list []endedRun
	if !c.reading {
		list = make([]endedRun, 0, len(w.at))
		for _, e := range w.order[w.head:] {
			if w.at[e.id] == e.at {
				list = append(list, e)
			}
		}
	}
	for i := range c.count(len(list)) {
		if c.err != nil {
			return
		}
		var e endedRun
		if !c.reading {
			e = list[i]
		}
		c.uuid(&e.id)
		c.int64(&e.at)
		if c.reading && c.err == nil {
			w.add(e.id, e.at)
		}
	}
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: it %s", ErrSnapshot, fmt.Sprintf(format, args...))
	}
}
