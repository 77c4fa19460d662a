package executor

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// A sentKind says what an own record is for.
type sentKind int

const (
	sentClaim sentKind = iota
	sentRelease
	sentStart
	sentTakeover // a TaskFailed on behalf of a lost worker
	sentOutcome  // or a TaskDeferred
)

// sent is an own record that has not been read back. It is appended again, with
// the same event id, until it is.
type sent struct {
	kind    sentKind
	msg     ledger.Message
	seq     uint64        // the order in which records were first appended
	tenure  *tenure       // of all but outcomes
	action  ledger.Action // of a start or takeover
	class   string        // of a start: of the slot it came with
	sinceMS int64         // of a start: since when the task could start; 0 if not known
	attempt *attempt      // of an outcome
	report  report        // of an outcome
	bare    bool          // of an outcome: it stands in for one that was read back as invalid

	failures int       // appends that ended with an error
	retryAt  time.Time // zero while an append is under way
	acked    atomic.Bool
	kept     bool // of an outcome: it is in the outbox, or on its way there
}

// The pause before a record is appended again doubles from resendFirst to
// resendMost. It follows errors of the producer only, which itself tries for as
// long as the broker is away.
const (
	resendFirst = 100 * time.Millisecond
	resendMost  = 5 * time.Second
)

// send appends a record and remembers it.
func (o *owner) send(s *sent) {
	o.seq++
	s.seq = o.seq
	o.sent[s.msg.EventID] = s
	switch s.kind {
	case sentOutcome:
		o.x.tally.unread(+1)
		o.keeping.sent(s, time.Now())
	case sentStart, sentTakeover:
		o.pending[s.action.RunID()] = s
	case sentClaim, sentRelease:
	}
	o.append(s)
}

// forget ends the wait for a record's read-back.
func (o *owner) forget(s *sent) {
	delete(o.sent, s.msg.EventID)
	if !s.retryAt.IsZero() {
		o.failing--
	}
	switch s.kind {
	case sentOutcome:
		o.x.tally.unread(-1)
		o.x.dropKept(s)
	case sentStart, sentTakeover:
		delete(o.pending, s.action.RunID())
	case sentClaim, sentRelease:
	}
}

func (o *owner) append(s *sent) {
	id := s.msg.EventID
	o.x.log.Append(s.msg, func(_ int64, err error) {
		if err != nil {
			o.mail.put(func(now time.Time) { o.appendFailed(id, err, now) })
			return
		}
		s.acked.Store(true)
	})
}

// appendFailed plans the next append of a record. An error never means that the
// record is not in the log, so nothing else changes.
func (o *owner) appendFailed(id uuid.UUID, err error, now time.Time) {
	s := o.sent[id]
	if s == nil || !s.retryAt.IsZero() {
		return // read back meanwhile
	}
	pause := min(resendFirst<<min(s.failures, 10), resendMost)
	s.failures++
	s.retryAt = now.Add(pause/2 + rand.N(pause/2+1))
	o.failing++
	if now.Sub(o.warnedAt) > resendMost {
		o.warnedAt = now
		o.logger.Warn("record could not be appended, trying again", slog.Int("waiting", o.failing), slog.Any("error", err))
	}
}

// appendAgain appends the records whose time has come, in their first order.
func (o *owner) appendAgain(now time.Time) {
	if o.failing == 0 {
		return
	}
	var due []*sent
	for _, s := range o.sent {
		if !s.retryAt.IsZero() && !s.retryAt.After(now) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b *sent) int { return cmp.Compare(a.seq, b.seq) })
	for _, s := range due {
		s.retryAt = time.Time{}
		o.failing--
		o.append(s)
	}
}

// readBack acts on the fold's verdict of an own record.
func (o *owner) readBack(ctx context.Context, s *sent, out *ledger.Outcome, now time.Time) {
	accepted := out.Verdict == ledger.Accepted
	switch s.kind {
	case sentClaim:
		o.claimReadBack(ctx, s.tenure, out, now)
	case sentRelease:
		s.tenure.releasing = -1
	case sentStart:
		if accepted {
			o.startAccepted(s, out)
			return
		}
		o.x.slots.release(s.class)
		o.refusedAction(ctx, s, out)
	case sentTakeover:
		if accepted {
			delete(o.refused, s.action.RunID())
			return
		}
		o.refusedAction(ctx, s, out)
	case sentOutcome:
		o.outcomeReadBack(ctx, s, out)
	}
}

