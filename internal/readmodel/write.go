package readmodel

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A RefusedError reports that PostgreSQL refused the rows of a batch for what
// they contain, or would: repeating the same batch is pointless.
type RefusedError struct {
	Statement string // which rows: the name of the statement that failed
	Code      string // SQLSTATE
	Err       error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("PostgreSQL refused to %s: %v", e.Statement, e.Err)
}

// Unwrap returns PostgreSQL's error, or why it was not asked.
func (e *RefusedError) Unwrap() error { return e.Err }

// A statement is one step of a batch. Its name says what it does and is the
// name under which a connection has prepared it.
type statement struct {
	name string
	sql  string
}

// A call is a statement with its parameters in binary format.
type call struct {
	statement

	params [][]byte
}

// Write makes changes of several partitions in one transaction and one round
// trip: first the checkpoints are moved by compare-and-set, then the rows
// follow, then the new positions are announced. The error wraps [ErrConflict]
// when a checkpoint stood elsewhere, [ErrUnreachable] when the server went
// away, in which case the transaction may have happened; it is a
// *[RefusedError] when the server refused a row.
func (s *Store) Write(ctx context.Context, changes []*Changes) error {
	if len(changes) == 0 {
		return nil
	}
	calls := s.calls(changes)
	conn, err := s.writes.Acquire(ctx)
	if err != nil {
		return failed("write the projection", err)
	}
	defer conn.Release()
	return send(ctx, conn.Conn(), calls)
}

// send runs the calls in one implicit transaction: all of them stand before
// one Sync message, so the first error undoes them all.
func send(ctx context.Context, conn *pgx.Conn, calls []call) error {
	var b pgconn.Batch
	for _, c := range calls {
		// Known to the connection after the first time, without asking the server.
		sd, err := conn.Prepare(ctx, c.name, c.sql)
		if err != nil {
			return refused(c.name, err)
		}
		b.ExecStatement(sd, c.params, binaryFormat(), nil)
	}
	results := conn.PgConn().ExecBatch(ctx, &b)
	done := 0
	for results.NextResult() {
		if _, err := results.ResultReader().Close(); err != nil {
			break
		}
		done++
	}
	if err := results.Close(); err != nil {
		return refused(calls[min(done, len(calls)-1)].name, err)
	}
	return nil
}

func binaryFormat() []int16 { return []int16{pgx.BinaryFormatCode} }

// refused tells a refusal of the rows from all other errors.
func refused(name string, err error) error {
	if refusal := refusalOf(name, err); refusal != nil {
		return refusal
	}
	return failed("write the projection: "+name, err)
}

// refusalOf returns nil unless the server refused the rows.
func refusalOf(name string, err error) *RefusedError {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 {
		switch pg.Code[:2] {
		case "21", "22", "23", "54": // cardinality, data, constraint, a program limit
			return &RefusedError{Statement: name, Code: pg.Code, Err: err}
		}
	}
	return nil
}
