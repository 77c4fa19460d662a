package readmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// A Position is a place in one partition: the offset of the next record.
type Position struct {
	Partition int32
	Offset    int64
}

// A Collection is one collection as the projection has it at Position.
type Collection struct {
	ID             uuid.UUID
	Tenant         string
	Name           string
	Template       string
	Description    string
	Labels         map[string]string
	OrderingKey    string
	IdempotencyKey string // of its creation
	RequestHash    string // of its creation
	Status         ledger.Status
	Run            int // the last one
	TaskCount      int
	TasksDone      int
	// CurrentTask is the name of the task that runs, failed, was canceled or
	// comes next; "" once all have succeeded.
	CurrentTask     string
	CurrentTaskType string
	CurrentAttempt  int               // its attempts so far, over all runs
	Error           *ledger.TaskError // why the last run failed, without the detail; nil unless it did
	CreatedBy       ledger.Actor
	CreatedAt       time.Time
	StartedAt       *time.Time // of its first attempt ever
	FinishedAt      *time.Time // of its last run, nil while that is active
	UpdatedAt       time.Time
	Tasks           []Task // in order; nil in lists
	// Position is the projection's in the collection's partition, read in the
	// same snapshot.
	Position Position
}

// A Task is a task's definition in force and its state.
type Task struct {
	Definition ledger.Task // with Attempts set, as a retry carries it
	Status     ledger.Status
	Run        int // of its last change
	Attempts   int // in all runs

	// Of the last attempt in Run; AttemptID is -1 and the rest empty without.
	AttemptID  int64
	Worker     string
	StartedAt  *time.Time
	FinishedAt *time.Time
	Result     json.RawMessage
	Message    string
	Error      *ledger.TaskError
}

// An Attempt is one execution of a task.
type Attempt struct {
	ID         int64 // offset of its TaskStarted
	TaskID     uuid.UUID
	Run        int
	Number     int // from 1, over all runs; of a finally task within its run
	Claim      int64
	Worker     string
	Status     ledger.Status // running, deferred, succeeded, failed, superseded or not_started
	StartedAt  time.Time
	FinishedAt *time.Time
	Result     json.RawMessage
	Message    string
	Error      *ledger.TaskError
}

// A Run is one pass over a collection.
type Run struct {
	Run            int
	EventID        uuid.UUID // of the CollectionCreated or RetryRequested
	Status         ledger.Status
	IdempotencyKey string
	RequestHash    string
	Reason         string
	RequestedBy    ledger.Actor
	RequestedAt    time.Time
	StartedAt      *time.Time
	FinishedAt     *time.Time
	FailedTask     uuid.UUID         // uuid.Nil unless failed
	Error          *ledger.TaskError // without the detail, nil unless failed
}

// Collection returns one collection with its tasks, in one round trip. The
// error wraps [ErrNotFound] when the tenant has no such collection.
func (s *Store) Collection(ctx context.Context, tenant string, id uuid.UUID) (Collection, error) {
	c, _, err := s.snapshot(ctx, tenant, id)
	if err != nil {
		return Collection{}, failed("read collection "+id.String(), err)
	}
	if c == nil {
		return Collection{}, fmt.Errorf("read collection %s: %w", id, ErrNotFound)
	}
	return *c, nil
}

// ForCommand returns what an author of a command decides on: the collection
// with its tasks and results, nil when the tenant has none, and the position
// of the id's partition, all from one snapshot. A partition that was never
// projected stands at 0.
func (s *Store) ForCommand(ctx context.Context, tenant string, id uuid.UUID) (row *Collection, asOf int64, err error) {
	row, asOf, err = s.snapshot(ctx, tenant, id)
	if err != nil {
		return nil, 0, failed("read collection "+id.String()+" for a command", err)
	}
	return row, asOf, nil
}

