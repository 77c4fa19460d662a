package readmodel_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// caps are small, so that a test reaches them.
var caps = readmodel.OutputCaps{Lines: 5, Bytes: 100}

// speech makes the output of one attempt, whose entries count from 0.
type speech struct {
	collection uuid.UUID
	attempt    int64
	at         time.Time
	seq        int64
}

func (s *speech) entry(kind readmodel.OutputKind, percent int, text string) readmodel.OutputEntry {
	s.seq++
	return readmodel.OutputEntry{
		AttemptID: s.attempt, CollectionID: s.collection, TaskID: ledger.TaskID(s.collection, ledger.KindTask, 0), Run: 1,
		Seq: s.seq - 1, Kind: kind, Percent: percent, Text: text, At: s.at.Add(time.Duration(s.seq-1) * time.Second), RecordedAt: s.at,
	}
}

func (s *speech) lines(texts ...string) (entries []readmodel.OutputEntry) {
	for _, text := range texts {
		entries = append(entries, s.entry(readmodel.OutputLine, 0, text))
	}
	return entries
}

func move(from, next int64) []readmodel.OutputMove {
	return []readmodel.OutputMove{{From: from, Next: next}}
}

// outputSetup has a collection of tenant acme whose first task runs.
func outputSetup(t *testing.T) (f *fixture, s *story, out *speech) {
	t.Helper()
	f = setup(t)
	s = newStory(t, f, 1)
	id := newID(1)
	s.create(id, "acme", "a", "b")
	positions, err := f.OutputPositions(t.Context(), f.ledgerID, 2)
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 0, 1: 0}, positions)
	return f, s, &speech{collection: id, attempt: s.begin(id, "acme", 1, 0, 1), at: s.now()}
}

func (s *speech) filter() readmodel.OutputFilter {
	return readmodel.OutputFilter{
		Tenant: "acme", Collection: s.collection, Task: ledger.TaskID(s.collection, ledger.KindTask, 0), Attempt: -1,
	}
}

func texts(p readmodel.OutputPage) []string {
	list := []string{}
	for _, l := range p.Lines {
		list = append(list, l.Text)
	}
	return list
}

// What an attempt says is shown in pages, and its newest progress beside it.
func TestOutputOfAnAttempt(t *testing.T) {
	t.Parallel()
	f, s, out := outputSetup(t)
	page, err := f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Equal(t, &readmodel.OutputAttempt{ID: out.attempt, Number: 1, Run: 1, Status: "running"}, page.Attempt)
	require.Empty(t, page.Lines)
	require.Nil(t, page.Progress)
	start := page.Next
	require.NotEmpty(t, start)

	entries := append(out.lines("one", "two"), out.entry(readmodel.OutputProgress, 10, "begins"))
	entries = append(append(entries, out.lines("three")...), out.entry(readmodel.OutputProgress, 20, "goes on"))
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 3), entries, caps))
	filter := out.filter()
	filter.After, filter.Limit = start, 2
	page, err = f.Output(t.Context(), filter)
	require.NoError(t, err)
	require.Equal(t, []readmodel.Line{{Seq: 0, At: s.now(), Text: "one"}, {Seq: 1, At: s.now().Add(time.Second), Text: "two"}}, page.Lines)
	require.True(t, page.More)
	require.Equal(t, &readmodel.Progress{Percent: 20, Text: "goes on", At: s.now().Add(4 * time.Second)}, page.Progress)
	filter.After = page.Next
	page, err = f.Output(t.Context(), filter)
	require.NoError(t, err)
	require.Equal(t, []string{"three"}, texts(page))
	require.False(t, page.More)

	require.NoError(t, f.WriteOutput(t.Context(), move(3, 4), out.lines("four"), caps))
	filter.After = page.Next
	page, err = f.Output(t.Context(), filter)
	require.NoError(t, err)
	require.Equal(t, []string{"four"}, texts(page))
	progress, err := f.Progress(t.Context(), 0, []int64{out.attempt, 99})
	require.NoError(t, err)
	require.Equal(t, map[int64]readmodel.Progress{out.attempt: *page.Progress}, progress)
}

