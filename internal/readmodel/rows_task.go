package readmodel

// defineTasks writes the tasks of a new run: those of a creation are new,
// those of a retry replace the definition and the state of the run before.
func defineTasks() statement {
	return statement{"define tasks", `
insert into tasks (collection_id, index, id, name, type, queue, description, args, immutable, on_interrupt, max_attempts,
    backoff_initial_ms, backoff_multiplier, backoff_max_ms, timeout_ms, status, run, attempts, attempt_id)
select * from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
    $9::boolean[], $10::text[], $11::integer[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
    $16::text[], $17::integer[], $18::integer[], $19::bigint[])
on conflict (collection_id, index) do update set
    id = excluded.id, name = excluded.name, type = excluded.type, queue = excluded.queue, description = excluded.description,
    args = excluded.args, immutable = excluded.immutable, on_interrupt = excluded.on_interrupt,
    max_attempts = excluded.max_attempts, backoff_initial_ms = excluded.backoff_initial_ms,
    backoff_multiplier = excluded.backoff_multiplier, backoff_max_ms = excluded.backoff_max_ms,
    timeout_ms = excluded.timeout_ms, status = excluded.status, run = excluded.run, attempts = excluded.attempts,
    attempt_id = excluded.attempt_id`}
}

func changeTasks() statement {
	return statement{"change tasks", `
update tasks t set status = u.status, run = u.run, attempts = u.attempts, attempt_id = coalesce(u.attempt_id, t.attempt_id)
from unnest($1::uuid[], $2::integer[], $3::text[], $4::integer[], $5::integer[], $6::bigint[])
    as u (collection_id, index, status, run, attempts, attempt_id)
where t.collection_id = u.collection_id and t.index = u.index`}
}

func addTasks(add adder, rows []*taskRow) {
	addDefinedTasks(add, rows)
	n := len(rows)
	collection, index, status := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidText, n)
	run, attempts, attempt := newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt8, n)
	for _, r := range rows {
		if r.definition != nil {
			continue
		}
		collection.uuid(r.collection)
		index.int4(r.index)
		status.text(string(r.status))
		run.int4(r.run)
		attempts.int4(r.attempts)
		attempt.int8OrNull(r.attemptID)
	}
	add(changeTasks(), collection.n, collection, index, status, run, attempts, attempt)
}

func addDefinedTasks(add adder, rows []*taskRow) {
	n := 0
	for _, r := range rows {
		if r.definition != nil {
			n++
		}
	}
	if n == 0 {
		return
	}
	collection, index, id := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidUUID, n)
	name, typ, queue, description := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, n)
	args, immutable, interrupt := newColumn(oidJSON, 2*n), newColumn(oidBool, n), newColumn(oidText, n)
	most, initial, multiplier := newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidInt8, n)
	longest, timeout := newColumn(oidInt8, n), newColumn(oidInt8, n)
	status, run, attempts, attempt := newColumn(oidText, n), newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt8, n)
	for _, r := range rows {
		d := r.definition
		if d == nil {
			continue
		}
		collection.uuid(r.collection)
		index.int4(r.index)
		id.uuid(d.ID)
		name.text(d.Name)
		typ.text(d.Type)
		queue.text(d.Queue)
		description.text(d.Description)
		args.json(d.Args)
		immutable.bool(d.Immutable)
		interrupt.text(string(d.OnInterrupt))
		most.int4(d.MaxAttempts)
		initial.int8(d.Backoff.InitialMS)
		multiplier.int8(d.Backoff.Multiplier)
		longest.int8(d.Backoff.MaxMS)
		timeout.int8(d.TimeoutMS)
		status.text(string(r.status))
		run.int4(r.run)
		attempts.int4(r.attempts)
		attempt.int8OrNull(r.attemptID)
	}
	add(defineTasks(), n, collection, index, id, name, typ, queue, description, args, immutable, interrupt, most,
		initial, multiplier, longest, timeout, status, run, attempts, attempt)
}

// openAttempts writes attempts that began in the batch. Each offset is written
// once, which the checkpoint sees to.
func openAttempts() statement {
	return statement{"open attempts", `
insert into attempts (collection_id, task_id, id, run, number, claim, worker, status, started_at, finished_at, result, message, error)
select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::integer[], $5::integer[], $6::bigint[], $7::text[],
    $8::text[], $9::timestamptz[], $10::timestamptz[], $11::jsonb[], $12::text[], $13::jsonb[])`}
}

func closeAttempts() statement {
	return statement{"close attempts", `
update attempts a set status = u.status, finished_at = u.finished_at, result = u.result, message = u.message, error = u.error
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::jsonb[], $6::text[], $7::jsonb[])
    as u (task_id, id, status, finished_at, result, message, error)
where a.task_id = u.task_id and a.id = u.id`}
}

