package simtest

import "github.com/keten-ledger/keten/ledger"

// A flight is one append on its way to the log.
type flight struct {
	message ledger.Message
	sender  sender
}

// A sender hears what became of an append. An error tells nothing: the record
// may have landed, may land later, or never.
type sender interface {
	landed(offset int64)
	failed()
}

// conn is one client's producer: appends land in order, until its epoch is
// bumped. strays were given up by the client and are still on their way.
type conn struct {
	name   string
	queue  []flight
	strays []flight
	closed bool // its process is gone; what is under way may still land
}

type network struct {
	conns []*conn
	calm  bool // no faults any more
	// outage is until when no broker answers anybody.
	outage int64
}

func (w *world) connect(name string) *conn {
	c := &conn{name: name}
	w.net.conns = append(w.net.conns, c)
	return c
}

func (c *conn) append(m ledger.Message, s sender) {
	c.queue = append(c.queue, flight{m, s})
}

func (c *conn) idle() bool { return len(c.queue)+len(c.strays) == 0 }

// deliver lets something happen to one client's appends.
func (w *world) deliver() {
	busy := w.busyConns()
	if w.idle = w.nowMS < w.net.outage || len(busy) == 0; w.idle {
		return
	}
	c := oneOf(w.dice, busy)
	if len(c.strays) > 0 && (len(c.queue) == 0 || w.dice.chance(25)) {
		w.strayLands(c)
		return
	}
	for n := w.dice.between(1, 3); n > 0 && len(c.queue) > 0; n-- {
		w.deliverHead(c)
	}
}

func (w *world) busyConns() []*conn {
	kept, busy := w.net.conns[:0], []*conn(nil)
	for _, c := range w.net.conns {
		if !c.idle() {
			busy = append(busy, c)
		}
		if !c.closed || !c.idle() {
			kept = append(kept, c)
		}
	}
	w.net.conns = kept
	return busy
}

func (c *conn) pop() flight {
	f := c.queue[0]
	c.queue = c.queue[1:]
	return f
}

// Fates of an append.
const (
	fateLands = iota
	fateLandsUnanswered
	fateLandsTwice
	fateLandsAgainLater
	fateDelayed
	fateLost
	fateReordered
	fates
)

func (w *world) deliverHead(c *conn) {
	switch w.dice.weighted(w.fates[:], w.fateSum) {
	case fateLandsUnanswered:
		w.saw("fault", "append landed, answered with an error")
		f := c.pop()
		w.land(f.message)
		f.sender.failed()
	case fateLandsTwice:
		w.saw("fault", "append landed twice")
		f := c.pop()
		w.land(f.message)
		e := w.land(f.message)
		f.sender.landed(e.record.Offset)
	case fateLandsAgainLater:
		w.saw("fault", "append landed and lands again later")
		f := c.pop()
		e := w.land(f.message)
		c.strays = append(c.strays, flight{f.message, nobody{}})
		f.sender.landed(e.record.Offset)
	case fateDelayed:
		w.saw("fault", "append answered with an error, lands later")
		f := c.pop()
		c.strays = append(c.strays, flight{f.message, nobody{}})
		f.sender.failed()
	case fateLost:
		w.saw("fault", "append lost")
		f := c.pop()
		f.sender.failed()
	case fateReordered:
		if len(c.queue) > 1 {
			w.saw("fault", "appends reordered")
			w.dice.shuffle(len(c.queue), func(i, j int) { c.queue[i], c.queue[j] = c.queue[j], c.queue[i] })
		}
	default:
		f := c.pop()
		e := w.land(f.message)
		f.sender.landed(e.record.Offset)
	}
}

func (w *world) strayLands(c *conn) {
	i := w.dice.between(0, len(c.strays)-1)
	f := c.strays[i]
	c.strays = append(c.strays[:i], c.strays[i+1:]...)
	if w.dice.chance(20) {
		return // it never arrives
	}
	w.saw("fault", "a given up append landed")
	w.land(f.message)
}

// deliverAll is the network once it is healed.
func (w *world) deliverAll() (did bool) {
	for _, c := range w.busyConns() {
		for len(c.strays) > 0 && w.failure == nil {
			did = true
			w.strayLands(c)
		}
		for len(c.queue) > 0 && w.failure == nil {
			did = true
			f := c.pop()
			e := w.land(f.message)
			f.sender.landed(e.record.Offset)
		}
	}
	return did
}

// nobody waits for an answer.
type nobody struct{}

func (nobody) landed(int64) {}
func (nobody) failed()      {}
