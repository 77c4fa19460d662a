package readmodel

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// calls turns changes into the statements that write them, leaving out those
// without rows. Rows of one table are written in the order of their keys: it
// keeps index pages warm, and writing the same changes twice does the same.
func (s *Store) calls(changes []*Changes) []call {
	rows := gather(changes)
	calls := []call{advanceCheckpoints(changes)}
	add := func(st statement, n int, params ...*column) {
		if n == 0 {
			return
		}
		c := call{statement: st, params: make([][]byte, len(params))}
		for i, p := range params {
			c.params[i] = p.param()
		}
		calls = append(calls, c)
	}
	addCounts(add, rows.collections)
	addDefinitions(add, rows.definitions)
	addAttempts(add, rows.attempts)
	addCollections(add, rows.collections)
	addRuns(add, rows.runs)
	addEvents(add, changes)
	addOutcomes(add, changes)
	return append(calls, s.announcements(changes)...)
}

// adder appends a call with n rows.
type adder func(st statement, n int, params ...*column)

// gathered are the rows of several partitions, each table in key order.
type gathered struct {
	collections []*collectionRow
	definitions []*definitionRow
	attempts    []*attemptRow
	runs        []*runRow
}

func gather(changes []*Changes) gathered {
	var g gathered
	for _, c := range changes {
		g.collections = slices.AppendSeq(g.collections, maps.Values(c.collections))
		g.definitions = slices.AppendSeq(g.definitions, maps.Values(c.definitions))
		g.attempts = slices.AppendSeq(g.attempts, maps.Values(c.attempts))
		g.runs = slices.AppendSeq(g.runs, maps.Values(c.runs))
	}
	slices.SortFunc(g.collections, func(a, b *collectionRow) int { return compareID(a.id, b.id) })
	slices.SortFunc(g.definitions, func(a, b *definitionRow) int {
		return cmp.Or(compareID(a.collection, b.collection), cmp.Compare(a.index, b.index))
	})
	slices.SortFunc(g.attempts, func(a, b *attemptRow) int {
		return cmp.Or(compareID(a.TaskID, b.TaskID), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(g.runs, func(a, b *runRow) int {
		return cmp.Or(compareID(a.collection, b.collection), cmp.Compare(a.run, b.run))
	})
	return g
}

func compareID(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

func advanceCheckpoints(changes []*Changes) call {
	n := len(changes)
	partitions, olds, news := newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidInt8, n)
	epochs, chains, lasts := newColumn(oidInt4, n), newColumn(oidBytea, n), newColumn(oidBytea, n)
	for _, c := range changes {
		partitions.int4(int(c.From.Partition))
		olds.int8(c.From.Next)
		news.int8(c.To.Next)
		epochs.int4(int(c.To.LeaderEpoch))
		chains.bytes(c.To.ChainHash[:])
		lasts.bytes(c.To.LastHash[:])
	}
	ledgerID := changes[0].From.LedgerID
	return call{
		statement{"advance the checkpoints", `select advance_checkpoints($1, $2, $3, $4, $5, $6, $7)`},
		[][]byte{ledgerID[:], partitions.param(), olds.param(), news.param(), epochs.param(), chains.param(), lasts.param()},
	}
}

// countCollections stands before the statements that change a status: each
// collection leaves the count of the status it still has and joins that of its
// new one. The tenant of a new one is known here only. Counts are locked in
// their order, so that two writers cannot wait for each other in a circle.
func countCollections() statement {
	return statement{"count collections", `
with moves as (
    select coalesce(c.tenant, u.tenant) as tenant, c.status as old, u.status as new
    from unnest($1::uuid[], $2::text[], $3::text[]) as u (id, tenant, status)
    left join collections c on c.id = u.id
)
insert into collection_counts (tenant, status, n)
select tenant, status, sum(n) from (
    select tenant, old as status, -1 as n from moves where old is not null
    union all
    select tenant, new, 1 from moves where tenant is not null
) m group by tenant, status having sum(n) <> 0 order by tenant, status
on conflict (tenant, status) do update set n = collection_counts.n + excluded.n`}
}

func addCounts(add adder, rows []*collectionRow) {
	n := len(rows)
	id, tenant, status := newColumn(oidUUID, n), newColumn(oidText, n), newColumn(oidText, n)
	for _, r := range rows {
		id.uuid(r.id)
		tenant.textOrNull(r.definition.tenant)
		status.text(string(r.status))
	}
	add(countCollections(), n, id, tenant, status)
}

const collectionColumns = `id, partition, tenant, name, template, description, labels, ordering_key, idempotency_key,
    request_hash, status, run, task_count, tasks_done, failed_type, error, created_by, created_at, started_at, finished_at, updated_at`

// insertCollections needs the definitions to be there: the type of the failed
// task is looked up.
const insertCollections = `
insert into collections (` + collectionColumns + `)
select u.id, u.partition, u.tenant, u.name, u.template, u.description, u.labels, u.ordering_key, u.idempotency_key,
    u.request_hash, u.status, u.run, u.task_count, u.tasks_done,
    (select d.type from task_definitions d where d.collection_id = u.id and d.index = u.failed_index),
    u.error, u.created_by, u.created_at, u.started_at, u.finished_at, u.updated_at
from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::text[],
    $10::text[], $11::text[], $12::integer[], $13::integer[], $14::integer[], $15::integer[], $16::jsonb[], $17::jsonb[],
    $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[])
    as u (id, partition, tenant, name, template, description, labels, ordering_key, idempotency_key,
    request_hash, status, run, task_count, tasks_done, failed_index, error, created_by,
    created_at, started_at, finished_at, updated_at)
on conflict (id) do update set `

func createCollections() statement {
	return statement{"create collections", insertCollections + `
    name = excluded.name, template = excluded.template, description = excluded.description, labels = excluded.labels,
    ordering_key = excluded.ordering_key, idempotency_key = excluded.idempotency_key, request_hash = excluded.request_hash,
    status = excluded.status, run = excluded.run, task_count = excluded.task_count, tasks_done = excluded.tasks_done,
    failed_type = excluded.failed_type, error = excluded.error, created_by = excluded.created_by,
    created_at = excluded.created_at, started_at = excluded.started_at, finished_at = excluded.finished_at,
    updated_at = excluded.updated_at`}
}

// retryCollections makes rows only for collections that were never created,
// which no honest author asks for.
func retryCollections() statement {
	return statement{"retry collections", insertCollections + `
    status = excluded.status, run = excluded.run, tasks_done = excluded.tasks_done,
    failed_type = excluded.failed_type, error = excluded.error,
    started_at = coalesce(collections.started_at, excluded.started_at), finished_at = excluded.finished_at,
    updated_at = excluded.updated_at`}
}

func changeCollections() statement {
	return statement{"change collections", `
update collections c set
    status = u.status, run = u.run, tasks_done = coalesce(u.tasks_done, c.tasks_done),
    failed_type = (select d.type from task_definitions d where d.collection_id = u.id and d.index = u.failed_index),
    error = u.error, started_at = coalesce(c.started_at, u.started_at), finished_at = u.finished_at, updated_at = u.updated_at
from unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::jsonb[],
    $7::timestamptz[], $8::timestamptz[], $9::timestamptz[])
    as u (id, status, run, tasks_done, failed_index, error, started_at, finished_at, updated_at)
where c.id = u.id`}
}

func addCollections(add adder, rows []*collectionRow) {
	addDefinedCollections(add, createCollections(), rows, created)
	addDefinedCollections(add, retryCollections(), rows, requested)
	addChangedCollections(add, rows)
}

func addDefinedCollections(add adder, st statement, rows []*collectionRow, from origin) {
	n := 0
	for _, r := range rows {
		if r.origin == from {
			n++
		}
	}
	if n == 0 {
		return
	}
	id, partition, tenant, name := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidText, n), newColumn(oidText, n)
	template, description, labels := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidJSON, n)
	ordering, idempotency, hash := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, 3*n)
	status, run, count, done := newColumn(oidText, n), newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt4, n)
	failed, errs, by := newColumn(oidInt4, n), newColumn(oidJSON, n), newColumn(oidJSON, 4*n)
	createdAt, started, finished, updated := newColumn(oidTime, n), newColumn(oidTime, n), newColumn(oidTime, n), newColumn(oidTime, n)
	for _, r := range rows {
		if r.origin != from {
			continue
		}
		d := &r.definition
		id.uuid(r.id)
		partition.int4(int(ledger.PartitionOf(r.id)))
		tenant.text(d.tenant)
		name.text(d.name)
		template.text(d.template)
		description.text(d.description)
		labels.json(encodeLabels(d.labels))
		ordering.text(d.orderingKey)
		idempotency.text(d.idempotencyKey)
		hash.text(d.requestHash)
		status.text(string(r.status))
		run.int4(r.run)
		count.int4(d.taskCount)
		done.int4(r.tasksDone)
		failed.int4OrNull(r.failedIndex)
		errs.json(encodeSummary(r.err))
		by.json(encode(d.actor))
		createdAt.time(d.createdMS)
		started.timeOrNull(r.startedMS)
		finished.timeOrNull(r.finishedMS)
		updated.time(r.updatedMS)
	}
	add(st, n, id, partition, tenant, name, template, description, labels, ordering, idempotency, hash,
		status, run, count, done, failed, errs, by, createdAt, started, finished, updated)
}

