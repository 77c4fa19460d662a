package eventlog_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
)

// outputCorpus are records as this build writes them, by the name of the file in
// testdata/output. Those files only grow: what was ever written stays there and
// must decode to what it meant.
func outputCorpus() map[string]eventlog.OutputRecord {
	at := time.Date(2026, 9, 1, 8, 30, 0, 125_000_000, time.UTC)
	of := eventlog.OutputRecord{
		Version: 1, CollectionID: uuid.MustParse("01a0c450-6c00-7003-ba6f-210c9e54b718"),
		TaskID: uuid.MustParse("01a0c450-6c00-8003-9ffe-6f74b4ebeb9b"), Run: 2, AttemptID: 47,
	}
	with := func(entries ...eventlog.OutputEntry) eventlog.OutputRecord {
		r := of
		r.Entries = entries
		return r
	}
	return map[string]eventlog.OutputRecord{
		"v1.least": with(eventlog.OutputEntry{Kind: eventlog.OutputProgress, At: at}),
		"v1.most": with(
			eventlog.OutputEntry{Seq: 1, Kind: eventlog.OutputProgress, Percent: 100, Text: "<done> & gone", At: at},
			eventlog.OutputEntry{Seq: 2, Kind: eventlog.OutputLine, Text: "a line with \u00fc, \"quotes\" and \t tab", At: at.Add(time.Nanosecond)},
			eventlog.OutputEntry{Seq: 9223372036854775807, Kind: eventlog.OutputCut, At: at},
		),
		"v1.longest": with(eventlog.OutputEntry{Seq: 3, Kind: eventlog.OutputLine, Text: strings.Repeat("x", eventlog.MaxOutputText), At: at}),
	}
}

// What was ever written is read as it was meant, and this build writes the same.
func TestOutputWire(t *testing.T) {
	t.Parallel()
	corpus := outputCorpus()
	files, err := filepath.Glob("testdata/output/*.json")
	require.NoError(t, err)
	require.Len(t, files, len(corpus))
	for name, want := range corpus {
		value, err := os.ReadFile("testdata/output/" + name + ".json")
		require.NoError(t, err)
		got, err := eventlog.DecodeOutput(value)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
		written, err := eventlog.EncodeOutput(want)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSuffix(string(value), "\n"), string(written), name)
	}
}

// What a reader does not know it passes over; what is out of bounds it brings
// within them.
func TestOutputOfOthers(t *testing.T) {
	t.Parallel()
	const at = `"at":"2026-09-01T08:30:00Z"`
	record := func(members, entries string) []byte {
		return []byte(`{"version":1,"collection_id":"01a0c450-6c00-7003-ba6f-210c9e54b718","task_id":"01a0c450-6c00-8003-9ffe-6f74b4ebeb9b",` +
			members + `"entries":[` + entries + `]}`)
	}
	const fine = `"run":1,"attempt_id":0,`
	got, err := eventlog.DecodeOutput(record(fine+`"shade":"blue",`,
		`{"seq":0,"kind":"sound",`+at+`},{"seq":-1,"kind":"line",`+at+`},{"seq":1,"kind":"progress","percent":101,"loud":true,`+at+`},`+
			`{"seq":2,"kind":"progress","percent":-3,`+at+`},{"seq":3,"kind":"line","text":"a\u0000b\ud800c",`+at+`},`+
			`{"seq":4,"kind":"line","text":"`+strings.Repeat("\u00e9", 3000)+`",`+at+`}`))
	require.NoError(t, err)
	var seen []any
	for _, e := range got.Entries {
		seen = append(seen, e.Seq, e.Percent, e.Text)
	}
	require.Equal(t, []any{
		int64(1), 100, "", int64(2), 0, "", int64(3), 0, "a?b\uFFFDc", int64(4), 0, strings.Repeat("\u00e9", 2048),
	}, seen)

	got, err = eventlog.DecodeOutput(record(fine, `{"seq":0,"kind":"line","at":"9999-12-31T23:59:59-23:59"},`+
		`{"seq":1,"kind":"line","at":"0000-01-01T00:00:00+23:59"},{"seq":2,"kind":"line",`+at+`}`))
	require.NoError(t, err)
	require.Len(t, got.Entries, 1, "what has no year of four digits in UTC cannot be shown")

	many := strings.TrimSuffix(strings.Repeat(`{"seq":0,"kind":"line",`+at+`},`, 1001), ",")
	for name, value := range map[string][]byte{
		"nothing":       nil,
		"no object":     []byte(`[]`),
		"not all of it": []byte(`{"version":1`),
		"version":       []byte(strings.Replace(string(record(fine, "")), `"version":1`, `"version":2`, 1)),
		"no run":        record(`"attempt_id":1,`, ""),
		"far run":       record(`"run":2147483648,"attempt_id":1,`, ""),
		"attempt":       record(`"run":1,"attempt_id":-1,`, ""),
		"a word":        record(`"run":"x","attempt_id":1,`, ""),
		"too many":      record(fine, many),
		"no time":       record(fine, `{"seq":0,"kind":"line","at":"yesterday"}`),
		"no collection": []byte(`{"version":1,"task_id":"01a0c450-6c00-8003-9ffe-6f74b4ebeb9b","run":1,"attempt_id":0,"entries":[]}`),
	} {
		require.True(t, name == "nothing" || name == "not all of it" || json.Valid(value), name)
		_, err := eventlog.DecodeOutput(value)
		require.Error(t, err, name)
	}
}

func FuzzDecodeOutput(f *testing.F) {
	for _, r := range outputCorpus() {
		value, err := eventlog.EncodeOutput(r)
		require.NoError(f, err)
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := eventlog.DecodeOutput(value)
		if err != nil {
			return
		}
		for _, e := range r.Entries {
			require.LessOrEqual(t, len(e.Text), eventlog.MaxOutputText)
			require.NotContains(t, e.Text, "\x00")
		}
		again, err := eventlog.EncodeOutput(r)
		require.NoError(t, err)
		_, err = eventlog.DecodeOutput(again)
		require.NoError(t, err)
	})
}
