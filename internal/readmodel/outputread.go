package readmodel

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// The lengths of a page of lines.
const (
	DefaultLines = 100
	MaxLines     = 1_000
)

// A Progress is how far an attempt has come, by its own word.
type Progress struct {
	Percent int // 0 to 100
	Text    string
	At      time.Time // by the worker's clock
}

// An OutputFilter says which lines are read.
type OutputFilter struct {
	Tenant     string
	Collection uuid.UUID
	Task       uuid.UUID
	// Attempt is the attempt's id; negative: the cursor's, without one the
	// task's newest.
	Attempt int64
	After   string // Next of the page before
	Limit   int    // default [DefaultLines], at most [MaxLines]
}

// An OutputPage is a part of an attempt's lines, oldest first.
type OutputPage struct {
	Attempt  *OutputAttempt // nil when the task was never started
	Progress *Progress      // nil when the attempt has said nothing of it
	Lines    []Line
	// Next is the cursor for what comes behind these lines, also when nothing
	// is there yet; "" without an attempt.
	Next string
	More bool // whether there are lines behind these now
	Cut  bool // whether lines behind these were left out; never with More
}

// An OutputAttempt says whose output a page is.
type OutputAttempt struct {
	ID     int64
	Number int
	Run    int
	Status ledger.Status
}

// A Line is one line of an attempt's log.
type Line struct {
	Seq  int64 // grows, with gaps
	At   time.Time
	Text string
}

// Progress returns, by attempt id, how far attempts of one partition have come;
// those that have not said it are not in it. Whose they are is the caller's to
// know.
func (s *Store) Progress(ctx context.Context, partition int32, attempts []int64) (map[int64]Progress, error) {
	sql := `
select attempt_id, percent, text, progress_at from ` + s.outputSchema + `.attempts
where partition = $1 and attempt_id = any ($2) and percent is not null`
	rows, err := s.reads.Query(ctx, sql, partition, attempts)
	if err != nil {
		return nil, failed("read the progress of attempts", err)
	}
	all := make(map[int64]Progress)
	var id int64
	var p Progress
	_, err = pgx.ForEachRow(rows, []any{&id, &p.Percent, &p.Text, &p.At}, func() error {
		p.At = p.At.UTC()
		all[id] = p
		return nil
	})
	if err != nil {
		return nil, failed("read the progress of attempts", err)
	}
	return all, nil
}

// Output returns a page of an attempt's lines. The error wraps [ErrNotFound]
// when the tenant has no such collection, [ErrNoTask] when that has no such task,
// [ErrNoAttempt] when that has no such attempt, and [ErrBadCursor] when the cursor
// is not one of the same attempt.
func (s *Store) Output(ctx context.Context, f OutputFilter) (OutputPage, error) {
	after := int64(-1)
	if f.After != "" {
		attempt, seq, err := decodeOutputCursor(f.After)
		if err != nil || f.Attempt >= 0 && f.Attempt != attempt {
			return OutputPage{}, fmt.Errorf("read the output of task %s: %w", f.Task, ErrBadCursor)
		}
		f.Attempt, after = attempt, seq
	}
	if f.Limit <= 0 {
		f.Limit = DefaultLines
	}
	f.Limit = min(f.Limit, MaxLines)
	attempt, err := s.outputAttempt(ctx, f)
	if err != nil || attempt == nil {
		return OutputPage{}, err
	}
	page, err := s.lines(ctx, f, attempt, after)
	if err != nil {
		return OutputPage{}, failed("read the output of task "+f.Task.String(), err)
	}
	return page, nil
}

