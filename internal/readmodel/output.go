package readmodel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What tasks say while they run comes from a topic of its own and lies in a
// schema of its own, with its own connections and positions: nothing of the
// projection waits for it, and it is not made again by a rebuild.

// outputConns are the connections for writing output: one for what comes in,
// one for what is deleted.
const outputConns = 2

// An OutputKind says what an OutputEntry is.
type OutputKind int

// The kinds of entries.
const (
	OutputProgress OutputKind = iota // how far the attempt has come; the newest counts
	OutputLine                       // a line of the attempt's log
	OutputCut                        // lines that followed were left out
)

// An OutputEntry is one thing that an attempt said.
type OutputEntry struct {
	Partition    int32
	AttemptID    int64
	CollectionID uuid.UUID
	TaskID       uuid.UUID
	Run          int
	Seq          int64 // grows with every entry of the attempt
	Kind         OutputKind
	Percent      int    // of a progress
	Text         string // valid UTF-8 without U+0000
	At           time.Time
	RecordedAt   time.Time // when the broker got it
}

// An OutputMove is how far a batch brings the position of a partition. Next may
// be before From: a topic that was made again begins anew.
type OutputMove struct {
	Partition  int32
	From, Next int64
}

// OutputCaps bound what is kept of the lines of one attempt.
type OutputCaps struct {
	Lines int
	Bytes int64
}

// OutputPositions returns, by partition, from which offset the output topic is
// to be read on, for partitions 0 to partitions-1; one that was not there yet is
// made, at offset 0. The error wraps [ErrOtherLedger] when the output is that of
// another ledger.
func (s *Store) OutputPositions(ctx context.Context, ledgerID uuid.UUID, partitions int32) (map[int32]int64, error) {
	const insert = `
insert into positions (partition, ledger_id, next_offset)
select p, $1, 0 from generate_series(0, $2::integer - 1) p order by p
on conflict (partition) do nothing`
	const sel = `select partition, next_offset, ledger_id from positions where partition < $1`
	if _, err := s.outputs.Exec(ctx, insert, ledgerID, partitions); err != nil {
		return nil, failed("make the positions of the output", err)
	}
	rows, err := s.outputs.Query(ctx, sel, partitions)
	if err != nil {
		return nil, failed("read the positions of the output", err)
	}
	positions := make(map[int32]int64, partitions)
	var partition int32
	var next int64
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&partition, &next, &id}, func() error {
		if id != ledgerID {
			return fmt.Errorf("schema %s was made from ledger %s, this is ledger %s: %w", s.outputSchema, id, ledgerID, ErrOtherLedger)
		}
		positions[partition] = next
		return nil
	})
	switch {
	case err == nil:
		return positions, nil
	case id != uuid.Nil && id != ledgerID:
		return nil, err
	}
	return nil, failed("read the positions of the output", err)
}

// WriteOutput takes in entries and moves the positions in one transaction.
// Entries of an attempt are in order; those that were taken in before are passed
// over, and lines beyond the caps are left out. The error wraps [ErrConflict]
// when a position stood elsewhere, [ErrUnreachable] when the server went away, in
// which case the transaction may have happened; it is a *[RefusedError] when a row
// cannot be stored for what it contains.
func (s *Store) WriteOutput(ctx context.Context, moves []OutputMove, entries []OutputEntry, caps OutputCaps) error {
	if len(moves) == 0 {
		return nil
	}
	for i := range entries {
		if err := entries[i].check(); err != nil {
			return &RefusedError{Statement: "write output", Code: outOfRange, Err: err}
		}
	}
	err := pgx.BeginFunc(ctx, s.outputs, func(tx pgx.Tx) error {
		known, err := lockOutput(ctx, tx, moves, entries)
		if err != nil {
			return err
		}
		rows, lines := foldOutput(known, entries, caps)
		return putOutput(ctx, tx, moves, rows, lines)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrConflict):
		return fmt.Errorf("write output: %w", err)
	}
	if refusal := refusalOf("write output", err); refusal != nil {
		return refusal
	}
	return failed("write output", err)
}

// outOfRange is PostgreSQL's code for a number or a time that a column cannot hold.
const outOfRange = "22003"

// check reports what does not fit into the columns. The client library would
// refuse it before the server does, with an error that has no type, or would let
// a time overflow.
func (e *OutputEntry) check() error {
	switch {
	case e.Run < 1 || e.Run > math.MaxInt32:
		return fmt.Errorf("run of attempt %d is %d, want 1 to %d", e.AttemptID, e.Run, math.MaxInt32)
	case e.Percent < 0 || e.Percent > 100:
		return fmt.Errorf("percent of attempt %d is %d, want 0 to 100", e.AttemptID, e.Percent)
	}
	for _, at := range []time.Time{e.At, e.RecordedAt} {
		if year := at.UTC().Year(); year < 0 || year > 9999 {
			return fmt.Errorf("a time of attempt %d is in year %d, want 0 to 9999", e.AttemptID, year)
		}
	}
	return nil
}

