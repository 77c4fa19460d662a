package ledger

import (
	"fmt"
	"strings"
	"unicode/utf8"
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
)

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

// definitionBytes is the encoded size of task definitions.
func definitionBytes(lists ...[]Task) (int, error) {
	n := 0
	for _, l := range lists {
		b, err := marshal(l)
		if err != nil {
			return 0, err
		}
		n += len(b)
	}
	return n, nil
}