// outputAttempt finds the attempt whose lines are wanted: nil when none was
// asked for and the task has none.
func (s *Store) outputAttempt(ctx context.Context, f OutputFilter) (*OutputAttempt, error) {
	const sql = `
select exists (select from task_definitions d where d.collection_id = c.id and d.id = $3 and d.index < c.task_count)
    or exists (select from attempts a where a.task_id = $3 and a.collection_id = c.id),
    coalesce(a.id, -1), coalesce(a.number, 0), coalesce(a.run, 0), coalesce(a.status, '')
from collections c
left join lateral (
    select * from attempts a where a.task_id = $3 and a.collection_id = c.id and ($4 < 0 or a.id = $4) order by a.id desc limit 1
) a on true
where c.id = $2 and c.tenant = $1`
	var isTask bool
	var a OutputAttempt
	err := s.reads.QueryRow(ctx, sql, f.Tenant, f.Collection, f.Task, f.Attempt).Scan(&isTask, &a.ID, &a.Number, &a.Run, &a.Status)
	doing := "read the output of task " + f.Task.String()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("%s: %w", doing, ErrNotFound)
	case err != nil:
		return nil, failed(doing, err)
	case !isTask:
		return nil, fmt.Errorf("%s: %w", doing, ErrNoTask)
	case a.ID >= 0:
		return &a, nil
	case f.After != "":
		return nil, fmt.Errorf("%s: %w", doing, ErrBadCursor)
	case f.Attempt >= 0:
		return nil, fmt.Errorf("%s: %w", doing, ErrNoAttempt)
	}
	return nil, nil //nolint:nilnil // there is neither
}

// lines reads a page of an attempt. The mark of a cut is read before the lines:
// when it is there, so are all lines.
func (s *Store) lines(ctx context.Context, f OutputFilter, attempt *OutputAttempt, after int64) (OutputPage, error) {
	partition := ledger.PartitionOf(f.Collection)
	selectAttempt := `
select percent, coalesce(text, ''), progress_at, cut from ` + s.outputSchema + `.attempts
where partition = $1 and attempt_id = $2 and task_id = $3`
	selectLines := `
select seq, at, text from ` + s.outputSchema + `.lines where partition = $1 and attempt_id = $2 and seq > $3 order by seq limit $4`
	page := OutputPage{Attempt: attempt, Lines: []Line{}}
	known, cut := false, false
	var b pgx.Batch
	b.Queue(selectAttempt, partition, attempt.ID, f.Task).Query(func(rows pgx.Rows) error {
		var percent *int
		var text string
		var at *time.Time
		_, err := pgx.ForEachRow(rows, []any{&percent, &text, &at, &cut}, func() error {
			known = true
			if percent != nil && at != nil {
				page.Progress = &Progress{Percent: *percent, Text: text, At: at.UTC()}
			}
			return nil
		})
		return err
	})
	b.Queue(selectLines, partition, attempt.ID, after, f.Limit+1).Query(func(rows pgx.Rows) (err error) {
		page.Lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Line, error) {
			var l Line
			err := row.Scan(&l.Seq, &l.At, &l.Text)
			l.At = l.At.UTC()
			return l, err
		})
		return err
	})
	if err := s.reads.SendBatch(ctx, &b).Close(); err != nil {
		return OutputPage{}, err
	}
	if !known {
		page.Lines = []Line{} // nothing, or of an attempt that a lost history had there
	}
	if page.More = len(page.Lines) > f.Limit; page.More {
		page.Lines = page.Lines[:f.Limit]
	}
	page.Cut = cut && !page.More
	if n := len(page.Lines); n > 0 {
		after = page.Lines[n-1].Seq
	}
	page.Next = encodeOutputCursor(attempt.ID, after)
	return page, nil
}

// outputCursorVersion is the first byte of an encoded cursor.
const outputCursorVersion = 1

// outputCursorBytes is its length: version, attempt, seq.
const outputCursorBytes = 1 + 8 + 8

func encodeOutputCursor(attempt, seq int64) string {
	b := append(make([]byte, 0, outputCursorBytes), outputCursorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(attempt)) //nolint:gosec // not negative
	b = binary.BigEndian.AppendUint64(b, uint64(seq))     //nolint:gosec // -1 comes back as it is
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeOutputCursor(s string) (attempt, seq int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != outputCursorBytes || b[0] != outputCursorVersion {
		return 0, 0, ErrBadCursor
	}
	attempt, seq = int64(binary.BigEndian.Uint64(b[1:])), int64(binary.BigEndian.Uint64(b[9:])) //nolint:gosec // see above
	if attempt < 0 || seq < -1 {
		return 0, 0, ErrBadCursor
	}
	return attempt, seq, nil
}
