package executor

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// An attempt is held from the start of its handler until its outcome was read
// back. Held attempts are never given up as lost, also while the partition is
// with another process. All fields belong to the owner's goroutine, except that
// the handler's goroutine reads def, set before it starts.
type attempt struct {
	def     ledger.Attempt
	class   string // of its slot
	cancel  context.CancelCauseFunc
	running bool // the handler has not returned
	closed  bool // someone else ended the attempt in the log
	// awaitedBy is the run whose next task may not start before the handler of
	// this attempt has returned; the zero value for none.
	awaitedBy ledger.RunID
}

func (a *attempt) runID() ledger.RunID {
	return ledger.RunID{Collection: a.def.Collection, Run: a.def.Run}
}

// logger returns base with the attempt's ids.
func (a *attempt) logger(base *slog.Logger) *slog.Logger {
	return slog.New(attemptLog{base.Handler(), &a.def})
}

// runner returns what runs this process's attempts.
func (x *Executor) runner() runner {
	return runner{
		worker: x.worker, source: x.source, logger: x.logger, metrics: x.metrics, output: x.newOutput, token: x.outcomeToken,
	}
}

// runHandler runs the handler of an attempt, makes the record of its outcome
// and hands it to done. It is the body of the attempt's own goroutine.
func (x *Executor) runHandler(ctx context.Context, h RawHandler, a *attempt, done func(report)) {
	r := x.runner()
	r.run(ctx, h, a.def, done)
}

func (x *Executor) failure(a *attempt, e *Error) report {
	r := x.runner()
	return r.failure(&a.def, e)
}

// encode makes the record of an event with an id of its own.
func (x *Executor) encode(partition int32, e ledger.Event) (ledger.Message, error) {
	return encode(partition, x.source, e)
}

func encode(partition int32, source string, e ledger.Event) (ledger.Message, error) {
	now := time.Now()
	return ledger.Encode(partition, ledger.Meta{EventID: newEventID(now), Source: source, Time: now}, e)
}

// newEventID returns a UUIDv7 (RFC 9562). It need not be a secret, and so many
// are made that asking the kernel for each would be felt.
func newEventID(now time.Time) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16|rand.Uint64()&0x0fff|0x7000)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63)
	return id
}
