package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// A Claim is the right to start tasks of one queue.
type Claim struct {
	Offset   int64 // the fencing token
	Worker   string
	Released bool
}

// Partition is the fold of one partition's records. It is not safe for
// concurrent use: one goroutine owns it.
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
	active map[uuid.UUID]*collection
	win    window

	out Outcome // reused, so that folding allocates little
}

// collection is one active collection: its last run has not ended.
type collection struct {
	id       uuid.UUID
	tenant   string
	name     string
	run      int
	started  bool // an attempt was started in this run
	canceled bool
	waiting  bool   // the next task failed and waits for its next attempt
	first    int    // index of tasks[0] in the chain
	tasks    []Task // the run's tasks; Attempts counts their accepted starts
	next     int    // index into tasks of the one that runs or comes next
	input    json.RawMessage
	failures int // of the next task in this run
	lost     int // lost attempts of the next task in this run
	open     *openAttempt
	failed   lastFailure
	// sinceMS is the record time at which the next task became runnable.
	sinceMS int64
}

type openAttempt struct {
	id        int64
	claim     int64
	worker    string
	startedMS int64
}

// lastFailure is what Next needs of the failure before a waiting attempt.
type lastFailure struct {
	attemptID    int64
	timeMS       int64
	retryAfterMS int64
}

// NewPartition returns the fold of no records.
func NewPartition(index int32) *Partition {
	return &Partition{
		index:  index,
		epoch:  -1,
		claims: make(map[string]Claim),
		active: make(map[uuid.UUID]*collection),
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

// RecordHash is SHA-256 over a record's offset, key, headers and value as they
// stand in the log, every part behind its length.
func RecordHash(r Record) [32]byte {
	n := 8 + 8 + len(r.Key) + len(r.Value) + 4
	for _, h := range r.Headers {
		n += 8 + len(h.Key) + len(h.Value)
	}
	b := make([]byte, 0, n)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset)) //nolint:gosec // offsets are not negative
	b = appendPart(b, r.Key)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Headers))) //nolint:gosec // a record has few headers
	for _, h := range r.Headers {
		b = appendPart(b, []byte(h.Key))
		b = appendPart(b, h.Value)
	}
	return sha256.Sum256(appendPart(b, r.Value))
}

func appendPart(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // a record is far below 4 GiB
	return append(b, part...)
}

// Apply folds one record and returns what it meant. It accepts any bytes. The
// only error is a *[HaltError]: the record was not applied and the position has
// not moved. The outcome's slices are valid until the next Apply.
func (p *Partition) Apply(r Record) (Outcome, error) {
	if r.Offset < p.position || r.Partition != p.index {
		return Outcome{}, p.halt(r, "", fmt.Sprintf("record %d:%d does not follow position %d:%d",
			r.Partition, r.Offset, p.index, p.position))
	}
	p.begin(r)
	env, err := Decode(r)
	p.out.Envelope = env
	switch {
	case err == nil:
		if err := p.judge(r, env.Event); err != nil {
			return Outcome{}, err
		}
	case errors.Is(err, ErrForeign):
		p.out.Verdict = Foreign
	case errors.Is(err, ErrUnknownType):
		return Outcome{}, p.halt(r, env.Type, "this build does not know the type; a newer one wrote it")
	default:
		p.refuse(Invalid, Reason(err.Error()))
	}
	p.advance(r)
	return p.out, nil
}

func (p *Partition) begin(r Record) {
	p.out = Outcome{
		Offset: r.Offset, TimeMS: r.TimeMS,
		Collections: p.out.Collections[:0], Runs: p.out.Runs[:0],
		Tasks: p.out.Tasks[:0], Attempts: p.out.Attempts[:0],
	}
}

func (p *Partition) advance(r Record) {
	h := RecordHash(r)
	p.out.Hash = h
	p.last = h
	p.chain = sha256.Sum256(append(p.chain[:], h[:]...))
	p.epoch = r.LeaderEpoch
	p.position = r.Offset + 1
	if p.opened {
		p.win.evict(p.position - p.window)
	}
}

func (p *Partition) halt(r Record, typ, why string) error {
	return &HaltError{Partition: p.index, Offset: r.Offset, Type: typ, Why: why}
}

func (p *Partition) refuse(v Verdict, reason Reason) {
	p.out.Verdict, p.out.Reason = v, reason
}

func (p *Partition) stale(reason Reason) { p.refuse(Stale, reason) }

// judge runs the rule of an event.
func (p *Partition) judge(r Record, e Event) error {
	if opened, ok := e.(LedgerOpened); ok {
		return p.applyOpened(r, opened)
	}
	if !p.opened {
		p.refuse(Invalid, "the partition is not opened yet")
		return nil
	}
	p.out.Verdict = Accepted
	switch e := e.(type) {
	case LedgerOpened: // above
	case PartitionClaimed:
		p.applyClaimed(r, e)
	case CollectionCreated:
		p.applyCreated(r, e)
	case RetryRequested:
		p.applyRetry(r, e)
	case CancelRequested:
		p.applyCancel(r, e)
	case TaskStarted:
		p.applyStarted(r, e)
	case TaskSucceeded:
		p.applySucceeded(r, e)
	case TaskFailed:
		p.applyFailed(r, e)
	case RulesActivated, PartitionReleased, TaskDeferred:
		return p.halt(r, p.out.Type, "rules version 0 of this build does not judge it; a newer build wrote it")
	}
	return nil
}