const (
	beginSnapshot = `begin isolation level repeatable read read only`
	endSnapshot   = `commit`

	selectPosition = `select next_offset from checkpoints where partition = $1`

	// at is the first task that has not succeeded, before is the last that has:
	// together they know when something last happened.
	selectCollection = `
select c.id, c.tenant, c.name, c.template, c.description, c.labels, c.ordering_key, c.idempotency_key, c.request_hash,
    c.status, c.run, c.task_count, coalesce(at.index, c.task_count), coalesce(at.name, ''), coalesce(at.type, ''),
    coalesce(at.attempts, 0), c.created_by, c.created_at, c.started_at, c.finished_at,
    greatest(c.updated_at, at.started_at, at.finished_at, before.finished_at),
    c.partition, coalesce(k.next_offset, 0), c.error`

	joinCurrent = `
left join checkpoints k on k.partition = c.partition
left join lateral (
    select t.* from tasks t
    where t.collection_id = c.id and t.index >= c.tasks_done and t.status <> 'succeeded' order by t.index limit 1
) at on true
left join tasks before on before.collection_id = c.id and before.index = at.index - 1`

	selectOne = selectCollection + ` from collections c` + joinCurrent + ` where c.id = $1 and c.tenant = $2`

	selectTasks = `
select t.id, t.index, t.name, t.type, t.queue, t.description, t.args, t.immutable, t.on_interrupt, t.max_attempts,
    t.backoff_initial_ms, t.backoff_multiplier, t.backoff_max_ms, t.timeout_ms, t.status, t.run, t.attempts,
    coalesce(t.attempt_id, -1), coalesce(t.worker, ''), t.started_at, t.finished_at, t.result, coalesce(t.message, ''), t.error
from tasks t
where t.collection_id = $1 and exists (select from collections c where c.id = $1 and c.tenant = $2)
order by t.index`
)

// snapshot reads a collection, nil for none, and the position of its id's
// partition in one transaction, which is one round trip.
func (s *Store) snapshot(ctx context.Context, tenant string, id uuid.UUID) (*Collection, int64, error) {
	partition := ledger.PartitionOf(id)
	var b pgx.Batch
	b.Queue(beginSnapshot)
	b.Queue(selectPosition, partition)
	b.Queue(selectOne, id, tenant)
	b.Queue(selectTasks, id, tenant)
	b.Queue(endSnapshot)
	r := s.reads.SendBatch(ctx, &b)
	c, asOf, err := readSnapshot(r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, 0, err
	}
	if c != nil {
		c.Position = Position{Partition: partition, Offset: asOf}
	}
	return c, asOf, nil
}

func readSnapshot(r pgx.BatchResults) (*Collection, int64, error) {
	if _, err := r.Exec(); err != nil {
		return nil, 0, err
	}
	var asOf int64
	if err := r.QueryRow().Scan(&asOf); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, err
	}
	rows, err := r.Query()
	if err != nil {
		return nil, 0, err
	}
	found, err := pgx.CollectRows(rows, scanCollection)
	if err != nil {
		return nil, 0, err
	}
	if rows, err = r.Query(); err != nil {
		return nil, 0, err
	}
	tasks, err := pgx.CollectRows(rows, scanTask)
	if err != nil || len(found) == 0 {
		return nil, asOf, err
	}
	found[0].Tasks = tasks
	return &found[0], asOf, nil
}

func scanCollection(row pgx.CollectableRow) (Collection, error) {
	var c Collection
	err := row.Scan(
		&c.ID, &c.Tenant, &c.Name, &c.Template, &c.Description, &c.Labels, &c.OrderingKey, &c.IdempotencyKey, &c.RequestHash,
		&c.Status, &c.Run, &c.TaskCount, &c.TasksDone, &c.CurrentTask, &c.CurrentTaskType, &c.CurrentAttempt,
		&c.CreatedBy, &c.CreatedAt, &c.StartedAt, &c.FinishedAt, &c.UpdatedAt, &c.Position.Partition, &c.Position.Offset, &c.Error)
	c.utc()
	return c, err
}

