package readmodel

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// The lengths of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// A Filter says which collections of a tenant are listed: those that fit all
// of it. Zero values do not filter.
type Filter struct {
	Tenant        string
	Status        []ledger.Status // one of these
	Name          string          // exactly
	FailedType    string          // the type of the task at which the last run failed
	Labels        map[string]string
	CreatedAfter  time.Time // inclusive
	CreatedBefore time.Time // exclusive
	Cursor        string    // NextCursor of the page before
	Limit         int       // default [DefaultLimit], at most [MaxLimit]
}

// A Page is a part of a list.
type Page struct {
	Collections []Collection // without tasks
	NextCursor  string       // "" on the last page
	// Counts is how many collections the tenant has in each status, whatever
	// the filter; a status without any is not in it.
	Counts map[ledger.Status]int64
}

// Collections returns a page of a tenant's collections, newest first, and the
// tenant's counts, from one snapshot. The error wraps [ErrBadCursor] when the
// cursor is not one of a list's.
func (s *Store) Collections(ctx context.Context, f Filter) (Page, error) {
	if f.Limit <= 0 {
		f.Limit = DefaultLimit
	}
	f.Limit = min(f.Limit, MaxLimit)
	sql, args, err := listQuery(f)
	if err != nil {
		return Page{}, err
	}
	const counts = `
select status, sum(n)::bigint from collection_counts where tenant = $1 group by status having sum(n) <> 0`
	var b pgx.Batch
	b.Queue(beginSnapshot)
	b.Queue(sql, args...)
	b.Queue(counts, f.Tenant)
	b.Queue(endSnapshot)
	r := s.reads.SendBatch(ctx, &b)
	page, err := readPage(r, f.Limit)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return Page{}, failed("list collections", err)
	}
	return page, nil
}

func readPage(r pgx.BatchResults, limit int) (Page, error) {
	if _, err := r.Exec(); err != nil {
		return Page{}, err
	}
	rows, err := r.Query()
	if err != nil {
		return Page{}, err
	}
	var p Page
	if p.Collections, err = pgx.CollectRows(rows, scanCollection); err != nil {
		return Page{}, err
	}
	if len(p.Collections) > limit { // one more was asked for, to know whether there is more
		p.Collections = p.Collections[:limit]
		last := &p.Collections[limit-1]
		p.NextCursor = encodeCursor(cursor{last.CreatedAt, last.ID})
	}
	if rows, err = r.Query(); err != nil {
		return Page{}, err
	}
	p.Counts = make(map[ledger.Status]int64)
	var status ledger.Status
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&status, &n}, func() error {
		p.Counts[status] = n
		return nil
	})
	return p, err
}

// query collects conditions and their arguments.
type query struct {
	where []string
	args  []any
}

// and adds a condition in which ? stands for the argument.
func (q *query) and(condition string, arg any) {
	q.args = append(q.args, arg)
	q.where = append(q.where, strings.ReplaceAll(condition, "?", "$"+strconv.Itoa(len(q.args))))
}

const newestFirst = ` order by c.created_at desc, c.id desc limit `

func listQuery(f Filter) (string, []any, error) {
	var q query
	q.and("c.tenant = ?", f.Tenant)
	if f.Name != "" {
		q.and("c.name = ?", f.Name)
	}
	if f.FailedType != "" {
		q.and("c.failed_type = ?", f.FailedType)
	}
	if len(f.Labels) > 0 {
		labels, err := json.Marshal(f.Labels)
		if err != nil {
			return "", nil, fmt.Errorf("encode the labels: %w", err)
		}
		// The second half is what lets the planner use the partial index.
		q.and("c.labels @> ?::jsonb and c.labels <> '{}'", string(labels))
	}
	if !f.CreatedAfter.IsZero() {
		q.and("c.created_at >= ?", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		q.and("c.created_at < ?", f.CreatedBefore)
	}
	if f.Cursor != "" {
		at, err := decodeCursor(f.Cursor)
		if err != nil {
			return "", nil, err
		}
		q.args = append(q.args, at.id)
		q.and("(c.created_at, c.id) < (?, $"+strconv.Itoa(len(q.args))+")", at.at)
	}
	limit := strconv.Itoa(f.Limit + 1)
	sql := selectCollection + ` from (` + q.keys(f.Status, limit) + `) page join collections c using (id)` +
		joinCurrent + newestFirst + limit
	return sql, q.args, nil
}

// keys selects the ids of the page. With several statuses each has a part of
// its own, read from its own stretch of the index, so that a few failed
// collections are found at once among millions that succeeded.
func (q *query) keys(statuses []ledger.Status, limit string) string {
	where := strings.Join(q.where, " and ")
	const keys = `select c.id, c.created_at from collections c where `
	if len(statuses) == 0 {
		return keys + where + newestFirst + limit
	}
	parts := make([]string, len(statuses))
	for i, status := range statuses {
		q.args = append(q.args, string(status))
		parts[i] = `(` + keys + where + ` and c.status = $` + strconv.Itoa(len(q.args)) + newestFirst + limit + `)`
	}
	return `select distinct id from (` + strings.Join(parts, " union all ") + `) c`
}

// cursor is the last row of a page.
type cursor struct {
	at time.Time
	id uuid.UUID
}

// cursorVersion is the first byte of an encoded cursor.
const cursorVersion = 1

func encodeCursor(c cursor) string {
	b := append(make([]byte, 0, 25), cursorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(c.at.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(b, c.id[:]...))
}

func decodeCursor(s string) (cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 25 || b[0] != cursorVersion {
		return cursor{}, fmt.Errorf("list collections: %w", ErrBadCursor)
	}
	var c cursor
	c.at = time.UnixMicro(int64(binary.BigEndian.Uint64(b[1:9]))).UTC() //nolint:gosec // any value is a time
	copy(c.id[:], b[9:])
	return c, nil
}
