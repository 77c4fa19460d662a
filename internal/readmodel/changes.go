package readmodel

import (
	"crypto/sha256"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// Changes are what a run of one partition's records makes of the tables: per
// row its last state, however often it changed in between, so that it does not
// matter where a history is cut into batches. Not safe for concurrent use.
type Changes struct {
	From Checkpoint // where the tables must stand
	To   Checkpoint // where they stand afterwards; the caller sets it

	Records int // that were added
	Bytes   int // of their values

	collections map[uuid.UUID]*collectionRow
	definitions map[taskKey]*definitionRow
	attempts    map[int64]*attemptRow
	runs        map[runKey]*runRow
	outcomes    map[uuid.UUID]*outcomeRow
	events      []eventRow
}

type (
	taskKey struct {
		collection uuid.UUID
		index      int
	}
	runKey struct {
		collection uuid.UUID
		run        int
	}
)

// origin says where a row comes from, which decides how it is written.
type origin int

const (
	changed   origin = iota // it is there already
	requested               // from a RetryRequested: it should be there
	created                 // from a CollectionCreated
)

// collectionRow holds a collection's last state.
type collectionRow struct {
	id         uuid.UUID
	origin     origin
	definition collectionDefinition // unless origin is changed
	status     ledger.Status
	run        int
	startedMS  int64 // counts only where the row has none; 0 for none
	finishedMS int64 // 0 for none
	// tasksDone is -1 when a run has started: the row keeps what it has.
	tasksDone   int
	failedIndex int // of the failed task, -1 for none
	err         *ledger.TaskError
	updatedMS   int64
}

type collectionDefinition struct {
	tenant, name, template, description      string
	labels                                   map[string]string
	orderingKey, idempotencyKey, requestHash string
	taskCount                                int
	actor                                    ledger.Actor
	createdMS                                int64
}

type definitionRow struct {
	taskKey
	*ledger.Task

	run    int
	offset int64
}

type attemptRow struct {
	ledger.AttemptChange

	opened     bool // in these records
	taskStatus ledger.Status
}

type runRow struct {
	runKey

	request    *runRequest   // nil unless it was opened in these records
	status     ledger.Status // "" until it has ended
	finishedMS int64
	failedTask uuid.UUID
	err        *ledger.TaskError
}

type runRequest struct {
	eventID                             uuid.UUID
	idempotencyKey, requestHash, reason string
	actor                               ledger.Actor
	timeMS                              int64
}

type outcomeRow struct {
	eventID, collection uuid.UUID
	tenant, typ         string
	verdict             ledger.Verdict
	reason              ledger.Reason
	partition           int32
	offset              int64
}

type eventRow struct {
	offset     int64
	eventID    uuid.UUID
	typ        string
	collection uuid.UUID
	tenant     string
	verdict    ledger.Verdict
	reason     ledger.Reason
	timeMS     int64
	data       []byte // nil unless it was decoded
	raw, hash  []byte // nil if it was
}

// NewChanges returns no changes, to be made where the tables stand.
func NewChanges(from Checkpoint) *Changes {
	return &Changes{
		From: from, To: from,
		collections: make(map[uuid.UUID]*collectionRow),
		definitions: make(map[taskKey]*definitionRow),
		attempts:    make(map[int64]*attemptRow),
		runs:        make(map[runKey]*runRow),
		outcomes:    make(map[uuid.UUID]*outcomeRow),
	}
}

// Add takes in what one record meant. Nothing of o is kept that the next Apply
// overwrites; the record's bytes must stay as they are.
func (c *Changes) Add(r ledger.Record, o ledger.Outcome) {
	c.Records++
	c.Bytes += len(r.Value)
	who := subjectOf(r, o)
	c.addEvent(r, o, who)
	if o.EventID != uuid.Nil && isCommand(o.Type) {
		c.addOutcome(o, who)
	}
	if o.Verdict != ledger.Accepted {
		return
	}
	switch e := o.Event.(type) {
	case ledger.CollectionCreated:
		c.create(o, e)
	case ledger.RetryRequested:
		c.retry(o, e)
	default:
		c.change(o)
	}
}

// subject is whom a record is about.
type subject struct {
	collection uuid.UUID
	tenant     string
}

// subjectOf reads it from the event, or from the key of one that could not be
// decoded.
func subjectOf(r ledger.Record, o ledger.Outcome) subject {
	switch e := o.Event.(type) {
	case ledger.CollectionCreated:
		return subject{e.CollectionID, e.Tenant}
	case ledger.RetryRequested:
		return subject{e.CollectionID, e.Tenant}
	case ledger.CancelRequested:
		return subject{e.CollectionID, e.Tenant}
	case ledger.TaskStarted:
		return subject{e.CollectionID, e.Tenant}
	case ledger.TaskSucceeded:
		return subject{e.CollectionID, e.Tenant}
	case ledger.TaskFailed:
		return subject{e.CollectionID, e.Tenant}
	case ledger.TaskDeferred:
		return subject{e.CollectionID, e.Tenant}
	case ledger.LedgerOpened, ledger.RulesActivated, ledger.PartitionClaimed, ledger.PartitionReleased:
		return subject{}
	}
	if o.Verdict == ledger.Invalid && len(r.Key) == 36 {
		if id, err := uuid.ParseBytes(r.Key); err == nil {
			return subject{collection: id}
		}
	}
	return subject{}
}

// maxRaw is how much is kept of a record that is not one of ours.
const maxRaw = 1 << 10

func (c *Changes) addEvent(r ledger.Record, o ledger.Outcome, who subject) {
	e := eventRow{
		offset: o.Offset, eventID: o.EventID, typ: o.Type, collection: who.collection, tenant: who.tenant,
		verdict: o.Verdict, reason: o.Reason, timeMS: o.TimeMS,
	}
	if o.Event != nil {
		e.data = r.Value
	} else {
		hash := sha256.Sum256(r.Value)
		e.raw, e.hash = append([]byte{}, r.Value[:min(len(r.Value), maxRaw)]...), hash[:]
	}
	c.events = append(c.events, e)
}

func isCommand(typ string) bool {
	switch typ {
	case ledger.TypePrefix + "v1.CollectionCreated", ledger.TypePrefix + "v1.RetryRequested", ledger.TypePrefix + "v1.CancelRequested":
		return true
	}
	return false
}

func (c *Changes) addOutcome(o ledger.Outcome, who subject) {
	if old := c.outcomes[o.EventID]; old != nil && (old.verdict == ledger.Accepted || o.Verdict != ledger.Accepted) {
		return
	}
	c.outcomes[o.EventID] = &outcomeRow{
		eventID: o.EventID, collection: who.collection, tenant: who.tenant, typ: o.Type,
		verdict: o.Verdict, reason: o.Reason, partition: c.From.Partition, offset: o.Offset,
	}
}

func (c *Changes) create(o ledger.Outcome, e ledger.CollectionCreated) {
	c.collections[e.CollectionID] = &collectionRow{
		id: e.CollectionID, origin: created, status: ledger.StatusPending, run: 1, failedIndex: -1, updatedMS: o.TimeMS,
		definition: collectionDefinition{
			tenant: e.Tenant, name: e.Name, template: e.Template, description: e.Description, labels: e.Labels,
			orderingKey: e.OrderingKey, idempotencyKey: e.IdempotencyKey, requestHash: e.RequestHash,
			taskCount: len(e.Tasks), actor: e.Actor, createdMS: o.TimeMS,
		},
	}
	c.open(o, e.CollectionID, 1, e.Tasks, runRequest{
		idempotencyKey: e.IdempotencyKey, requestHash: e.RequestHash, actor: e.Actor,
	})
}

func (c *Changes) retry(o ledger.Outcome, e ledger.RetryRequested) {
	row := c.collection(e.CollectionID)
	if row.origin == changed {
		row.origin = requested
		row.definition = collectionDefinition{
			tenant: e.Tenant, name: e.Name, template: e.Template, labels: e.Labels,
			orderingKey: e.OrderingKey, requestHash: e.RequestHash,
			taskCount: e.TaskCount, actor: e.Actor, createdMS: o.TimeMS,
		}
	}
	row.status, row.run, row.tasksDone = ledger.StatusPending, e.Run, e.TaskCount-len(e.Tasks)
	row.finishedMS, row.failedIndex, row.err, row.updatedMS = 0, -1, nil, o.TimeMS
	c.open(o, e.CollectionID, e.Run, e.Tasks, runRequest{
		idempotencyKey: e.IdempotencyKey, requestHash: e.RequestHash, reason: e.Reason, actor: e.Actor,
	})
}

// open takes in a new run with the definitions it brings. Those of finally tasks
// are in the event only: nothing reads them yet, and they are not part of the
// chain whose indexes the definitions are kept by. Their attempts have rows as
// all have.
func (c *Changes) open(o ledger.Outcome, id uuid.UUID, run int, tasks []ledger.Task, request runRequest) {
	for i := range tasks {
		key := taskKey{id, tasks[i].Index}
		c.definitions[key] = &definitionRow{taskKey: key, Task: &tasks[i], run: run, offset: o.Offset}
	}
	request.eventID, request.timeMS = o.EventID, o.TimeMS
	key := runKey{id, run}
	c.runs[key] = &runRow{runKey: key, request: &request}
}

// change takes in what an event of a run under way changed.
func (c *Changes) change(o ledger.Outcome) {
	for _, a := range o.Attempts {
		c.changeAttempt(a, o.Tasks)
	}
	for _, x := range o.Collections {
		c.changeCollection(o, x)
	}
	for _, r := range o.Runs {
		c.changeRun(o, r)
	}
}

func (c *Changes) collection(id uuid.UUID) *collectionRow {
	row := c.collections[id]
	if row == nil {
		row = &collectionRow{id: id, tasksDone: -1, failedIndex: -1}
		c.collections[id] = row
	}
	return row
}

func (c *Changes) changeCollection(o ledger.Outcome, x ledger.CollectionChange) {
	row := c.collection(x.ID)
	row.status, row.run, row.updatedMS = x.Status, x.Run, o.TimeMS
	if x.Status == ledger.StatusRunning {
		if row.startedMS == 0 {
			row.startedMS = o.TimeMS
		}
		return
	}
	row.finishedMS, row.tasksDone = o.TimeMS, tasksDone(x.ID, o.Tasks)
	if x.Status == ledger.StatusFailed {
		row.failedIndex = row.tasksDone
		for _, r := range o.Runs {
			row.err = r.Error
		}
	}
}

// tasksDone is how many tasks from the first have succeeded when a run ends:
// tasks are done in order, so the first that did not succeed tells, else the
// one that just did.
func tasksDone(collection uuid.UUID, tasks []ledger.TaskChange) int {
	done := 0
	for _, t := range tasks {
		if t.Collection != collection || t.TaskKind != ledger.KindTask {
			continue // a release may end the runs of several, and take back finally tasks
		}
		if t.Status != ledger.StatusSucceeded {
			return t.Index
		}
		done = t.Index + 1
	}
	return done
}

// changeAttempt also keeps what the attempt's task has become by it. A
// superseded attempt says nothing about its task: the new one does. One that
// was never started leaves its task pending, or canceled with its run.
func (c *Changes) changeAttempt(a ledger.AttemptChange, tasks []ledger.TaskChange) {
	row := c.attempts[a.ID]
	if row == nil {
		row = &attemptRow{opened: a.Status == ledger.StatusRunning}
		c.attempts[a.ID] = row
	}
	row.AttemptChange, row.taskStatus = a, a.Status
	if a.Status == ledger.StatusNotStarted {
		row.taskStatus = ledger.StatusPending
	}
	for _, t := range tasks {
		if t.AttemptID == a.ID {
			row.taskStatus = t.Status
		}
	}
}

func (c *Changes) changeRun(o ledger.Outcome, r ledger.RunChange) {
	if r.Status == ledger.StatusRunning {
		return // the collection's row says so
	}
	key := runKey{r.Collection, r.Run}
	row := c.runs[key]
	if row == nil {
		row = &runRow{runKey: key}
		c.runs[key] = row
	}
	row.status, row.finishedMS, row.failedTask, row.err = r.Status, o.TimeMS, r.FailedTask, r.Error
}
