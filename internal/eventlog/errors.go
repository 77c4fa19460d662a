package eventlog

import (
	"errors"
	"fmt"
)

var (
	// ErrNotInitialized reports that the topic is not there or that not all of
	// its partitions were opened. [Init] creates or completes the ledger.
	ErrNotInitialized = errors.New("the ledger is not initialized")

	// ErrUnreachable reports that no broker answered in time. Trying again
	// later is safe.
	ErrUnreachable = errors.New("no broker could be reached")

	// ErrOutcomeUnknown reports an append that may or may not be in the log, or
	// may still land there. Repeating it with the same event id is safe. It
	// implements interface{ OutcomeUnknown() bool }.
	ErrOutcomeUnknown error = outcomeUnknownError{}

	// ErrOverloaded reports an append that was not taken because too much waits
	// for the broker; the record will not land. It implements
	// interface{ Overloaded() bool }.
	ErrOverloaded error = overloadedError{}

	// ErrDataLoss reports that the log does not hold what was read from it
	// before: its tail was lost or replaced, its beginning deleted, or the
	// topic recreated. Reading on would make this reader disagree with others.
	ErrDataLoss = errors.New("the ledger's history is not what it was")

	// ErrCorrupt reports a batch of records that cannot be decoded. The
	// partition cannot be read beyond it until the broker serves it whole.
	ErrCorrupt = errors.New("the ledger has a corrupt batch")

	// ErrClosed reports the use of a Log or Reader after its Close.
	ErrClosed = errors.New("the event log is closed")
)

type outcomeUnknownError struct{}

func (outcomeUnknownError) Error() string        { return "the append's outcome is unknown" }
func (outcomeUnknownError) OutcomeUnknown() bool { return true }

type overloadedError struct{}

func (overloadedError) Error() string    { return "too many records wait for the broker" }
func (overloadedError) Overloaded() bool { return true }

// A PreflightError is one setting of the topic or the brokers that would
// endanger the ledger. [Open] and [Init] join as many as they find.
type PreflightError struct {
	Setting string // its name, as Kafka calls it where Kafka has a name for it
	Value   string // what it is
	Want    string // what it must be, in words
}

func (e *PreflightError) Error() string {
	return fmt.Sprintf("%s is %s, but must be %s", e.Setting, e.Value, e.Want)
}
