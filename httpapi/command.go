package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// appendWait bounds how long a command waits for the broker's ack.
	appendWait = 5 * time.Second
	// maxDecisions bounds how often a command is decided anew after the fold
	// refused it because of what others did meanwhile.
	maxDecisions = 4
)

// A proposal is an event that is about to be appended, and what the answer
// shows once it was.
type proposal struct {
	partition int32
	event     ledger.Event
	answer    Collection
}

// A receipt is what is known of an appended event.
type receipt struct {
	eventID  uuid.UUID
	position readmodel.Position // behind the record
	verdict  ledger.Verdict     // "" while it is not known
	reason   ledger.Reason
}

// A commandOutput answers a command.
type commandOutput struct {
	Status   int
	Location string `doc:"Where the collection is found." header:"Location"`
	Position string `doc:"A position behind the command's record, for Keten-At-Least." example:"3:1042" header:"Keten-Position"`
	Command  string `doc:"The command's event id." header:"Keten-Command"`
	Verdict  string `doc:"accepted; or pending, when the verdict did not come within the wait: Link then names where it will be." enum:"accepted,pending" header:"Keten-Verdict"`
	Link     string `doc:"Where the verdict of a pending command will be found." example:"</v1/commands/01890a5d-ac96-774b-bcce-b302099a8057>; rel=\"status\"" header:"Link"`
	Applied  string `doc:"wait=n when the request prefers it." header:"Preference-Applied"`
	Body     Collection
}

// command appends what decide proposes and waits for its verdict. Checking
// before appending is a courtesy to the caller: where the fold refuses it all
// the same, decide looks again, a bounded number of times. decide may also end
// the matter with an answer or an error of its own.
func (a *API) command(
	ctx context.Context, prefer string, decide func(context.Context) (*proposal, *commandOutput, error),
) (*commandOutput, error) {
	wait, applied := verdictWait(prefer)
	for range maxDecisions {
		p, out, err := decide(ctx)
		if err != nil || out != nil {
			return out, err
		}
		r, err := a.submit(ctx, p, wait)
		if err != nil {
			return nil, err
		}
		switch r.verdict {
		case "", ledger.Accepted:
			out := answer(p, r)
			out.Applied = applied
			return out, nil
		case ledger.Duplicate, ledger.Stale:
			if r.reason == ledger.ReasonAhead {
				a.logger.ErrorContext(ctx, "the ledger has lost history", slog.Int("partition", int(p.partition)),
					slog.String("event_id", r.eventID.String()))
				return nil, refused(r.verdict, r.reason)
			}
		case ledger.Invalid, ledger.Foreign:
			return nil, refused(r.verdict, r.reason)
		}
	}
	return nil, contended()
}

// submit appends a proposal's event and waits for its verdict.
func (a *API) submit(ctx context.Context, p *proposal, wait time.Duration) (receipt, error) {
	eventID, err := uuid.NewV7()
	if err != nil {
		return receipt{}, err
	}
	r := receipt{eventID: eventID}
	r.position, err = a.appendEvent(ctx, eventID, p.partition, p.event)
	if lost, ok := errors.AsType[*appendError](err); ok {
		return receipt{}, appendFailed(lost.err, commandPath(eventID)).with("Keten-Command", eventID.String())
	}
	if err != nil {
		return receipt{}, err
	}
	r.verdict, r.reason = a.awaitVerdict(ctx, r.position, wait, func(ctx context.Context) (ledger.Verdict, ledger.Reason, error) {
		outcome, err := a.store.CommandOutcome(ctx, eventID)
		return outcome.Verdict, outcome.Reason, err
	})
	return r, nil
}

// An appendError is the appender's.
type appendError struct{ err error }

func (e *appendError) Error() string { return e.err.Error() }
func (e *appendError) Unwrap() error { return e.err }

// appendEvent returns a position behind the record. The error is a problem when
// the event breaks a rule, an *appendError when it was not or may not have been
// written.
func (a *API) appendEvent(ctx context.Context, eventID uuid.UUID, partition int32, event ledger.Event) (readmodel.Position, error) {
	info := infoOf(ctx)
	meta := ledger.Meta{EventID: eventID, Source: a.source, Time: time.Now(), Traceparent: info.traceparent}
	msg, err := ledger.Encode(partition, meta, event)
	if err != nil {
		return readmodel.Position{}, badBody("", err)
	}
	appending, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	offset, err := a.append.AppendWait(appending, msg)
	if err != nil {
		a.logger.WarnContext(ctx, "append failed", slog.Any("error", err), slog.String("event_id", eventID.String()),
			slog.String("request_id", info.id))
		return readmodel.Position{}, &appendError{err}
	}
	return readmodel.Position{Partition: partition, Offset: offset + 1}, nil
}

// awaitVerdict reads the verdict of an appended record if it is there within
// wait, else "". Whatever keeps it away, the record is in the ledger and the
// caller is told how to learn it.
func (a *API) awaitVerdict(
	ctx context.Context, behind readmodel.Position, wait time.Duration, read func(context.Context) (ledger.Verdict, ledger.Reason, error),
) (ledger.Verdict, ledger.Reason) {
	if wait <= 0 {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := a.store.WaitFor(ctx, behind); err != nil {
		return "", ""
	}
	verdict, reason, err := read(ctx)
	if err != nil {
		if !errors.Is(err, readmodel.ErrUnreachable) && ctx.Err() == nil {
			a.logger.ErrorContext(ctx, "verdict of a folded record could not be read", slog.Any("error", err))
		}
		return "", ""
	}
	return verdict, reason
}

func answer(p *proposal, r receipt) *commandOutput {
	out := &commandOutput{
		Status: http.StatusAccepted, Location: collectionPath(p.answer.ID), Position: formatPosition(r.position),
		Command: r.eventID.String(), Verdict: "accepted", Body: p.answer,
	}
	out.Body.Position = out.Position
	if r.verdict == "" {
		out.Verdict, out.Link = "pending", "<"+commandPath(r.eventID)+`>; rel="status"`
	}
	return out
}

// logEnd asks the ledger for an end of a partition.
func (a *API) logEnd(ctx context.Context, partition int32) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	end, err := a.append.End(ctx, partition)
	if err != nil {
		a.logger.WarnContext(ctx, "log end could not be learned", slog.Any("error", err))
		return 0, ledgerAway()
	}
	return end, nil
}

// checkWindow refuses to decide on a row when the read model is more than a
// window behind the log: the fold would refuse what is decided on it.
func (a *API) checkWindow(ctx context.Context, partition int32, asOf int64) error {
	end, err := a.logEnd(ctx, partition)
	if err != nil {
		return err
	}
	if end-asOf > a.cfg.Window {
		return behindWindow()
	}
	return nil
}
