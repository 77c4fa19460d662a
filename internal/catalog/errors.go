package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxReported bounds what one bad file or input is answered with: who has a
	// hundred errors before them does not need the next.
	maxReported = 100
	// maxMessageBytes bounds a message that quotes the offending value.
	maxMessageBytes = 500
)

// ErrUnknownType is wrapped in what [Catalog.CheckArgs], [Catalog.CheckResult]
// and [Catalog.Spec] return for a type the catalog does not have.
var ErrUnknownType = errors.New("unknown task type")

// A LoadError is one thing wrong with a catalog file. [Load] and [Parse] join
// all they find.
type LoadError struct {
	File    string
	Line    int    // counts from 1; 0: the file as a whole
	Column  int    // counts from 1, in characters; 0: unknown
	Path    string // JSON pointer from the top of the document
	Message string
}

func (e *LoadError) Error() string {
	place := e.File
	if e.Line > 0 {
		place += fmt.Sprintf(":%d", e.Line)
	}
	if e.Column > 0 {
		place += fmt.Sprintf(":%d", e.Column)
	}
	if e.Path != "" {
		place += ": " + e.Path
	}
	return place + ": " + e.Message
}

// A ValidationError says what is wrong with an input, args or a result. The
// same value is refused again, whenever it is sent.
type ValidationError struct {
	Violations []Violation // at least one, in order of path and message
}

// A Violation is one part of a value that breaks a rule.
type Violation struct {
	Path    string // JSON pointer from the value that was checked
	Message string // the rule in words
}

func (e *ValidationError) Error() string {
	var b strings.Builder
	for i, v := range e.Violations {
		if i > 0 {
			b.WriteString("; ")
		}
		if v.Path != "" {
			b.WriteString(v.Path + ": ")
		}
		b.WriteString(v.Message)
	}
	return b.String()
}

// newValidationError orders the violations, so that a value gets the same
// answer each time, and bounds them.
func newValidationError(violations []Violation) *ValidationError {
	for i := range violations {
		violations[i].Message = truncated(violations[i].Message)
	}
	slices.SortFunc(violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	violations = slices.Compact(violations)
	if n := len(violations); n > maxReported {
		more := Violation{Message: fmt.Sprintf("and %d more", n-maxReported)}
		violations = append(violations[:maxReported:maxReported], more)
	}
	return &ValidationError{Violations: violations}
}

func truncated(message string) string {
	if len(message) <= maxMessageBytes {
		return message
	}
	end := maxMessageBytes
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + "…"
}

// pointer appends one token to a JSON pointer.
func pointer(path, token string) string {
	return path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(token)
}

func pointerOf(tokens []string) string {
	path := ""
	for _, token := range tokens {
		path = pointer(path, token)
	}
	return path
}
