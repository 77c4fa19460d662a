package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor/handlers"
)

// shown is what is seen of a log outside.
type shown struct{ lines []string }

func (s *shown) Line(text string) { s.lines = append(s.lines, text) }
func (s *shown) Progress(percent int, text string) {
	s.lines = append(s.lines, fmt.Sprintf("%d%% %s", percent, text))
}

func TestLogIsShownLineByLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for text, want := range map[string][]string{
		"one\ntwo\n":                        {"one", "two"},
		"one\r\n\nno end":                   {"one", "", "no end"},
		"::progress 40 signing the request": {"40% signing the request"},
		"::progress 100\n":                  {"100% "},
		"::progress -3 x\n::progress 400 y": {"-3% x", "400% y"}, // the executor brings them into range
		"::progress soon\n::progress\n":     {"::progress soon", "::progress"},
		"say ::progress 40\n":               {"say ::progress 40"},
		"a\x00b\xffc\n":                     {"a?b?c"},
		long + "\nnext\n":                   {long[:4093] + "…", "next"},
		strings.Repeat("é", 3000) + "\n":    {strings.Repeat("é", 2046) + "…"},
		long[:4096] + "\n":                  {long[:4096]},
	} {
		for _, size := range []int{1, 7, len(text)} {
			out := &shown{}
			w, flush, _, _ := handlers.NewCommandLog(out)
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				_, err := w.Write([]byte(rest[:min(size, len(rest))]))
				require.NoError(t, err)
			}
			flush()
			require.Equal(t, want, out.lines, "%.100q in pieces of %d", text, size)
		}
	}
}

func TestLogKeepsTheEnd(t *testing.T) {
	t.Parallel()
	w, _, last, detail := handlers.NewCommandLog(&shown{})
	for range 300 {
		_, err := w.Write([]byte(strings.Repeat("y", 999) + "\n"))
		require.NoError(t, err)
	}
	_, err := w.Write([]byte("\x00the reason\n::progress 90 nearly\n\n"))
	require.NoError(t, err)
	require.Equal(t, "?the reason", last(), "progress is no reason")
	require.LessOrEqual(t, len(detail()), 64<<10-256)
	require.Contains(t, detail(), "::progress 90 nearly")
}