func addAttempts(add adder, rows []*attemptRow) {
	addOpenedAttempts(add, rows)
	n := len(rows)
	task, id, status := newColumn(oidUUID, n), newColumn(oidInt8, n), newColumn(oidText, n)
	finished, result := newColumn(oidTime, n), newColumn(oidJSON, n)
	message, errs := newColumn(oidText, n), newColumn(oidJSON, n)
	for _, r := range rows {
		if r.opened {
			continue
		}
		task.uuid(r.TaskID)
		id.int8(r.ID)
		status.text(string(r.Status))
		finished.timeOrNull(r.FinishedMS)
		result.json(r.Result)
		message.text(r.Message)
		errs.json(encodeError(r.Error))
	}
	add(closeAttempts(), task.n, task, id, status, finished, result, message, errs)
}

func addOpenedAttempts(add adder, rows []*attemptRow) {
	n := len(rows)
	collection, task, id := newColumn(oidUUID, n), newColumn(oidUUID, n), newColumn(oidInt8, n)
	run, number, claim, worker := newColumn(oidInt4, n), newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidText, 2*n)
	status, started, finished := newColumn(oidText, n), newColumn(oidTime, n), newColumn(oidTime, n)
	result, message, errs := newColumn(oidJSON, n), newColumn(oidText, n), newColumn(oidJSON, n)
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
		started.time(r.StartedMS)
		finished.timeOrNull(r.FinishedMS)
		result.json(r.Result)
		message.text(r.Message)
		errs.json(encodeError(r.Error))
	}
	add(openAttempts(), id.n, collection, task, id, run, number, claim, worker, status, started, finished, result, message, errs)
}

// openRuns writes runs that were opened in the batch. That a run is opened
// twice takes a dishonest author; the later one counts.
func openRuns() statement {
	return statement{"open runs", `
insert into runs (collection_id, run, event_id, status, idempotency_key, request_hash, reason, requested_by, requested_at,
    started_at, finished_at, failed_task, error)
select * from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::uuid[], $13::jsonb[])
on conflict (collection_id, run) do update set
    event_id = excluded.event_id, status = excluded.status, idempotency_key = excluded.idempotency_key,
    request_hash = excluded.request_hash, reason = excluded.reason, requested_by = excluded.requested_by,
    requested_at = excluded.requested_at, started_at = excluded.started_at, finished_at = excluded.finished_at,
    failed_task = excluded.failed_task, error = excluded.error`}
}

func changeRuns() statement {
	return statement{"change runs", `
update runs r set status = u.status, started_at = coalesce(u.started_at, r.started_at), finished_at = u.finished_at,
    failed_task = u.failed_task, error = u.error
from unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::uuid[], $7::jsonb[])
    as u (collection_id, run, status, started_at, finished_at, failed_task, error)
where r.collection_id = u.collection_id and r.run = u.run`}
}

func addRuns(add adder, rows []*runRow) {
	addOpenedRuns(add, rows)
	n := len(rows)
	collection, run, status := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidText, n)
	started, finished := newColumn(oidTime, n), newColumn(oidTime, n)
	failed, errs := newColumn(oidUUID, n), newColumn(oidJSON, n)
	for _, r := range rows {
		if r.request != nil {
			continue
		}
		collection.uuid(r.collection)
		run.int4(r.run)
		status.text(string(r.status))
		started.timeOrNull(r.startedMS)
		finished.timeOrNull(r.finishedMS)
		failed.uuidOrNull(r.failedTask)
		errs.json(encodeSummary(r.err))
	}
	add(changeRuns(), collection.n, collection, run, status, started, finished, failed, errs)
}

func addOpenedRuns(add adder, rows []*runRow) {
	n := len(rows)
	collection, run, event := newColumn(oidUUID, n), newColumn(oidInt4, n), newColumn(oidUUID, n)
	status, idempotency, hash := newColumn(oidText, n), newColumn(oidText, n), newColumn(oidText, 3*n)
	reason, by, requestedAt := newColumn(oidText, n), newColumn(oidJSON, 4*n), newColumn(oidTime, n)
	started, finished := newColumn(oidTime, n), newColumn(oidTime, n)
	failed, errs := newColumn(oidUUID, n), newColumn(oidJSON, n)
	for _, r := range rows {
		q := r.request
		if q == nil {
			continue
		}
		collection.uuid(r.collection)
		run.int4(r.run)
		event.uuid(q.eventID)
		status.text(string(r.status))
		idempotency.text(q.idempotencyKey)
		hash.text(q.requestHash)
		reason.text(q.reason)
		by.json(encodeActor(q.actor))
		requestedAt.time(q.timeMS)
		started.timeOrNull(r.startedMS)
		finished.timeOrNull(r.finishedMS)
		failed.uuidOrNull(r.failedTask)
		errs.json(encodeSummary(r.err))
	}
	add(openRuns(), collection.n, collection, run, event, status, idempotency, hash, reason, by, requestedAt,
		started, finished, failed, errs)
}
