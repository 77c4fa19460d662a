package readmodel

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
)

// Dump writes every row of every table, one JSON object per line in the order
// of the keys, from one snapshot. Two projections of the same records give the
// same bytes, however they came about; the leader epochs, which are the
// broker's affair, are left out.
func (s *Store) Dump(ctx context.Context, w io.Writer) error {
	tx, err := s.reads.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return failed("dump the projection", err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for _, t := range dumped() {
		if err := dumpTable(ctx, tx, w, t.name, t.sql); err != nil {
			return err
		}
	}
	return nil
}

type dumpedTable struct{ name, sql string }

func dumped() []dumpedTable {
	return []dumpedTable{
		{"checkpoints", `select (to_jsonb(t) - 'leader_epoch')::text from checkpoints t order by partition`},
		{"collections", `select to_jsonb(t)::text from collections t order by id`},
		// A status that no collection has any more may or may not have a row.
		{"collection_counts", `select to_jsonb(t)::text from collection_counts t where n <> 0 order by tenant collate "C", status collate "C"`},
		{"task_definitions", `select to_jsonb(t)::text from task_definitions t order by collection_id, index`},
		{"tasks", `select to_jsonb(t)::text from tasks t order by collection_id, index`},
		{"attempts", `select to_jsonb(t)::text from attempts t order by task_id, id`},
		{"runs", `select to_jsonb(t)::text from runs t order by collection_id, run`},
		{"events", `select to_jsonb(t)::text from events t order by partition, log_offset`},
		{"command_outcomes", `select to_jsonb(t)::text from command_outcomes t order by event_id`},
	}
}

func dumpTable(ctx context.Context, tx pgx.Tx, w io.Writer, name, sql string) error {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return failed("dump table "+name, err)
	}
	defer rows.Close()
	for rows.Next() {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", name, rows.RawValues()[0]); err != nil {
			return fmt.Errorf("write the dump: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return failed("dump table "+name, err)
	}
	return nil
}
