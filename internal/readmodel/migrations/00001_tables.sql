-- +goose Up

-- Where the projection stands in each partition. next_offset is the offset of
-- the first record that is not in the tables; the hashes prove that the log
-- still is the one the tables were made from.
create table checkpoints (
    partition    integer primary key,
    ledger_id    uuid    not null,
    next_offset  bigint  not null,
    leader_epoch integer not null,
    chain_hash   bytea   not null,
    last_hash    bytea   not null
) with (fillfactor = 20);

create table collections (
    id              uuid        primary key,
    partition       integer     not null,
    tenant          text        not null,
    name            text        not null,
    template        text        not null,
    description     text        not null,
    labels          jsonb       not null,
    ordering_key    text        not null,
    idempotency_key text        not null,
    request_hash    text        not null,
    status          text        not null,
    run             integer     not null,
    task_count      integer     not null,
    -- How many tasks from the first had succeeded when the status was set; while
    -- a run is under way the attempts know more.
    tasks_done      integer     not null,
    failed_type     text,
    error           jsonb,
    created_by      jsonb       not null,
    created_at      timestamptz not null,
    started_at      timestamptz,
    finished_at     timestamptz,
    updated_at      timestamptz not null -- when the status was set
);

-- Lists are newest first, always of one tenant. An id of a keyed collection has
-- no time in it, so the order is by time and the id only breaks ties.
create index collections_newest on collections (tenant, created_at desc, id desc);
create index collections_status on collections (tenant, status, created_at desc, id desc);
create index collections_name on collections (tenant, name, created_at desc, id desc);
create index collections_failed_type on collections (tenant, failed_type, created_at desc, id desc)
    where failed_type is not null;
create index collections_labels on collections using gin (labels jsonb_path_ops)
    where labels <> '{}';

-- How many collections of a tenant are in a status.
create table collection_counts (
    tenant text   not null,
    status text   not null,
    n      bigint not null,
    primary key (tenant, status)
) with (fillfactor = 20);

-- The definition in force of each task of the chain. Its state is in the attempts
-- that began behind defined_offset, so that a row is only written again by a
-- retry: read the view tasks. Finally tasks have none: theirs are in the data of
-- the event that opened the run.
create table task_definitions (
    collection_id      uuid    not null,
    index              integer not null,
    id                 uuid    not null,
    name               text    not null,
    type               text    not null,
    queue              text    not null,
    description        text    not null,
    args               json, -- as it was asked for, letter for letter
    immutable          boolean not null,
    on_interrupt       text    not null,
    max_attempts       integer not null,
    backoff_initial_ms bigint  not null,
    backoff_multiplier bigint  not null,
    backoff_max_ms     bigint  not null,
    timeout_ms         bigint  not null,
    run                integer not null, -- that brought the definition
    attempts           integer not null, -- in the runs before it
    defined_offset     bigint  not null, -- of the record that brought it
    primary key (collection_id, index)
);

-- Every execution, also of finally tasks. id is the offset of its TaskStarted;
-- its partition is in the bits of task_id. number counts over all runs, of a
-- finally task within its run. task_status is what its task has become by it.
create table attempts (
    task_id       uuid        not null,
    id            bigint      not null,
    collection_id uuid        not null,
    run           integer     not null,
    number        integer     not null,
    claim         bigint      not null,
    worker        text        not null,
    status        text        not null,
    task_status   text        not null,
    started_at    timestamptz not null,
    finished_at   timestamptz,
    result        json, -- letter for letter
    message       text        not null,
    error         jsonb,
    primary key (task_id, id)
) with (fillfactor = 60);

-- The current state of each task: what its last attempt under the definition
-- in force left, or pending without one, or canceled with its run.
create view tasks as
select d.collection_id, d.index, d.id, d.name, d.type, d.queue, d.description, d.args, d.immutable, d.on_interrupt,
    d.max_attempts, d.backoff_initial_ms, d.backoff_multiplier, d.backoff_max_ms, d.timeout_ms,
    case
        when c.status = 'canceled' and coalesce(a.task_status, 'pending') in ('pending', 'waiting') then 'canceled'
        else coalesce(a.task_status, 'pending')
    end as status,
    coalesce(a.run, d.run) as run, coalesce(a.number, d.attempts) as attempts,
    a.id as attempt_id, a.worker, a.started_at, a.finished_at, a.result, a.message, a.error
from task_definitions d
join collections c on c.id = d.collection_id and d.index < c.task_count
left join lateral (
    select * from attempts a where a.task_id = d.id and a.id > d.defined_offset order by a.id desc limit 1
) a on true;

-- One pass over a collection: run 1 is its creation, each retry adds one.
create table runs (
    collection_id   uuid        not null,
    run             integer     not null,
    event_id        uuid        not null,
    status          text, -- null until the run has ended
    idempotency_key text        not null,
    request_hash    text        not null,
    reason          text        not null,
    requested_by    jsonb       not null,
    requested_at    timestamptz not null,
    finished_at     timestamptz,
    failed_task     uuid,
    error           jsonb,
    primary key (collection_id, run)
) with (fillfactor = 60);

-- Every record of the log with its verdict. data is the event; of records that
-- are invalid or not ours raw is the first KiB of the value and hash the
-- SHA-256 of all of it.
create table events (
    partition     integer     not null,
    log_offset    bigint      not null,
    event_id      uuid,
    type          text        not null,
    collection_id uuid,
    tenant        text,
    verdict       text        not null,
    reason        text        not null,
    recorded_at   timestamptz not null,
    data          jsonb,
    raw           bytea,
    hash          bytea,
    primary key (partition, log_offset)
) with (toast_tuple_target = 8160); -- most events fit into a page as they are

-- The verdict of every command by its event id. A repeated append is another
-- record of the same command: accepted is never overwritten, and without it
-- the first verdict stays.
create table command_outcomes (
    event_id      uuid    primary key,
    collection_id uuid,
    tenant        text    not null,
    type          text    not null,
    verdict       text    not null,
    reason        text    not null,
    partition     integer not null,
    log_offset    bigint  not null
);

-- +goose StatementBegin
-- advance_checkpoints moves the checkpoints of several partitions and fails
-- with KT001, which undoes the whole transaction, unless each of them stands
-- where the writer thinks it does. The rows are locked in the order of their
-- partitions: two writers cannot wait for each other in a circle.
create function advance_checkpoints(
    ledger uuid, partitions integer[], old_offsets bigint[], new_offsets bigint[],
    epochs integer[], chains bytea[], lasts bytea[]
) returns void language plpgsql as $$
declare
    moved integer;
begin
    perform 1 from checkpoints where partition = any (partitions) order by partition for update;
    update checkpoints c
    set next_offset = u.new_offset, leader_epoch = u.epoch, chain_hash = u.chain, last_hash = u.last
    from unnest(partitions, old_offsets, new_offsets, epochs, chains, lasts)
        as u (part, old_offset, new_offset, epoch, chain, last)
    where c.partition = u.part and c.next_offset = u.old_offset and c.ledger_id = ledger;
    get diagnostics moved = row_count;
    if moved <> cardinality(partitions) then
        raise exception using errcode = 'KT001', message = 'the projection is not where this writer left it';
    end if;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function advance_checkpoints;
drop view tasks;
drop table command_outcomes, events, runs, attempts, task_definitions, collection_counts, collections, checkpoints;