// A task that was retried shows its newest attempt, or the one that is asked for;
// a cursor stays with its attempt.
func TestOutputOfSeveralAttempts(t *testing.T) {
	t.Parallel()
	f, s, first := outputSetup(t)
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 1), first.lines("a", "b"), caps))
	filter := first.filter()
	filter.Limit = 1
	begun, err := f.Output(t.Context(), filter)
	require.NoError(t, err)
	s.fail(first.collection, "acme", 1, 0, first.attempt, true)
	second := &speech{collection: first.collection, attempt: s.begin(first.collection, "acme", 1, 0, 2), at: s.now()}
	require.NoError(t, f.WriteOutput(t.Context(), move(1, 2), second.lines("c"), caps))

	read := func(attempt int64, after string) (readmodel.OutputPage, error) {
		filter := first.filter()
		filter.Attempt, filter.After = attempt, after
		return f.Output(t.Context(), filter)
	}
	page, err := read(-1, "")
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, texts(page))
	require.Equal(t, 2, page.Attempt.Number)
	page, err = read(first.attempt, "")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, texts(page))
	require.Equal(t, ledger.Status("failed"), page.Attempt.Status)
	for _, attempt := range []int64{-1, first.attempt} {
		page, err = read(attempt, begun.Next)
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, texts(page))
	}
	_, err = read(second.attempt, begun.Next)
	require.ErrorIs(t, err, readmodel.ErrBadCursor)
	_, err = read(7777, "")
	require.ErrorIs(t, err, readmodel.ErrNoAttempt)
	foreign := base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 16)...)) // offset 0 is no attempt
	for _, cursor := range []string{foreign, "x", "!", begun.Next + "A", begun.Next[:10]} {
		_, err = read(-1, cursor)
		require.ErrorIs(t, err, readmodel.ErrBadCursor, cursor)
	}
}

// Output is shown to whom the collection belongs, below its own task.
func TestOutputIsTheTenants(t *testing.T) {
	t.Parallel()
	f, s, out := outputSetup(t)
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 1), out.lines("secret"), caps))
	s.create(newID(2), "other", "a")
	for name, c := range map[string]struct {
		change func(*readmodel.OutputFilter)
		want   error
	}{
		"tenant":     {func(f *readmodel.OutputFilter) { f.Tenant = "other" }, readmodel.ErrNotFound},
		"collection": {func(f *readmodel.OutputFilter) { f.Tenant, f.Collection = "other", newID(2) }, readmodel.ErrNoTask},
		"unknown":    {func(f *readmodel.OutputFilter) { f.Collection = newID(9) }, readmodel.ErrNotFound},
		"task":       {func(f *readmodel.OutputFilter) { f.Task = uuid.New() }, readmodel.ErrNoTask},
		"not begun": {func(f *readmodel.OutputFilter) {
			f.Task, f.Attempt = ledger.TaskID(f.Collection, ledger.KindTask, 1), out.attempt
		}, readmodel.ErrNoAttempt},
	} {
		filter := out.filter()
		c.change(&filter)
		page, err := f.Output(t.Context(), filter)
		require.ErrorIs(t, err, c.want, name)
		require.Empty(t, page.Lines, name)
	}
	filter := out.filter()
	filter.Task = ledger.TaskID(out.collection, ledger.KindTask, 1)
	page, err := f.Output(t.Context(), filter)
	require.NoError(t, err)
	require.Nil(t, page.Attempt, "it was never started")
}

// Entries that are read again, or twice in one batch, are there once, however
// they are cut into batches.
func TestOutputIsTakenInOnce(t *testing.T) {
	t.Parallel()
	f, _, out := outputSetup(t)
	entries := append(out.lines("one", "two", "three"), out.entry(readmodel.OutputProgress, 5, "x"))
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 2), entries[:2], caps))
	require.NoError(t, f.WriteOutput(t.Context(), move(2, 1), append(entries[:3:3], entries[1:]...), caps), "the topic was made again")
	require.NoError(t, f.WriteOutput(t.Context(), move(1, 9), entries, caps))
	page, err := f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two", "three"}, texts(page))
	require.NoError(t, f.WriteOutput(t.Context(), move(9, 10), out.lines("four", "five"), caps), "repetitions do not count")
	page, err = f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two", "three", "four", "five"}, texts(page))
	require.False(t, page.Cut)
}

// A writer that says too much is cut here, too, and the mark of one that was cut
// before is kept.
func TestOutputIsCut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entries func(*speech) []readmodel.OutputEntry
		kept    int
	}{
		"lines": {func(s *speech) []readmodel.OutputEntry { return s.lines("1", "2", "3", "4", "5", "6", "7") }, 5},
		"bytes": {func(s *speech) []readmodel.OutputEntry {
			return s.lines(strings.Repeat("x", 60), strings.Repeat("x", 41), "short")
		}, 1},
		"marked": {func(s *speech) []readmodel.OutputEntry {
			return append(append(s.lines("1", "2"), s.entry(readmodel.OutputCut, 0, "")), s.lines("3")...)
		}, 2},
	} {
		for _, size := range []int{1, 100} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				t.Parallel()
				f, _, out := outputSetup(t)
				at := int64(0)
				entries := append(c.entries(out), out.entry(readmodel.OutputProgress, 50, "still alive"))
				for len(entries) > 0 {
					n := min(size, len(entries))
					require.NoError(t, f.WriteOutput(t.Context(), move(at, at+1), entries[:n], caps))
					entries, at = entries[n:], at+1
				}
				filter := out.filter()
				page, err := f.Output(t.Context(), filter)
				require.NoError(t, err)
				require.Len(t, page.Lines, c.kept)
				require.True(t, page.Cut)
				require.Equal(t, 50, page.Progress.Percent)
				if filter.Limit = 1; c.kept > 1 {
					page, err = f.Output(t.Context(), filter)
					require.NoError(t, err)
					require.False(t, page.Cut, "the mark stands at the end")
				}
			})
		}
	}
}