func (c *Collection) utc() {
	c.CreatedAt, c.UpdatedAt = c.CreatedAt.UTC(), c.UpdatedAt.UTC()
	toUTC(c.StartedAt, c.FinishedAt)
}

func toUTC(times ...*time.Time) {
	for _, t := range times {
		if t != nil {
			*t = t.UTC()
		}
	}
}

func scanTask(row pgx.CollectableRow) (Task, error) {
	var t Task
	d := &t.Definition
	err := row.Scan(
		&d.ID, &d.Index, &d.Name, &d.Type, &d.Queue, &d.Description, &d.Args, &d.Immutable, &d.OnInterrupt, &d.MaxAttempts,
		&d.Backoff.InitialMS, &d.Backoff.Multiplier, &d.Backoff.MaxMS, &d.TimeoutMS, &t.Status, &t.Run, &t.Attempts,
		&t.AttemptID, &t.Worker, &t.StartedAt, &t.FinishedAt, &t.Result, &t.Message, &t.Error)
	d.Attempts = t.Attempts
	toUTC(t.StartedAt, t.FinishedAt)
	return t, err
}

const attemptColumns = `a.id, a.task_id, a.run, a.number, a.claim, a.worker, a.status, a.started_at, a.finished_at, a.result, a.message, a.error`

// columns are where attemptColumns go.
func (a *Attempt) columns() []any {
	return []any{
		&a.ID, &a.TaskID, &a.Run, &a.Number, &a.Claim, &a.Worker, &a.Status,
		&a.StartedAt, &a.FinishedAt, &a.Result, &a.Message, &a.Error,
	}
}

func (a *Attempt) utc() {
	a.StartedAt = a.StartedAt.UTC()
	toUTC(a.FinishedAt)
}

// Attempts returns all executions of a task, oldest first; none when the
// tenant has no such task or it was never started. Finally tasks have theirs,
// over all runs, although no collection shows them.
func (s *Store) Attempts(ctx context.Context, tenant string, task uuid.UUID) ([]Attempt, error) {
	const sql = `
select ` + attemptColumns + `
from attempts a
join collections c on c.id = a.collection_id
where a.task_id = $1 and c.tenant = $2
order by a.id`
	rows, err := s.reads.Query(ctx, sql, task, tenant)
	if err != nil {
		return nil, failed("read the attempts of task "+task.String(), err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Attempt, error) {
		var a Attempt
		err := row.Scan(a.columns()...)
		a.utc()
		return a, err
	})
	if err != nil {
		return nil, failed("read the attempts of task "+task.String(), err)
	}
	return list, nil
}

// Runs returns all runs of a collection, oldest first; none when the tenant
// has no such collection.
func (s *Store) Runs(ctx context.Context, tenant string, collection uuid.UUID) ([]Run, error) {
	const sql = `
select r.run, r.event_id, coalesce(r.status, c.status), r.idempotency_key, r.request_hash, r.reason, r.requested_by, r.requested_at,
    (select min(a.started_at) from task_definitions d join attempts a on a.task_id = d.id
        where d.collection_id = r.collection_id and a.run = r.run),
    r.finished_at, coalesce(r.failed_task, '00000000-0000-0000-0000-000000000000'), r.error
from runs r
join collections c on c.id = r.collection_id
where r.collection_id = $1 and c.tenant = $2
order by r.run`
	rows, err := s.reads.Query(ctx, sql, collection, tenant)
	if err != nil {
		return nil, failed("read the runs of collection "+collection.String(), err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Run, error) {
		var r Run
		err := row.Scan(&r.Run, &r.EventID, &r.Status, &r.IdempotencyKey, &r.RequestHash, &r.Reason, &r.RequestedBy,
			&r.RequestedAt, &r.StartedAt, &r.FinishedAt, &r.FailedTask, &r.Error)
		r.RequestedAt = r.RequestedAt.UTC()
		toUTC(r.StartedAt, r.FinishedAt)
		return r, err
	})
	if err != nil {
		return nil, failed("read the runs of collection "+collection.String(), err)
	}
	return list, nil
}
