package executor_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
)

// kept collects what an Output hands on.
type kept struct {
	mu      sync.Mutex
	entries []executor.OutputEntry
}

func newKept() (*kept, *executor.Output) {
	k := &kept{}
	return k, executor.NewOutput(func(e executor.OutputEntry) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.entries = append(k.entries, e)
	})
}

// all returns the entries, whose numbers must be without gaps.
func (k *kept) all(t *testing.T) []executor.OutputEntry {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, e := range k.entries {
		require.Equal(t, int64(i), e.Seq)
	}
	return k.entries
}

func (k *kept) texts(t *testing.T, kind executor.OutputKind) []string {
	t.Helper()
	texts := []string{}
	for _, e := range k.all(t) {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func TestOutputOfNobody(t *testing.T) {
	t.Parallel()
	var o *executor.Output
	o.Progress(1, "a")
	o.Line("b")
	o.Close()
}

// Lines come as they were said, within their bounds.
func TestOutputLines(t *testing.T) {
	t.Parallel()
	k, o := newKept()
	o.Line("one")
	o.Line("")
	o.Line("two\r\nthree\n")
	o.Line("a\x00b\xffc")
	o.Line(strings.Repeat("é", 3000))
	o.Close()
	o.Line("too late")
	o.Progress(1, "too late")
	lines := k.texts(t, executor.OutputLine)
	require.Len(t, lines, 6)
	require.Len(t, k.all(t), 6)
	require.Equal(t, []string{"one", "", "two", "three", "a?b?c"}, lines[:5])
	require.Equal(t, strings.Repeat("é", 2048), lines[5])
	require.True(t, utf8.ValidString(lines[5]))
}

// What a handler says beyond the bounds is left out, and that is said, once.
func TestOutputIsCut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		line string
		kept int
	}{
		"lines": {"x", 1_000},
		"bytes": {strings.Repeat("x", 4096), 64},
	} {
		k, o := newKept()
		o.Line(strings.Repeat(c.line+"\n", c.kept))
		require.Empty(t, k.texts(t, executor.OutputCut), name)
		o.Line(c.line + "\n" + c.line)
		o.Line(c.line)
		o.Progress(3, "goes on")
		o.Close()
		require.Len(t, k.texts(t, executor.OutputLine), c.kept, name)
		require.Len(t, k.texts(t, executor.OutputCut), 1, name)
		require.Equal(t, executor.OutputCut, k.all(t)[c.kept].Kind, name)
		require.Equal(t, []string{"goes on"}, k.texts(t, executor.OutputProgress), name)
	}
}

// Progress is shown at most five times a second, the last one always.
func TestOutputProgressIsPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, o := newKept()
		for i := range 1000 { // ten seconds
			o.Progress(i/10, strconv.Itoa(i))
			time.Sleep(10 * time.Millisecond)
		}
		texts := k.texts(t, executor.OutputProgress)
		require.Equal(t, "0", texts[0], "the first at once")
		require.InDelta(t, 50, len(texts), 2)
		o.Progress(400, "done")
		o.Close()
		last := k.all(t)[len(k.all(t))-1]
		require.Equal(t, []any{100, "done"}, []any{last.Percent, last.Text})
	})
}

// A progress that waits comes in its time, also when nothing follows.
func TestOutputProgressThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, o := newKept()
		o.Progress(-1, "a")
		o.Progress(2, "b")
		o.Progress(3, "c")
		require.Equal(t, []string{"a"}, k.texts(t, executor.OutputProgress))
		require.Zero(t, k.all(t)[0].Percent)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"a", "c"}, k.texts(t, executor.OutputProgress))
		time.Sleep(time.Hour)
		o.Progress(3, "c")
		require.Len(t, k.all(t), 2, "no news")
		o.Progress(4, "d")
		require.Len(t, k.all(t), 3)
		o.Close()
		o.Close()
		require.Len(t, k.all(t), 3)
	})
}

// A handler that reports progress for a day does not fill the topic.
func TestOutputProgressSlowsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, o := newKept()
		for i := range 20_000 { // 4,000 s
			o.Progress(0, strconv.Itoa(i))
			time.Sleep(200 * time.Millisecond)
		}
		o.Close()
		require.InDelta(t, 1_000+(4_000-200)/5, len(k.all(t)), 3)
	})
}

// A handler may say things from many goroutines, also while it ends.
func TestOutputFromManyGoroutines(t *testing.T) {
	t.Parallel()
	k, o := newKept()
	var said sync.WaitGroup
	for range 8 {
		said.Go(func() {
			for i := range 200 {
				o.Line("x")
				o.Progress(i, strconv.Itoa(i))
			}
		})
	}
	said.Wait()
	o.Close()
	require.Len(t, k.texts(t, executor.OutputLine), 1_000)
	require.Len(t, k.texts(t, executor.OutputCut), 1)
	require.NotEmpty(t, k.texts(t, executor.OutputProgress))
}