// applyOpened is R1.
func (p *Partition) applyOpened(r Record, e LedgerOpened) error {
	if p.opened {
		p.refuse(Duplicate, "")
		return nil
	}
	switch {
	case e.Rules > Rules:
		return p.halt(r, p.out.Type, fmt.Sprintf("the ledger was opened under rules version %d, this build knows %d: use a newer build", e.Rules, Rules))
	case e.Rules < Rules:
		return p.halt(r, p.out.Type, fmt.Sprintf("the ledger was opened by an earlier build under draft rules %d, which this build (rules %d) cannot read: start a new ledger (another prefix or data folder) or keep using the build that made it", e.Rules, Rules))
	}
	p.opened, p.ledgerID, p.partitions, p.window, p.rules = true, e.LedgerID, e.Partitions, e.Window, e.Rules
	p.out.Verdict = Accepted
	return nil
}

// applyClaimed is R2.
func (p *Partition) applyClaimed(r Record, e PartitionClaimed) {
	current, ok := p.claims[e.Queue]
	prev := int64(-1)
	if ok {
		prev = current.Offset
	}
	switch {
	case !ok && len(p.claims) >= MaxQueues:
		p.refuse(Invalid, "the partition has 64 queues already")
	case e.Prev != prev:
		p.stale(ReasonClaim)
	default:
		p.claims[e.Queue] = Claim{Offset: r.Offset, Worker: e.Worker}
	}
}

// holdsClaim reports whether offset and worker are the queue's current,
// unreleased claim.
func (p *Partition) holdsClaim(queue string, offset int64, worker string) bool {
	c, ok := p.claims[queue]
	return ok && c.Offset == offset && c.Worker == worker && !c.Released
}

// judgeAsOf is the window check of R3 and R8. No difference is taken: a
// negative or huge as_of must not overflow into acceptance.
func (p *Partition) judgeAsOf(asOf, offset int64) Reason {
	switch {
	case asOf > offset:
		return ReasonAhead
	case asOf < 0 || asOf < offset-p.window:
		return ReasonWindow
	}
	return ""
}

// applyCreated is R3.
func (p *Partition) applyCreated(r Record, e CollectionCreated) {
	if want, ok := PartitionFor(e.Tenant, e.OrderingKey, e.IdempotencyKey, p.partitions); ok && want != p.index {
		p.refuse(Invalid, "/collection_id: carries another partition than its keys")
		return
	}
	if len(e.Finally) > 0 {
		p.refuse(Invalid, "/finally: rules version 0 has no finally tasks")
		return
	}
	_, active := p.active[e.CollectionID]
	_, ended := p.win.ended(e.CollectionID)
	if active || ended {
		p.refuse(Duplicate, "")
		return
	}
	if reason := p.judgeAsOf(e.AsOf, r.Offset); reason != "" {
		p.stale(reason)
		return
	}
	p.open(&collection{
		id: e.CollectionID, tenant: e.Tenant, name: e.Name, run: 1, tasks: slices.Clone(e.Tasks), sinceMS: r.TimeMS,
	})
}

// applyRetry is R8.
func (p *Partition) applyRetry(r Record, e RetryRequested) {
	// The idempotency key is the retry's, not the collection's: it has no say.
	if want, ok := PartitionFor(e.Tenant, e.OrderingKey, "", p.partitions); ok && want != p.index {
		p.refuse(Invalid, "/ordering_key: belongs to another partition")
		return
	}
	if len(e.Finally) > 0 {
		p.refuse(Invalid, "/finally: rules version 0 has no finally tasks")
		return
	}
	if _, active := p.active[e.CollectionID]; active {
		p.stale(ReasonActive)
		return
	}
	if at, ok := p.win.ended(e.CollectionID); ok && at >= e.AsOf {
		p.stale(ReasonChanged)
		return
	}
	if reason := p.judgeAsOf(e.AsOf, r.Offset); reason != "" {
		p.stale(reason)
		return
	}
	p.open(&collection{
		id: e.CollectionID, tenant: e.Tenant, name: e.Name, run: e.Run, tasks: slices.Clone(e.Tasks),
		first: e.TaskCount - len(e.Tasks), input: e.Input, sinceMS: r.TimeMS,
	})
}

func (p *Partition) open(c *collection) {
	p.active[c.id] = c
	p.out.Collections = append(p.out.Collections, CollectionChange{ID: c.id, Tenant: c.tenant, Run: c.run, Status: StatusPending})
	p.out.Runs = append(p.out.Runs, RunChange{Collection: c.id, Run: c.run, Status: StatusPending})
}

// applyCancel is R7.
func (p *Partition) applyCancel(r Record, e CancelRequested) {
	c, reason := p.find(e.CollectionID, e.Run)
	switch {
	case reason != "":
		p.stale(reason)
	case c.tenant != e.Tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
	case c.canceled:
		p.refuse(Duplicate, "")
	case c.open != nil:
		c.canceled = true
	default:
		c.canceled = true
		p.end(r, c, StatusCanceled, uuid.Nil, nil)
	}
}

// find returns the active collection whose run is the given one.
func (p *Partition) find(id uuid.UUID, run int) (*collection, Reason) {
	c := p.active[id]
	if c == nil || c.run != run {
		return nil, ReasonClosed
	}
	return c, ""
}

// task returns the collection's next task.
func (c *collection) task() *Task { return &c.tasks[c.next] }
