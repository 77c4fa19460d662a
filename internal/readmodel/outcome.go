package readmodel

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// A CommandOutcome is what became of a command.
type CommandOutcome struct {
	EventID    uuid.UUID
	Collection uuid.UUID // uuid.Nil when the record was too broken to tell
	Tenant     string    // "" when the record was too broken to tell
	Type       string    // ce_type, such as keten.v1.CollectionCreated
	Verdict    ledger.Verdict
	Reason     ledger.Reason
	Position   Position // behind the record that was judged
}

// CommandOutcome returns the verdict of a command. The error wraps
// [ErrNotFound] until its record has been folded.
func (s *Store) CommandOutcome(ctx context.Context, eventID uuid.UUID) (CommandOutcome, error) {
	const sql = `
select event_id, coalesce(collection_id, '00000000-0000-0000-0000-000000000000'), tenant, type, verdict, reason, partition, log_offset + 1
from command_outcomes where event_id = $1`
	var o CommandOutcome
	err := s.reads.QueryRow(ctx, sql, eventID).Scan(
		&o.EventID, &o.Collection, &o.Tenant, &o.Type, &o.Verdict, &o.Reason, &o.Position.Partition, &o.Position.Offset)
	if errors.Is(err, pgx.ErrNoRows) {
		return CommandOutcome{}, fmt.Errorf("read the outcome of command %s: %w", eventID, ErrNotFound)
	}
	if err != nil {
		return CommandOutcome{}, failed("read the outcome of command "+eventID.String(), err)
	}
	return o, nil
}

// Positions returns where the projection stands, for every partition it knows,
// in their order.
func (s *Store) Positions(ctx context.Context) ([]Position, error) {
	rows, err := s.reads.Query(ctx, `select partition, next_offset from checkpoints order by partition`)
	if err != nil {
		return nil, failed("read the positions", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Position])
	if err != nil {
		return nil, failed("read the positions", err)
	}
	return list, nil
}