func addChangedCollections(add adder, rows []*collectionRow) {
	n := len(rows)
	id, status, run, done := newColumn(oidUUID, n), newColumn(oidText, n), newColumn(oidInt4, n), newColumn(oidInt4, n)
	failed, errs := newColumn(oidInt4, n), newColumn(oidJSON, n)
	started, finished, updated := newColumn(oidTime, n), newColumn(oidTime, n), newColumn(oidTime, n)
	for _, r := range rows {
		if r.origin != changed {
			continue
		}
		id.uuid(r.id)
		status.text(string(r.status))
		run.int4(r.run)
		done.int4OrNull(r.tasksDone)
		failed.int4OrNull(r.failedIndex)
		errs.json(encodeSummary(r.err))
		started.timeOrNull(r.startedMS)
		finished.timeOrNull(r.finishedMS)
		updated.time(r.updatedMS)
	}
	add(changeCollections(), id.n, id, status, run, done, failed, errs, started, finished, updated)
}

func encodeLabels(labels map[string]string) json.RawMessage {
	if len(labels) == 0 {
		return json.RawMessage(`{}`)
	}
	return encode(labels)
}

func encodeError(e *ledger.TaskError) json.RawMessage {
	if e == nil {
		return nil
	}
	return encode(e)
}

// encodeSummary leaves out the detail, of up to 64 KiB, which the attempt has.
func encodeSummary(e *ledger.TaskError) json.RawMessage {
	if e == nil {
		return nil
	}
	short := *e
	short.Detail = ""
	return encode(short)
}

// encode is for structs and maps of strings, which always can be.
func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