// Of writers that overlap one succeeds; the others write nothing.
func TestOutputAtOnce(t *testing.T) {
	t.Parallel()
	f, _, out := outputSetup(t)
	lines := out.lines("one", "two", "three")
	stores := []*readmodel.Store{f.Store, f.open(t, ""), f.open(t, "")}
	var mu sync.Mutex
	written := 0
	var writing sync.WaitGroup
	for _, s := range stores {
		writing.Go(func() {
			for i := range lines {
				err := s.WriteOutput(t.Context(), []readmodel.OutputMove{
					{Partition: 1, From: int64(i), Next: int64(i) + 1}, {Partition: 0, From: int64(i), Next: int64(i) + 1},
				}, lines[i:i+1], caps)
				mu.Lock()
				switch {
				case err == nil:
					written++
				case !errors.Is(err, readmodel.ErrConflict):
					t.Errorf("write: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	positions, err := f.OutputPositions(t.Context(), f.ledgerID, 2)
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: int64(written), 1: int64(written)}, positions)
	page, err := f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Len(t, page.Lines, written)

	before := page
	require.ErrorIs(t, f.WriteOutput(t.Context(), []readmodel.OutputMove{{From: int64(written), Next: 9}, {Partition: 1, From: 77, Next: 9}},
		out.lines("x"), caps), readmodel.ErrConflict)
	page, err = f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Equal(t, before, page)
	require.NoError(t, f.WriteOutput(t.Context(), nil, nil, caps))
}

// Old output goes by whole attempts, a bounded number at a time.
func TestOldOutputIsDeleted(t *testing.T) {
	t.Parallel()
	f, s, out := outputSetup(t)
	entries := out.lines("young")
	for i := range 5 {
		old := &speech{collection: out.collection, attempt: int64(1000 + i), at: s.at(-100 + i)}
		entries = append(entries, old.lines("a", "b")...)
	}
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 1), entries, caps))
	for _, want := range []int{2, 2, 0} {
		n, err := f.DeleteOutput(t.Context(), s.at(-96), 2)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	n, err := f.DeleteOutput(t.Context(), s.at(-90), 100)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	page, err := f.Output(t.Context(), out.filter())
	require.NoError(t, err)
	require.Equal(t, []string{"young"}, texts(page))
	left := &speech{collection: out.collection, attempt: 1004, at: s.now(), seq: 1}
	require.NoError(t, f.WriteOutput(t.Context(), move(1, 2), left.lines("b"), caps), "nothing of it is left behind")
}

func TestOutputOfAnotherLedger(t *testing.T) {
	t.Parallel()
	f, _, _ := outputSetup(t)
	_, err := f.OutputPositions(t.Context(), uuid.New(), 2)
	require.ErrorIs(t, err, readmodel.ErrOtherLedger)
}

// A text that PostgreSQL refuses is told from a server that is away.
func TestOutputRefused(t *testing.T) {
	t.Parallel()
	f, _, out := outputSetup(t)
	var refused *readmodel.RefusedError
	require.ErrorAs(t, f.WriteOutput(t.Context(), move(0, 1), out.lines("a\x00b"), caps), &refused)
	require.Equal(t, "write output", refused.Statement)
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 1), nil, caps), "it is passed over")
}

// So is what no column can hold, which the server is not even asked about.
func TestOutputOutOfRange(t *testing.T) {
	t.Parallel()
	f, _, out := outputSetup(t)
	for name, change := range map[string]func(*readmodel.OutputEntry){
		"run":     func(e *readmodel.OutputEntry) { e.Run = 1 << 40 },
		"percent": func(e *readmodel.OutputEntry) { e.Kind, e.Percent = readmodel.OutputProgress, 1<<40 },
		"time":    func(e *readmodel.OutputEntry) { e.At = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"year":    func(e *readmodel.OutputEntry) { e.RecordedAt = time.UnixMilli(1 << 62) },
	} {
		entries := out.lines("x")
		change(&entries[0])
		var refused *readmodel.RefusedError
		require.ErrorAs(t, f.WriteOutput(t.Context(), move(0, 1), entries, caps), &refused, name)
		require.Equal(t, "write output", refused.Statement, name)
	}
	require.NoError(t, f.WriteOutput(t.Context(), move(0, 1), out.lines("y"), caps))
}
