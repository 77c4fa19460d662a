package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// Rules is the version of the fold's rules that this build writes and knows.
// What belongs to a version never changes: the events and their codec, the
// limits, the gate and the rules. A ledger opened under another version is
// refused.
const Rules = 1

// A Verdict is the fold's last word on one record.
type Verdict string

// The verdicts.
const (
	Accepted  Verdict = "accepted"
	Duplicate Verdict = "duplicate" // the same thing was already there
	Stale     Verdict = "stale"     // well-formed, but too late or too early
	Invalid   Verdict = "invalid"   // breaks a limit or the format
	Foreign   Verdict = "foreign"   // not a record of ours
)

// A Reason says why a record was refused. Of stale records it is one of the
// constants; of invalid ones it is a sentence.
type Reason string

// The reasons of stale records.
const (
	ReasonWindow   Reason = "window"   // as_of is too old to judge; decide again from a newer row
	ReasonAhead    Reason = "ahead"    // as_of is beyond the record: history was lost
	ReasonChanged  Reason = "changed"  // a run ended since as_of
	ReasonActive   Reason = "active"   // the collection's run has not ended
	ReasonClaim    Reason = "claim"    // not under the queue's current claim
	ReasonAttempt  Reason = "attempt"  // not the attempt that is open, or next
	ReasonLane     Reason = "lane"     // another collection of the lane is first
	ReasonCanceled Reason = "canceled" // the run was canceled
	ReasonDeferred Reason = "deferred" // the attempt's outcome comes from outside
	ReasonClosed   Reason = "closed"   // the run has ended or never was
)

// A Status is the state of a collection, run, task or attempt.
type Status string

// The statuses. Superseded, not started and deferred are of attempts only,
// waiting of tasks only.
const (
	StatusPending    Status = "pending"
	StatusRunning    Status = "running"
	StatusWaiting    Status = "waiting" // for the next automatic attempt, or an outcome from outside
	StatusSucceeded  Status = "succeeded"
	StatusFailed     Status = "failed"
	StatusCanceled   Status = "canceled"
	StatusSuperseded Status = "superseded"
	StatusNotStarted Status = "not_started"
	StatusDeferred   Status = "deferred"
)

// An Outcome is what one record meant: its verdict and, when it was accepted,
// all that changed, as the state after it. Its slices are valid until the next
// Apply of the same partition.
type Outcome struct {
	Envelope       // Type is "" for foreign records; Event is nil unless it could be decoded
	Offset   int64 // of the record
	TimeMS   int64 // of the record
	Verdict  Verdict
	Reason   Reason
	Hash     [32]byte // of the record: see [RecordHash]

	// Collections and Runs have at most one entry, except that a
	// PartitionReleased may end several canceled runs; changes of finally tasks
	// come without. An accepted CollectionCreated or RetryRequested also makes
	// all of its tasks pending; they are in the event and not repeated in Tasks.
	Collections []CollectionChange
	Runs        []RunChange
	Tasks       []TaskChange
	Attempts    []AttemptChange

	// Touched are the runs of which [Partition.NextFor] may now say something
	// else, also after a refused record. A run may be in it twice. What changes
	// for all runs of a queue by a new claim, or by the release of the current
	// one, is not in it.
	Touched []RunID
}

// A CollectionChange is a collection after a record.
type CollectionChange struct {
	ID     uuid.UUID
	Tenant string
	Run    int
	Status Status // pending, running, succeeded, failed or canceled
}

// A RunChange is a run after a record that opened, started or ended it.
type RunChange struct {
	Collection uuid.UUID
	Run        int
	Status     Status
	FailedTask uuid.UUID // uuid.Nil unless failed
	Error      *TaskError
}

// A TaskChange is a task after a record: all that changes in a task's life
// except its args.
type TaskChange struct {
	Collection uuid.UUID
	ID         uuid.UUID
	TaskKind   Kind
	Index      int // within its kind
	Run        int
	Status     Status // pending, running, waiting (also for an outcome from outside), succeeded, failed or canceled
	Attempts   int    // accepted starts in all runs; of a finally task in this one
	AttemptID  int64  // of the last attempt, -1 for none and for a task that is canceled before its next
	Worker     string // of the last attempt
	StartedMS  int64  // of the last attempt, 0 for none
	FinishedMS int64  // of the last attempt, 0 while it is open
	Result     json.RawMessage
	Message    string
	Error      *TaskError // of the last attempt
}

// An AttemptChange is an attempt after a record that opened, deferred or closed
// it.
type AttemptChange struct {
	ID         int64 // offset of its TaskStarted
	Collection uuid.UUID
	TaskID     uuid.UUID
	TaskKind   Kind
	Run        int
	Number     int // from 1, over all runs; of a finally task in this one
	Claim      int64
	Worker     string
	Status     Status // running, deferred, succeeded, failed, superseded or not started
	StartedMS  int64
	FinishedMS int64 // 0 while it is open
	Result     json.RawMessage
	Message    string
	Error      *TaskError
}

// A HaltError reports a record that this build cannot judge. Reading on would
// let it disagree with newer readers, so the reader stops at the record, which
// was not applied; retrying is pointless, the process must be upgraded or
// pointed at another ledger.
type HaltError struct {
	Partition int32
	Offset    int64
	Type      string
	Why       string
}

func (e *HaltError) Error() string {
	return fmt.Sprintf("partition %d stops at offset %d (%s): %s", e.Partition, e.Offset, e.Type, e.Why)
}
