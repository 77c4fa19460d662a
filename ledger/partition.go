package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"
)

// A Claim is the right to start tasks of one queue.
type Claim struct {
	Offset   int64 // the fencing token
	Worker   string
	Released bool
}

// Partition is the fold of one partition's records. It is not safe for
// concurrent use: one goroutine owns it. What it remembers is bounded by the
// active collections, the finally tasks under way, W and the claimed queues.
type Partition struct {
	index    int32
	position int64 // offset of the next record
	chain    [32]byte
	last     [32]byte // hash of the last record
	epoch    int32    // leader epoch of the last record

	opened     bool
	ledgerID   uuid.UUID
	partitions int32
	window     int64
	rules      int

	claims map[string]Claim
	active map[uuid.UUID]*run   // A: collections whose last run has not ended
	ending map[uuid.UUID][]*run // P: runs that ended, until their finally tasks have; ascending
	lanes  map[lane][]uuid.UUID // of active collections, in log order
	win    window

	out Outcome // reused, so that folding allocates little
}

// NewPartition returns the fold of no records.
func NewPartition(index int32) *Partition {
	return &Partition{
		index:  index,
		epoch:  -1,
		claims: make(map[string]Claim),
		active: make(map[uuid.UUID]*run),
		ending: make(map[uuid.UUID][]*run),
		lanes:  make(map[lane][]uuid.UUID),
		win:    newWindow(),
	}
}

// Index returns which partition of the ledger this is.
func (p *Partition) Index() int32 { return p.index }

// Position returns the offset of the next record to apply.
func (p *Partition) Position() int64 { return p.position }

// LeaderEpoch returns the leader epoch of the last record, -1 before the first.
func (p *Partition) LeaderEpoch() int32 { return p.epoch }

// ChainHash returns the hash over all records so far:
// h(i) = SHA-256(h(i-1) ‖ RecordHash(i)), from 32 zero bytes.
func (p *Partition) ChainHash() [32]byte { return p.chain }

// LastHash returns the hash of the last record, see [RecordHash].
func (p *Partition) LastHash() [32]byte { return p.last }

// Opened reports whether the genesis was accepted; ledgerID, partitions and
// window are its values.
func (p *Partition) Opened() (ledgerID uuid.UUID, partitions int32, window int64, ok bool) {
	return p.ledgerID, p.partitions, p.window, p.opened
}

// Claim returns the current claim of a queue.
func (p *Partition) Claim(queue string) (Claim, bool) {
	c, ok := p.claims[queue]
	return c, ok
}

// Active returns how many collections have not ended.
func (p *Partition) Active() int { return len(p.active) }

// Ending returns how many runs have ended whose finally tasks have not.
func (p *Partition) Ending() int {
	n := 0
	for _, runs := range p.ending {
		n += len(runs)
	}
	return n
}

// Apply folds one record and returns what it meant. It accepts any bytes. The
// only error is a *[HaltError]: the record was not applied and the position has
// not moved. The outcome's slices are valid until the next Apply.
func (p *Partition) Apply(r Record) (Outcome, error) {
	x := Parse(r)
	return p.ApplyParsed(&x)
}

// ApplyParsed is [Partition.Apply] for a record that was parsed before, here or
// elsewhere.
func (p *Partition) ApplyParsed(x *Parsed) (Outcome, error) {
	if x.Offset < p.position || x.Offset == math.MaxInt64 || x.Partition != p.index {
		return Outcome{}, p.halt(x, "", fmt.Sprintf("record %d:%d does not follow position %d:%d",
			x.Partition, x.Offset, p.index, p.position))
	}
	p.begin(x)
	switch {
	case x.err == nil:
		if err := p.judge(x); err != nil {
			return Outcome{}, err
		}
	case errors.Is(x.err, ErrForeign):
		p.out.Verdict = Foreign
	case errors.Is(x.err, ErrUnknownType):
		return Outcome{}, p.halt(x, x.Type, "this build does not know the type; a newer one wrote it")
	default:
		p.refuse(Invalid, Reason(tame(x.err.Error())))
	}
	p.advance(x)
	return p.out, nil
}

func (p *Partition) begin(x *Parsed) {
	o := &p.out
	o.Envelope, o.Offset, o.TimeMS, o.Hash = x.Envelope, x.Offset, x.TimeMS, x.hash
	o.Verdict, o.Reason = "", ""
	o.Collections, o.Runs, o.Tasks = o.Collections[:0], o.Runs[:0], o.Tasks[:0]
	o.Attempts, o.Touched = o.Attempts[:0], o.Touched[:0]
}

