package ledger

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The limits of what the ledger accepts. They are part of the rules: changing
// one is a new version of the rules.
const (
	MaxTasks           = 200
	MaxPayloadBytes    = 256 << 10
	MaxPayloadDepth    = 64
	MaxNumberBytes     = 400
	MaxNumberExponent  = 300
	MaxDefinitionBytes = 448 << 10 // tasks and finally, encoded
	MaxEventBytes      = 768 << 10
	MaxQueues          = 64
	MaxNameBytes       = 200
	MaxKeyBytes        = 255
	MaxLabels          = 32
	MaxLabelKeyBytes   = 63
	MaxLabelValueBytes = 256
	MaxMessageBytes    = 4 << 10
	MaxDetailBytes     = 64 << 10
	MaxTimeoutMS       = 24 * 60 * 60 * 1000
	MaxBackoffMS       = 24 * 60 * 60 * 1000
	MaxMultiplier      = 100
	MaxAttempts        = 1000
	MaxLostAttempts    = 10        // of one task in one run
	MaxCount           = 1<<31 - 1 // runs of a collection, attempts of a task
	MaxEarlierAttempts = 1 << 30   // that a definition may carry: room for a run's own, however often it is started
)

// The rules count in int, which must have 64 bits: this does not compile where
// it has fewer, since verdicts would differ.
const _ int = 1 << 40

// The defaults written into every task definition.
const (
	DefaultQueue             = "default"
	DefaultMaxAttempts       = 1
	DefaultBackoffInitialMS  = 1_000
	DefaultBackoffMultiplier = 2
	DefaultBackoffMaxMS      = 300_000
	DefaultTimeoutMS         = 3_600_000
	DefaultWindow            = 65_536
)

// An InvalidError reports which part of an event or payload breaks which rule.
// Repeating the same input is pointless.
type InvalidError struct {
	Path string // JSON pointer from the value that was checked
	Rule string // the rule in words
}

func (e *InvalidError) Error() string {
	if e.Path == "" {
		return e.Rule
	}
	return e.Path + ": " + e.Rule
}

func invalid(path, format string, args ...any) *InvalidError {
	return &InvalidError{Path: path, Rule: fmt.Sprintf(format, args...)}
}

// maxReasonBytes bounds what the fold says about a record: a name in it may be
// as long as an event.
const maxReasonBytes = 512

// tame makes a text of unknown origin short, printable and the same for good:
// which characters need no escape depends on the build's Unicode tables, so none
// but those of ASCII go without.
func tame(s string) string {
	if len(s) > maxReasonBytes {
		s = s[:maxReasonBytes] + "..."
	}
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r > '~' {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// CheckText returns an *[InvalidError] at path unless s is valid UTF-8 without
// U+0000 and at most limit bytes long.
func CheckText(path, s string, limit int) error {
	switch {
	case len(s) > limit:
		return invalid(path, "is %d bytes long, at most %d are allowed", len(s), limit)
	case !utf8.ValidString(s):
		return invalid(path, "is not valid UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return invalid(path, "contains U+0000")
	}
	return nil
}

func checkName(path, s string, limit int) error {
	if s == "" {
		return invalid(path, "is empty")
	}
	return CheckText(path, s, limit)
}

// CheckLabels returns an *[InvalidError] unless labels are at most 32 with keys
// of 1 to 63 bytes and values of at most 256.
func CheckLabels(path string, labels map[string]string) error {
	if len(labels) > MaxLabels {
		return invalid(path, "has %d entries, at most %d are allowed", len(labels), MaxLabels)
	}
	var worst *InvalidError // the first in key order: map order must not show
	worstKey := ""
	for k, v := range labels {
		err := checkName(path, k, MaxLabelKeyBytes)
		if err == nil {
			err = CheckText(path, v, MaxLabelValueBytes)
		}
		if err != nil && (worst == nil || k < worstKey) {
			worst, worstKey = invalid(path, "entry %q: %s", k, strings.TrimPrefix(err.Error(), path+": ")), k
		}
	}
	if worst != nil {
		return worst
	}
	return nil
}

// definitionBytes is how long the values of tasks and finally are in an event.
func definitionBytes(value []byte) int {
	d := jsontext.NewDecoder(bytes.NewReader(value))
	if _, err := d.ReadToken(); err != nil {
		return 0
	}
	n := 0
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return 0 // cannot be: it was decoded before
		}
		list := name.String() == "tasks" || name.String() == "finally"
		v, err := d.ReadValue()
		if err != nil {
			return 0
		}
		if list {
			n += len(v)
		}
	}
	return n
}
