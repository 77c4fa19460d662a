package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// The bounds of what is kept of one attempt's output. Writers heed them and
// readers enforce them: a handler that says too much costs others nothing.
const (
	// MaxOutputLines and MaxOutputBytes are of all lines of an attempt.
	MaxOutputLines = 1_000
	MaxOutputBytes = 256 << 10
	// MaxOutputText is of one line or of a progress' text, in bytes.
	MaxOutputText = 4 << 10
	// maxOutputEntries bounds what one record may hold.
	maxOutputEntries = 1_000
)

// outputVersion is that of the records in the output topic.
const outputVersion = 1

// The kinds of an OutputEntry.
const (
	OutputProgress = "progress" // how far the attempt has come; the newest counts
	OutputLine     = "line"     // a line of the attempt's log
	OutputCut      = "cut"      // lines that followed were left out
)

// An OutputRecord is a record of the output topic: what one attempt said. Its
// JSON form only grows: see schemas/output.
type OutputRecord struct {
	Version      int           `json:"version"` // set by EncodeOutput
	CollectionID uuid.UUID     `json:"collection_id"`
	TaskID       uuid.UUID     `json:"task_id"`
	Run          int           `json:"run"`
	AttemptID    int64         `json:"attempt_id"` // the offset of its TaskStarted in the ledger's partition
	Entries      []OutputEntry `json:"entries"`    // in the order of Seq
}

// An OutputEntry is one thing that an attempt said.
type OutputEntry struct {
	Seq     int64     `json:"seq"` // grows with every entry of the attempt
	Kind    string    `json:"kind"`
	Percent int       `json:"percent,omitempty"` // of a progress, 0 to 100
	Text    string    `json:"text,omitempty"`
	At      time.Time `json:"at"` // by the worker's clock
}

// EncodeOutput returns the value of a record.
func EncodeOutput(r OutputRecord) ([]byte, error) {
	r.Version = outputVersion
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return nil, fmt.Errorf("encode output of attempt %d: %w", r.AttemptID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// errOutput reports a record of the output topic that this build passes over.
var errOutput = errors.New("no output that this build knows")

// DecodeOutput reads the value of a record. Members and kinds of entries that it
// does not know are passed over, texts are brought within their bounds: output
// is shown to people, and a record that is a little off is better than none. An
// error says that nothing of the record can be used.
func DecodeOutput(value []byte) (OutputRecord, error) {
	var r OutputRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return OutputRecord{}, fmt.Errorf("%w: %w", errOutput, err)
	}
	switch {
	case r.Version != outputVersion:
		return OutputRecord{}, fmt.Errorf("%w: version is %d, want %d", errOutput, r.Version, outputVersion)
	case r.CollectionID == uuid.Nil, r.TaskID == uuid.Nil, r.Run < 1, r.Run > math.MaxInt32, r.AttemptID < 0:
		return OutputRecord{}, fmt.Errorf("%w: it names no attempt", errOutput)
	case len(r.Entries) > maxOutputEntries:
		return OutputRecord{}, fmt.Errorf("%w: it has %d entries, want at most %d", errOutput, len(r.Entries), maxOutputEntries)
	}
	kept := r.Entries[:0]
	for _, e := range r.Entries {
		if e.Seq < 0 || !showable(e.At) || e.Kind != OutputProgress && e.Kind != OutputLine && e.Kind != OutputCut {
			continue
		}
		e.Percent, e.Text = min(max(e.Percent, 0), 100), ClipOutput(e.Text)
		kept = append(kept, e)
	}
	r.Entries = kept
	return r, nil
}

// showable reports whether a time can be written down as RFC 3339 in UTC. One with
// an offset can be just outside.
func showable(at time.Time) bool {
	year := at.UTC().Year()
	return 0 <= year && year <= 9999
}

// ClipOutput makes any text one that can be kept: valid UTF-8 without U+0000, at
// most MaxOutputText bytes.
func ClipOutput(s string) string {
	if len(s) > MaxOutputText {
		cut := MaxOutputText
		for cut > MaxOutputText-utf8.UTFMax && !utf8.RuneStart(s[cut]) { // not in the middle of a rune
			cut--
		}
		s = s[:cut]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}