func (p *Partition) advance(x *Parsed) {
	var link [64]byte
	copy(link[:32], p.chain[:])
	copy(link[32:], x.hash[:])
	p.last, p.chain = x.hash, sha256.Sum256(link[:])
	p.epoch = x.LeaderEpoch
	p.position = x.Offset + 1
	if p.opened {
		p.win.evict(p.position - p.window)
	}
}

func (p *Partition) halt(x *Parsed, typ, why string) error {
	return &HaltError{Partition: p.index, Offset: x.Offset, Type: tame(typ), Why: why}
}

func (p *Partition) refuse(v Verdict, reason Reason) {
	p.out.Verdict, p.out.Reason = v, reason
}

func (p *Partition) stale(reason Reason) { p.refuse(Stale, reason) }

// touch notes that Next may now say something else about a run.
func (p *Partition) touch(id RunID) { p.out.Touched = append(p.out.Touched, id) }

// judge runs the rule of an event.
func (p *Partition) judge(x *Parsed) error {
	if opened, ok := x.Event.(LedgerOpened); ok {
		return p.applyOpened(x, opened)
	}
	if !p.opened {
		p.refuse(Invalid, "the partition is not opened yet")
		return nil
	}
	p.out.Verdict = Accepted
	switch e := x.Event.(type) {
	case LedgerOpened: // above
	case RulesActivated:
		return p.applyRules(x, e)
	case PartitionClaimed:
		p.applyClaimed(x, e)
	case PartitionReleased:
		p.applyReleased(x, e)
	case CollectionCreated:
		p.applyCreated(x, e)
	case RetryRequested:
		p.applyRetry(x, e)
	case CancelRequested:
		p.applyCancel(x, e)
	case TaskStarted:
		p.applyStarted(x, e)
	case TaskSucceeded:
		p.applySucceeded(x, e)
	case TaskFailed:
		p.applyFailed(x, e)
	case TaskDeferred:
		p.applyDeferred(x, e)
	}
	return nil
}

// applyOpened is R1.
func (p *Partition) applyOpened(x *Parsed, e LedgerOpened) error {
	switch {
	case p.opened:
		p.refuse(Duplicate, "")
		return nil
	case e.Rules > Rules:
		return p.halt(x, x.Type, fmt.Sprintf("the ledger was opened under rules version %d, this build knows %d: use a newer build", e.Rules, Rules))
	case e.Rules < Rules:
		return p.halt(x, x.Type, fmt.Sprintf("the ledger was opened by an earlier build under draft rules %d, which this build (rules %d) cannot read: start a new ledger (another prefix or data folder) or keep using the build that made it", e.Rules, Rules))
	}
	p.opened, p.ledgerID, p.partitions, p.window, p.rules = true, e.LedgerID, e.Partitions, e.Window, e.Rules
	p.out.Verdict = Accepted
	return nil
}

// applyRules is R1b. As long as version 1 is the only one there is nothing that
// could be activated.
func (p *Partition) applyRules(x *Parsed, e RulesActivated) error {
	if e.Rules > p.rules {
		return p.halt(x, x.Type, fmt.Sprintf("rules version %d is activated, this build knows %d: use a newer build", e.Rules, Rules))
	}
	p.refuse(Duplicate, "")
	return nil
}

// applyClaimed is R2.
func (p *Partition) applyClaimed(x *Parsed, e PartitionClaimed) {
	current, ok := p.claims[e.Queue]
	prev := int64(-1)
	if ok {
		prev = current.Offset
	}
	switch {
	case !ok && len(p.claims) >= MaxQueues:
		p.refuse(Invalid, "the partition has 64 queues already")
	// Compare and set: a claim that was delayed in the network must not fence
	// the healthy owner that came after it.
	case e.Prev != prev:
		p.stale(ReasonClaim)
	default:
		p.claims[e.Queue] = Claim{Offset: x.Offset, Worker: e.Worker}
	}
}

// holdsClaim reports whether offset and worker are the queue's current,
// unreleased claim.
func (p *Partition) holdsClaim(queue string, offset int64, worker string) bool {
	c, ok := p.claims[queue]
	return ok && c.Offset == offset && c.Worker == worker && !c.Released
}
