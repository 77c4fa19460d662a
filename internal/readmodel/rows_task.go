package readmodel

// defineTasks writes the definitions of a new run: those of a creation are
// new, those of a retry replace what the run before had.
func defineTasks() statement {
	return statement{"define tasks", `
insert into task_definitions (collection_id, index, id, name, type, queue, description, args, immutable, on_interrupt,
    max_attempts, backoff_initial_ms, backoff_multiplier, backoff_max_ms, timeout_ms, run, attempts, defined_offset)
select * from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::json[],
    $9::boolean[], $10::text[], $11::integer[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
    $16::integer[], $17::integer[], $18::bigint[])
on conflict (collection_id, index) do update set
    id = excluded.id, name = excluded.name, type = excluded.type, queue = excluded.queue, description = excluded.description,
    args = excluded.args, immutable = excluded.immutable, on_interrupt = excluded.on_interrupt,
    max_attempts = excluded.max_attempts, backoff_initial_ms = excluded.backoff_initial_ms,
    backoff_multiplier = excluded.backoff_multiplier, backoff_max_ms = excluded.backoff_max_ms,
    timeout_ms = excluded.timeout_ms, run = excluded.run, attempts = excluded.attempts,
    defined_offset = excluded.defined_offset`}
}

func addDefinitions(add adder, rows []*definitionRow) {
	n := len(rows)
	collection, index, id := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidUUID, n)
	name, typ, queue, description := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, n)
	args, immutable, interrupt := newColumn(oidPayload, 2*n), newColumn(oidBool, n), newColumn(oidText, n)
	most, initial, multiplier := newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidInt8, n)
	longest, timeout := newColumn(oidInt8, n), newColumn(oidInt8, n)
	run, attempts, offset := newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt8, n)
	for _, r := range rows {
		collection.uuid(r.collection)
		index.int4(r.index)
		id.uuid(r.ID)
		name.text(r.Name)
		typ.text(r.Type)
		queue.text(r.Queue)
		description.text(r.Description)
		args.payload(r.Args)
		immutable.bool(r.Immutable)
		interrupt.text(string(r.OnInterrupt))
		most.int4(r.MaxAttempts)
		initial.int8(r.Backoff.InitialMS)
		multiplier.int8(r.Backoff.Multiplier)
		longest.int8(r.Backoff.MaxMS)
		timeout.int8(r.TimeoutMS)
		run.int4(r.run)
		attempts.int4(r.Attempts)
		offset.int8(r.offset)
	}
	add(defineTasks(), n, collection, index, id, name, typ, queue, description, args, immutable, interrupt, most,
		initial, multiplier, longest, timeout, run, attempts, offset)
}

// openAttempts writes attempts that began in the batch. Each offset is written
// once, which the checkpoint sees to.
func openAttempts() statement {
	return statement{"open attempts", `
insert into attempts (collection_id, task_id, id, run, number, claim, worker, status, task_status, started_at, finished_at,
    result, message, error)
select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::integer[], $5::integer[], $6::bigint[], $7::text[],
    $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::json[], $13::text[], $14::jsonb[])`}
}

func closeAttempts() statement {
	return statement{"close attempts", `
update attempts a set status = u.status, task_status = u.task_status, finished_at = u.finished_at, result = u.result,
    message = u.message, error = u.error
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::json[], $7::text[], $8::jsonb[])
    as u (task_id, id, status, task_status, finished_at, result, message, error)
where a.task_id = u.task_id and a.id = u.id`}
}

func addAttempts(add adder, rows []*attemptRow) {
	addOpenedAttempts(add, rows)
	n := len(rows)
	task, id := newColumn(oidUUID, n), newColumn(oidInt8, n)
	status, becomes := newColumn(oidText, n), newColumn(oidText, n)
	finished, result := newColumn(oidTime, n), newColumn(oidPayload, n)
	message, errs := newColumn(oidText, n), newColumn(oidJSON, n)
	for _, r := range rows {
		if r.opened {
			continue
		}
		task.uuid(r.TaskID)
		id.int8(r.ID)
		status.text(string(r.Status))
		becomes.text(string(r.taskStatus))
		finished.timeOrNull(r.FinishedMS)
		result.payload(r.Result)
		message.text(r.Message)
		errs.json(encodeError(r.Error))
	}
	add(closeAttempts(), task.n, task, id, status, becomes, finished, result, message, errs)
}

