-- +goose Up

-- Where the projection of the output topic stands in each partition. It has
-- nothing to do with the checkpoints: output is no part of the ledger.
create table positions (
    partition   integer primary key,
    ledger_id   uuid    not null,
    next_offset bigint  not null
) with (fillfactor = 20);

-- What is known of the output of each attempt. attempt_id is the offset of its
-- TaskStarted in the partition.
create table attempts (
    partition     integer     not null,
    attempt_id    bigint      not null,
    collection_id uuid        not null,
    task_id       uuid        not null,
    run           integer     not null,
    -- The newest progress; null before the first.
    percent       integer,
    text          text,
    progress_at   timestamptz,
    last_seq      bigint      not null, -- of the newest entry: older ones are repetitions
    lines         integer     not null,
    bytes         bigint      not null, -- of all lines
    cut           boolean     not null, -- lines that followed were left out
    began_at      timestamptz not null, -- when the first entry was recorded; retention goes by it
    primary key (partition, attempt_id)
) with (fillfactor = 60);

create index attempts_began on attempts (began_at);

create table lines (
    partition  integer     not null,
    attempt_id bigint      not null,
    seq        bigint      not null,
    at         timestamptz not null, -- by the worker's clock
    text       text        not null,
    primary key (partition, attempt_id, seq)
);

-- +goose Down
drop table lines, attempts, positions;