// outputKey names an attempt.
type outputKey struct {
	partition int32
	attempt   int64
}

func (k outputKey) compare(other outputKey) int {
	return cmp.Or(cmp.Compare(k.partition, other.partition), cmp.Compare(k.attempt, other.attempt))
}

// An outputRow is the row of an attempt.
type outputRow struct {
	outputKey

	collection uuid.UUID
	task       uuid.UUID
	run        int
	percent    *int
	text       *string
	progressAt *time.Time
	lastSeq    int64
	lines      int
	bytes      int64
	cut        bool
	beganAt    time.Time
}

// An outputLine is the row of a line.
type outputLine struct {
	outputKey

	seq  int64
	at   time.Time
	text string
}

// lockOutput keeps other writers out of the partitions, checks that these stand
// where the moves begin, and reads what is known of the entries' attempts.
func lockOutput(ctx context.Context, tx pgx.Tx, moves []OutputMove, entries []OutputEntry) (map[outputKey]*outputRow, error) {
	// In the order of the partitions: two writers cannot wait for each other in
	// a circle.
	const lock = `select partition, next_offset from positions where partition = any ($1) order by partition for update`
	const sel = `
select a.partition, a.attempt_id, a.collection_id, a.task_id, a.run, a.percent, a.text, a.progress_at, a.last_seq, a.lines, a.bytes, a.cut, a.began_at
from (select distinct * from unnest($1::integer[], $2::bigint[]) u (partition, attempt_id)) u
join attempts a on a.partition = u.partition and a.attempt_id = u.attempt_id`
	from := make(map[int32]int64, len(moves))
	locked := make([]int32, len(moves))
	for i, m := range moves {
		from[m.Partition], locked[i] = m.From, m.Partition
	}
	partitions, attempts := make([]int32, len(entries)), make([]int64, len(entries))
	for i := range entries {
		partitions[i], attempts[i] = entries[i].Partition, entries[i].AttemptID
	}
	known := make(map[outputKey]*outputRow)
	fits := 0
	var b pgx.Batch
	b.Queue(lock, locked).Query(func(rows pgx.Rows) error {
		var m OutputMove
		_, err := pgx.ForEachRow(rows, []any{&m.Partition, &m.From}, func() error {
			if from[m.Partition] == m.From {
				fits++
			}
			return nil
		})
		return err
	})
	b.Queue(sel, partitions, attempts).Query(func(rows pgx.Rows) error {
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*outputRow, error) {
			r := &outputRow{}
			return r, row.Scan(&r.partition, &r.attempt, &r.collection, &r.task, &r.run, &r.percent, &r.text, &r.progressAt,
				&r.lastSeq, &r.lines, &r.bytes, &r.cut, &r.beganAt)
		})
		for _, r := range list {
			known[r.outputKey] = r
		}
		return err
	})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, err
	}
	if fits != len(moves) {
		return nil, ErrConflict
	}
	return known, nil
}

// foldOutput brings the rows up to date and returns those that changed, and the
// lines to be kept.
func foldOutput(known map[outputKey]*outputRow, entries []OutputEntry, caps OutputCaps) (changed []*outputRow, lines []outputLine) {
	for i := range entries {
		e := &entries[i]
		key := outputKey{e.Partition, e.AttemptID}
		row := known[key]
		if row == nil {
			row = &outputRow{outputKey: key, collection: e.CollectionID, task: e.TaskID, run: e.Run, lastSeq: -1, beganAt: e.RecordedAt}
			known[key] = row
		}
		if e.Seq <= row.lastSeq {
			continue
		}
		row.lastSeq = e.Seq
		changed = append(changed, row)
		if row.take(e, caps) {
			lines = append(lines, outputLine{key, e.Seq, e.At, e.Text})
		}
	}
	slices.SortFunc(changed, func(a, b *outputRow) int { return a.compare(b.outputKey) })
	return slices.Compact(changed), lines
}

