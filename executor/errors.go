package executor

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keten-ledger/keten/ledger"
)

// CodeFailed is the code of a failure whose handler named none, and
// CodeInvalidArgs that of a task whose args the handler could not read.
const (
	CodeFailed      = "failed"
	CodeInvalidArgs = "invalid_args"
)

// ErrPending is what a handler returns when the outcome comes later, from
// outside, by the attempt's [TaskInfo.OutcomeToken]. The attempt is then deferred:
// it holds no slot, no process is waited for, and the task's timeout counts from
// there. It may be wrapped.
var ErrPending = errors.New("the outcome comes later from outside")

// Why a handler's context ended, besides [context.DeadlineExceeded] at the
// task's timeout: see [context.Cause].
var (
	// ErrCanceled: somebody canceled the run.
	ErrCanceled = errors.New("the run was canceled")
	// ErrTakenOver: the attempt was ended in the log by someone else, for
	// instance by an owner that thought this process lost. Whatever the handler
	// still does, its outcome no longer counts.
	ErrTakenOver = errors.New("the attempt was ended by someone else")
	// ErrShutdown: the grace period of a shutdown is over. An error returned
	// because of it is not reported; the task is left to the next owner.
	ErrShutdown = errors.New("the executor is shutting down")
)

// An Error is a failure that chooses how it is recorded and what follows. Any
// other error that a handler returns counts as &Error{Retryable: true, Err: err}:
// most failures are of passing nature, and a task that must not be repeated says
// so with max_attempts 1, which is the default.
type Error struct {
	Code     string          // for programs; empty means CodeFailed
	Message  string          // for people, at most 4 KiB are kept; empty means Err's text
	Detail   string          // for operators only, at most 64 KiB are kept
	Audience ledger.Audience // who can do something about it; empty means operator
	// Retryable: another attempt may succeed, and is made by itself as long as
	// the task's max_attempts allow.
	Retryable bool
	// RetryAfter, if positive, takes the place of the task's back-off, at most
	// 24 h. It implies Retryable.
	RetryAfter time.Duration
	Err        error // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.code()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) code() string {
	if e.Code == "" {
		return CodeFailed
	}
	return e.Code
}

// Permanent marks a failure as one that no automatic attempt will mend. What
// else an *[Error] within err says is kept. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	e := asError(err)
	e.Retryable, e.RetryAfter = false, 0
	return e
}

// RetryAfter marks a failure as one to be tried again after d instead of the
// task's back-off, for instance because a server said how long to wait. At most
// 24 h are kept, and the task's max_attempts still count. What else an *[Error]
// within err says is kept. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	e := asError(err)
	e.Retryable, e.RetryAfter = true, d
	return e
}

// Fail returns a permanent failure with a code of the handler's own and a
// message for the audience that can do something about it: a user, who may change
// the request and retry the collection, or an operator. More than that, such as
// a detail or a retryable failure with a code, says an *[Error].
func Fail(code string, audience ledger.Audience, message string) error {
	return &Error{Code: code, Audience: audience, Message: message}
}

// asError returns err as a new *Error. A message that was wrapped around an
// *Error within it is kept.
func asError(err error) *Error {
	var inner *Error
	if !errors.As(err, &inner) {
		return &Error{Err: err, Retryable: true}
	}
	e := *inner
	if any(err) != any(inner) {
		e.Message, e.Err = err.Error(), err
	}
	return &e
}

// taskError is the failure as the ledger records it, within the ledger's limits.
func (e *Error) taskError() (ledger.TaskError, int64) {
	audience := e.Audience
	if audience != ledger.AudienceUser {
		audience = ledger.AudienceOperator
	}
	after := min(max(e.RetryAfter.Milliseconds(), 0), ledger.MaxBackoffMS)
	return ledger.TaskError{
		Code:      clip(e.code(), ledger.MaxNameBytes),
		Message:   clip(e.Error(), ledger.MaxMessageBytes),
		Detail:    clip(e.Detail, ledger.MaxDetailBytes),
		Audience:  audience,
		Retryable: e.Retryable || e.RetryAfter > 0,
	}, after
}

// clip makes any text one that the ledger accepts: valid UTF-8 without U+0000,
// at most limit bytes long.
func clip(s string, limit int) string {
	if len(s) > limit {
		cut := limit
		for cut > limit-utf8.UTFMax && !utf8.RuneStart(s[cut]) { // not in the middle of a rune
			cut--
		}
		s = s[:cut]
	}
	s = strings.ToValidUTF8(s, "?")
	return strings.ReplaceAll(s, "\x00", "?")
}