func addOpenedAttempts(add adder, rows []*attemptRow) {
	n := len(rows)
	collection, task, id := newColumn(oidUUID, n), newColumn(oidUUID, n), newColumn(oidInt8, n)
	run, number, claim, worker := newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidText, 2*n)
	status, becomes := newColumn(oidText, n), newColumn(oidText, n)
	started, finished := newColumn(oidTime, n), newColumn(oidTime, n)
	result, message, errs := newColumn(oidPayload, n), newColumn(oidText, n), newColumn(oidJSON, n)
	for _, r := range rows {
		if !r.opened {
			continue
		}
		collection.uuid(r.Collection)
		task.uuid(r.TaskID)
		id.int8(r.ID)
		run.int4(r.Run)
		number.int4(r.Number)
		claim.int8(r.Claim)
		worker.text(r.Worker)
		status.text(string(r.Status))
		becomes.text(string(r.taskStatus))
		started.time(r.StartedMS)
		finished.timeOrNull(r.FinishedMS)
		result.payload(r.Result)
		message.text(r.Message)
		errs.json(encodeError(r.Error))
	}
	add(openAttempts(), id.n, collection, task, id, run, number, claim, worker, status, becomes, started, finished,
		result, message, errs)
}

// openRuns writes runs that were opened in the batch. That a run is opened
// twice takes a dishonest author; the later one counts.
func openRuns() statement {
	return statement{"open runs", `
insert into runs (collection_id, run, event_id, status, idempotency_key, request_hash, reason, requested_by, requested_at,
    finished_at, failed_task, error)
select * from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
    $9::timestamptz[], $10::timestamptz[], $11::uuid[], $12::jsonb[])
on conflict (collection_id, run) do update set
    event_id = excluded.event_id, status = excluded.status, idempotency_key = excluded.idempotency_key,
    request_hash = excluded.request_hash, reason = excluded.reason, requested_by = excluded.requested_by,
    requested_at = excluded.requested_at, finished_at = excluded.finished_at,
    failed_task = excluded.failed_task, error = excluded.error`}
}

func endRuns() statement {
	return statement{"end runs", `
update runs r set status = u.status, finished_at = u.finished_at, failed_task = u.failed_task, error = u.error
from unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[], $5::uuid[], $6::jsonb[])
    as u (collection_id, run, status, finished_at, failed_task, error)
where r.collection_id = u.collection_id and r.run = u.run`}
}

func addRuns(add adder, rows []*runRow) {
	addOpenedRuns(add, rows)
	n := len(rows)
	collection, run, status := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidText, n)
	finished, failed, errs := newColumn(oidTime, n), newColumn(oidUUID, n), newColumn(oidJSON, n)
	for _, r := range rows {
		if r.request != nil {
			continue
		}
		collection.uuid(r.collection)
		run.int4(r.run)
		status.text(string(r.status))
		finished.timeOrNull(r.finishedMS)
		failed.uuidOrNull(r.failedTask)
		errs.json(encodeSummary(r.err))
	}
	add(endRuns(), collection.n, collection, run, status, finished, failed, errs)
}

func addOpenedRuns(add adder, rows []*runRow) {
	n := len(rows)
	collection, run, event := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidUUID, n)
	status, idempotency, hash := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, 3*n)
	reason, by, requestedAt := newColumn(oidText, n), newColumn(oidJSON, 4*n), newColumn(oidTime, n)
	finished, failed, errs := newColumn(oidTime, n), newColumn(oidUUID, n), newColumn(oidJSON, n)
	for _, r := range rows {
		q := r.request
		if q == nil {
			continue
		}
		collection.uuid(r.collection)
		run.int4(r.run)
		event.uuid(q.eventID)
		status.textOrNull(string(r.status))
		idempotency.text(q.idempotencyKey)
		hash.text(q.requestHash)
		reason.text(q.reason)
		by.json(encode(q.actor))
		requestedAt.time(q.timeMS)
		finished.timeOrNull(r.finishedMS)
		failed.uuidOrNull(r.failedTask)
		errs.json(encodeSummary(r.err))
	}
	add(openRuns(), collection.n, collection, run, event, status, idempotency, hash, reason, by, requestedAt,
		finished, failed, errs)
}
