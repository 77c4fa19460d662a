package readmodel

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// Verdict returns the verdict of the record at an offset of the log, whatever
// its kind. The error wraps [ErrNotFound] until it has been folded, and again
// when it is no longer kept.
func (s *Store) Verdict(ctx context.Context, partition int32, offset int64) (ledger.Verdict, ledger.Reason, error) {
	const sql = `select verdict, reason from events where partition = $1 and log_offset = $2`
	what := "read the verdict of record " + strconv.Itoa(int(partition)) + ":" + strconv.FormatInt(offset, 10)
	var verdict ledger.Verdict
	var reason ledger.Reason
	err := s.reads.QueryRow(ctx, sql, partition, offset).Scan(&verdict, &reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		return "", "", failed(what, err)
	}
	return verdict, reason, nil
}

// Attempt returns one execution of a task, also of a finally task, and the
// projection's position in its partition, from one snapshot. The error wraps
// [ErrNotFound] when the tenant has none of that id.
func (s *Store) Attempt(ctx context.Context, tenant string, task uuid.UUID, id int64) (Attempt, Position, error) {
	const sql = `
select ` + attemptColumns + `, k.partition, k.next_offset
from attempts a
join collections c on c.id = a.collection_id
join checkpoints k on k.partition = c.partition
where a.task_id = $1 and a.id = $2 and c.tenant = $3`
	what := "read attempt " + strconv.FormatInt(id, 10) + " of task " + task.String()
	var a Attempt
	var at Position
	err := s.reads.QueryRow(ctx, sql, task, id, tenant).Scan(append(a.columns(), &at.Partition, &at.Offset)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Attempt{}, Position{}, fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		return Attempt{}, Position{}, failed(what, err)
	}
	a.utc()
	return a, at, nil
}
