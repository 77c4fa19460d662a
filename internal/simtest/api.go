package simtest

import (
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// writer is one API process with honest intentions: it reads one projection and
// appends commands.
type writer struct {
	w     *world
	name  string
	conn  *conn
	sees  *projection
	ends  int64 // a log end it has learnt
	asked []*command
	// keyed are the requests with idempotency keys that users have sent here or
	// elsewhere: they send them again.
}

// A command is one request on its way: appended, repeated with the same event
// id and the same as_of while its fate is unknown, and decided anew from a newer
// row when the fold calls it too old.
type command struct {
	by      *writer
	message ledger.Message
	again   func(*command) // decides anew
	tries   int            // appends so far
	decided int            // decisions so far
	waiting bool           // an append is under way
	unknown bool           // the last append ended with an error
}

const (
	mostTries     = 4 // appends of one command before its user is told "unknown"
	mostDecisions = 3 // a command that is stale(window) so often ends as 503
)

func (w *world) newWriter(name string, p *projection) *writer {
	return &writer{w: w, name: name, conn: w.connect(name), sees: p}
}

func (c *command) landed(offset int64) {
	c.waiting, c.unknown = false, false
	c.by.ends = max(c.by.ends, offset+1)
}

func (c *command) failed() { c.waiting, c.unknown = false, true }

func (a *writer) send(c *command, e ledger.Event) {
	m, ok := a.w.mustEncode("api", e)
	if !ok {
		return
	}
	c.by, c.message, c.tries, c.unknown = a, m, 1, false
	c.decided++
	c.waiting = true
	a.conn.append(m, c)
	if c.decided == 1 {
		a.asked = append(a.asked, c)
	}
}

// act looks after the commands under way.
func (a *writer) act() {
	if a.w.dice.chance(40) {
		a.ends = max(a.ends, a.w.end()) // ListOffsets
	}
	kept := a.asked[:0]
	for _, c := range a.asked {
		if a.follow(c) {
			kept = append(kept, c)
		}
	}
	a.asked = kept
}

// follow reports whether a command needs looking after any longer.
func (a *writer) follow(c *command) bool {
	if c.waiting {
		return true
	}
	if c.unknown {
		if c.tries >= mostTries || a.w.dice.chance(15) {
			return false // 503 outcome_unknown; perhaps it landed, perhaps it will
		}
		a.w.saw("api", "append repeated with the same event id")
		c.tries++
		c.waiting, c.unknown = true, false
		a.conn.append(c.message, c)
		return true
	}
	d, known := a.sees.verdicts[c.message.EventID]
	if !known {
		return true
	}
	if d.verdict == ledger.Stale && d.reason == ledger.ReasonWindow && c.again != nil && c.decided < mostDecisions {
		a.w.saw("api", "decided again after stale(window)")
		c.again(c)
		return c.waiting
	}
	return false
}

// create is a request without an idempotency key: an id of its own, as_of a log
// end learnt before the id was minted.
func (a *writer) create(r request, c *command) {
	id := ledger.NewCollectionID(a.w.index, a.w.wall(), a.w.dice.bytes8())
	c.again = func(c *command) { a.create(r, c) } // under a new id
	a.w.note(a.name, "creates", a.ends)
	a.send(c, r.created(id, a.ends))
}

// createKeyed looks for the collection first; as_of is the position of the rows
// in which it was not found.
func (a *writer) createKeyed(r request, c *command) {
	w := a.w
	id := ledger.KeyedCollectionID(r.tenant, r.ordering, r.key, w.index)
	if row := a.sees.rows[id]; row != nil {
		if row.hash == r.hash {
			w.saw("api", "keyed create answered from the row")
		} else {
			w.saw("api", "keyed create with another body refused")
		}
		return
	}
	if a.sees.lag() > w.window && w.dice.chance(60) {
		w.saw("api", "keyed create answered 503, the projection is behind")
		return
	}
	c.again = func(c *command) { a.createKeyed(r, c) }
	w.note(a.name, "creates with key", a.sees.position())
	a.send(c, r.created(id, a.sees.position()))
}

// newCreate is a user with a new or a repeated request.
func (w *world) newCreate() {
	if w.idle = w.oracle.counts.active >= w.mostActive; w.idle {
		return
	}
	a := oneOf(w.dice, w.writers)
	switch {
	case len(w.keyed) > 0 && w.dice.chance(30):
		r := oneOf(w.dice, w.keyed)
		if w.dice.chance(25) {
			r.hash = hashText(w.unique()) // the same key, another body
		}
		w.twice(func(a *writer) { a.createKeyed(r, &command{}) })
	case w.dice.chance(40):
		r := w.newRequest()
		r.key = oneOf(w.dice, w.keys.keys)
		if r.ordering != "" && w.dice.chance(50) {
			r.key = "any " + itoa(w.dice.between(0, 9)) // the ordering key routes
		}
		w.keyed = append(w.keyed, r)
		w.twice(func(a *writer) { a.createKeyed(r, &command{}) })
	default:
		a.create(w.newRequest(), &command{})
	}
}

// twice lets one or two API processes do the same at once.
func (w *world) twice(do func(a *writer)) {
	do(oneOf(w.dice, w.writers))
	if w.dice.chance(30) {
		w.saw("api", "two processes at once")
		do(oneOf(w.dice, w.writers))
	}
}

func findRow(p *projection, id uuid.UUID) *row { return p.rows[id] }