// startAccepted measures how long the task had waited.
func (o *owner) startAccepted(s *sent, out *ledger.Outcome) {
	delete(o.refused, s.action.RunID())
	if s.sinceMS > 0 {
		o.x.metrics.wait.Observe(max(float64(out.TimeMS-s.sinceMS)/1000, 0))
	}
}

// outcomeReadBack ends the holding of an attempt, whatever the verdict: only a
// record that is invalid is replaced by one without payload.
func (o *owner) outcomeReadBack(ctx context.Context, s *sent, out *ledger.Outcome) {
	a := s.attempt
	logger := a.logger(o.logger)
	switch out.Verdict {
	case ledger.Invalid:
		o.replaceInvalid(ctx, s, out.Reason)
		return
	case ledger.Accepted:
		o.x.metrics.attempts.WithLabelValues(a.def.Task.Type, s.report.result).Inc()
		if next := o.pending[a.runID()]; next != nil && s.report.succeeded {
			next.sinceMS = out.TimeMS // the start that was appended with the outcome
		}
		if s.report.deferred {
			logger.InfoContext(ctx, "attempt deferred, its outcome comes from outside")
		}
		if s.report.err != nil {
			logger.InfoContext(ctx, "attempt failed", slog.String("code", s.report.err.Code),
				slog.String("message", s.report.err.Message), slog.Bool("retryable", s.report.err.Retryable))
		}
	case ledger.Duplicate, ledger.Stale, ledger.Foreign:
		if s.report.deferred { // the outcome from outside was faster
			break
		}
		o.x.metrics.attempts.WithLabelValues(a.def.Task.Type, resultTakenOver).Inc()
		logger.InfoContext(ctx, "outcome came too late", slog.String("reason", string(out.Reason)))
	}
	delete(o.held, a.def.ID)
}

// replaceInvalid reports an outcome that the fold calls invalid, although it
// was checked before, as a failure without payload: the attempt must end.
func (o *owner) replaceInvalid(ctx context.Context, s *sent, reason ledger.Reason) {
	if s.bare {
		o.stop(ctx, &refusedError{what: "the outcome of an attempt", reason: reason})
		return
	}
	r := o.x.failure(s.attempt, &Error{Code: ledger.CodeInvalidResult, Message: "the outcome was refused: " + string(reason)})
	if r.broken != nil {
		o.stop(ctx, r.broken)
		return
	}
	o.send(&sent{kind: sentOutcome, msg: r.msg, attempt: s.attempt, report: r, bare: true})
}

// A refusal counts how often the fold has refused the same action for the same
// reason.
type refusal struct {
	action actionKey
	reason ledger.Reason
	times  int
}

type actionKey struct {
	kind    ledger.ActionKind
	task    uuid.UUID
	attempt int
	id      int64
	claim   int64
}

func keyOf(a *ledger.Action) actionKey {
	return actionKey{kind: a.Kind, task: a.TaskID, attempt: a.Attempt, id: a.AttemptID, claim: a.Claim}
}

// mostRefusals is how often the same action may be refused for the same reason
// before its partition stops. What the fold asks for it accepts, but for races;
// a third time is a bug, and repeating it would fill the log.
const mostRefusals = 3

func (o *owner) refusedAction(ctx context.Context, s *sent, out *ledger.Outcome) {
	id, key := s.action.RunID(), keyOf(&s.action)
	r := o.refused[id]
	if r.action != key || r.reason != out.Reason {
		r = refusal{action: key, reason: out.Reason}
	}
	r.times++
	o.refused[id] = r
	if r.times >= mostRefusals {
		o.stop(ctx, &refusedError{what: "a start or takeover in collection " + id.Collection.String(), reason: out.Reason})
	}
}

// A refusedError reports own records that the fold keeps refusing.
type refusedError struct {
	what   string
	reason ledger.Reason
}

func (e *refusedError) Error() string { return e.what + " was refused: " + string(e.reason) }