// take brings the row up to date by a new entry, and reports whether it is a
// line that is kept.
func (r *outputRow) take(e *OutputEntry, caps OutputCaps) bool {
	switch {
	case e.Kind == OutputProgress:
		r.percent, r.text, r.progressAt = &e.Percent, &e.Text, &e.At
	case r.cut:
	case e.Kind == OutputCut, r.lines >= caps.Lines, r.bytes+int64(len(e.Text)) > caps.Bytes:
		r.cut = true
	default:
		r.lines++
		r.bytes += int64(len(e.Text))
		return true
	}
	return false
}

// putOutput moves the positions and writes rows and lines.
func putOutput(ctx context.Context, tx pgx.Tx, moves []OutputMove, rows []*outputRow, lines []outputLine) error {
	var b pgx.Batch
	queueMoves(&b, moves)
	queueRows(&b, rows)
	queueLines(&b, lines)
	return tx.SendBatch(ctx, &b).Close()
}

func queueMoves(b *pgx.Batch, moves []OutputMove) {
	const sql = `
update positions p set next_offset = u.next_offset
from unnest($1::integer[], $2::bigint[]) u (partition, next_offset) where p.partition = u.partition`
	partitions, next := make([]int32, len(moves)), make([]int64, len(moves))
	for i, m := range moves {
		partitions[i], next[i] = m.Partition, m.Next
	}
	b.Queue(sql, partitions, next)
}

func queueRows(b *pgx.Batch, rows []*outputRow) {
	const sql = `
insert into attempts (partition, attempt_id, collection_id, task_id, run, percent, text, progress_at, last_seq, lines, bytes, cut, began_at)
select * from unnest($1::integer[], $2::bigint[], $3::uuid[], $4::uuid[], $5::integer[], $6::integer[], $7::text[], $8::timestamptz[],
    $9::bigint[], $10::integer[], $11::bigint[], $12::boolean[], $13::timestamptz[])
on conflict (partition, attempt_id) do update set percent = excluded.percent, text = excluded.text, progress_at = excluded.progress_at,
    last_seq = excluded.last_seq, lines = excluded.lines, bytes = excluded.bytes, cut = excluded.cut`
	if len(rows) == 0 {
		return
	}
	b.Queue(sql,
		columnOf(rows, func(r *outputRow) int32 { return r.partition }), columnOf(rows, func(r *outputRow) int64 { return r.attempt }),
		columnOf(rows, func(r *outputRow) uuid.UUID { return r.collection }), columnOf(rows, func(r *outputRow) uuid.UUID { return r.task }),
		columnOf(rows, func(r *outputRow) int { return r.run }), columnOf(rows, func(r *outputRow) *int { return r.percent }),
		columnOf(rows, func(r *outputRow) *string { return r.text }), columnOf(rows, func(r *outputRow) *time.Time { return r.progressAt }),
		columnOf(rows, func(r *outputRow) int64 { return r.lastSeq }), columnOf(rows, func(r *outputRow) int { return r.lines }),
		columnOf(rows, func(r *outputRow) int64 { return r.bytes }), columnOf(rows, func(r *outputRow) bool { return r.cut }),
		columnOf(rows, func(r *outputRow) time.Time { return r.beganAt }))
}

func queueLines(b *pgx.Batch, lines []outputLine) {
	const sql = `
insert into lines (partition, attempt_id, seq, at, text)
select * from unnest($1::integer[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::text[])
on conflict (partition, attempt_id, seq) do nothing`
	if len(lines) == 0 {
		return
	}
	b.Queue(sql,
		columnOf(lines, func(l outputLine) int32 { return l.partition }), columnOf(lines, func(l outputLine) int64 { return l.attempt }),
		columnOf(lines, func(l outputLine) int64 { return l.seq }), columnOf(lines, func(l outputLine) time.Time { return l.at }),
		columnOf(lines, func(l outputLine) string { return l.text }))
}

func columnOf[R, V any](rows []R, value func(R) V) []V {
	list := make([]V, len(rows))
	for i, r := range rows {
		list[i] = value(r)
	}
	return list
}

// DeleteOutput deletes the output of at most limit attempts that began to say
// something before a time, and returns how many they were: call it again while
// they are as many as the limit.
func (s *Store) DeleteOutput(ctx context.Context, before time.Time, limit int) (int, error) {
	// Two processes that do it at once share the work.
	const sql = `
with old as materialized (
    select partition, attempt_id from attempts where began_at < $1 order by began_at limit $2 for update skip locked
), gone as (
    delete from lines l using old where l.partition = old.partition and l.attempt_id = old.attempt_id
)
delete from attempts a using old where a.partition = old.partition and a.attempt_id = old.attempt_id`
	tag, err := s.outputs.Exec(ctx, sql, before, limit)
	if err != nil {
		return 0, failed("delete old output", err)
	}
	return int(tag.RowsAffected()), nil
}
