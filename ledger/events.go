package ledger

import (
	"encoding/json"

	"github.com/google/uuid"
)

// An Event is one thing that happened or was asked for: the data of one record.
//
//sumtype:decl
type Event interface {
	// EventName is the last part of the record's ce_type, such as TaskStarted.
	EventName() string
	// collection is the id the record is keyed by; uuid.Nil for the events
	// that concern the whole partition.
	collection() uuid.UUID
}

// LedgerOpened is the genesis of a partition. Until it is accepted every other
// record of the partition is refused.
type LedgerOpened struct {
	LedgerID   uuid.UUID `json:"ledger_id"`  // the Kafka topic id at creation
	Partitions int32     `json:"partitions"` // frozen, 1 to MaxPartitions
	Rules      int       `json:"rules"`      // the version of the fold's rules
	Window     int64     `json:"window"`     // W, in offsets
}

// RulesActivated switches the partition to the next version of the rules.
type RulesActivated struct {
	Rules int `json:"rules"`
}

// An Actor is who asked: from the credential, never from the body.
type Actor struct {
	Kind      string `json:"kind,omitempty"`
	ID        string `json:"id,omitempty"`
	Name      string `json:"name,omitempty"`
	Address   string `json:"address,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// OnInterrupt says what becomes of a task whose worker was lost.
type OnInterrupt string

// What may become of a task whose worker was lost: it is started again (at
// least once), or it fails (at most once per run).
const (
	OnInterruptRestart OnInterrupt = "restart"
	OnInterruptFail    OnInterrupt = "fail"
)

// A Backoff is the wait before automatic retries: initial × multiplier^(n-1)
// after the n-th failure, at most max. Integers only: no rule uses floats.
type Backoff struct {
	InitialMS  int64 `json:"initial_ms"`
	Multiplier int64 `json:"multiplier"`
	MaxMS      int64 `json:"max_ms"`
}

// A Task is the definition of one step of a collection.
type Task struct {
	ID          uuid.UUID       `json:"id"`
	Index       int             `json:"index"` // from 0
	Name        string          `json:"name"`  // unique in the chain
	Type        string          `json:"type"`
	Queue       string          `json:"queue"`
	Description string          `json:"description,omitempty"`
	Args        json.RawMessage `json:"args"`
	Immutable   bool            `json:"immutable,omitzero"` // the previous result is not handed to the handler
	OnInterrupt OnInterrupt     `json:"on_interrupt"`
	MaxAttempts int             `json:"max_attempts"`
	Backoff     Backoff         `json:"backoff"`
	TimeoutMS   int64           `json:"timeout_ms"`
	// Attempts is the number of accepted starts so far, in all earlier runs.
	// Only RetryRequested carries it.
	Attempts int `json:"attempts,omitzero"`
}

// CollectionCreated asks for a new collection and starts its first run.
type CollectionCreated struct {
	CollectionID   uuid.UUID         `json:"collection_id"`
	Tenant         string            `json:"tenant"`
	Name           string            `json:"name"`
	Template       string            `json:"template,omitempty"`
	Description    string            `json:"description,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	OrderingKey    string            `json:"ordering_key,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	RequestHash    string            `json:"request_hash"`
	AsOf           int64             `json:"as_of"`
	Actor          Actor             `json:"actor,omitzero"`
	Tasks          []Task            `json:"tasks"`
	Finally        []Task            `json:"finally,omitempty"`
}

// RetryRequested asks for another run of the part that did not succeed. It
// carries all that is needed to run it.
type RetryRequested struct {
	CollectionID   uuid.UUID         `json:"collection_id"`
	Tenant         string            `json:"tenant"`
	Run            int               `json:"run"` // the new one
	AsOf           int64             `json:"as_of"`
	Name           string            `json:"name"`
	Template       string            `json:"template,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	OrderingKey    string            `json:"ordering_key,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	RequestHash    string            `json:"request_hash"`
	Reason         string            `json:"reason,omitempty"`
	Actor          Actor             `json:"actor,omitzero"`
	Input          json.RawMessage   `json:"input,omitzero"` // result of the task before the suffix
	TaskCount      int               `json:"task_count"`     // of the whole chain
	Tasks          []Task            `json:"tasks"`          // the suffix
	Amended        []uuid.UUID       `json:"amended,omitempty"`
	Finally        []Task            `json:"finally,omitempty"`
}

// CancelRequested asks that nothing more of the run is started.
type CancelRequested struct {
	CollectionID   uuid.UUID `json:"collection_id"`
	Tenant         string    `json:"tenant"`
	Run            int       `json:"run"`
	IdempotencyKey string    `json:"idempotency_key,omitempty"`
	RequestHash    string    `json:"request_hash"`
	Reason         string    `json:"reason,omitempty"`
	Actor          Actor     `json:"actor,omitzero"`
}

// PartitionClaimed takes the right to start tasks of one queue in one
// partition. Its own offset is the fencing token.
type PartitionClaimed struct {
	Queue  string `json:"queue"`
	Prev   int64  `json:"prev"` // offset of the claim it replaces, -1 for none
	Worker string `json:"worker"`
}

// PartitionReleased gives the right back.
type PartitionReleased struct {
	Queue   string  `json:"queue"`
	Claim   int64   `json:"claim"`
	Worker  string  `json:"worker"`
	Running []int64 `json:"running"`  // attempt ids whose outcome is still to come
	GraceMS int64   `json:"grace_ms"` // 0: the process lives on
}

// TaskStarted opens an attempt. Its own offset, once accepted, is the
// attempt's id.
type TaskStarted struct {
	CollectionID uuid.UUID `json:"collection_id"`
	Tenant       string    `json:"tenant"`
	Run          int       `json:"run"`
	TaskID       uuid.UUID `json:"task_id"`
	Attempt      int       `json:"attempt"` // from 1, counted over all runs
	Claim        int64     `json:"claim"`
	Worker       string    `json:"worker"`
}

// TaskSucceeded closes an attempt with a result.
type TaskSucceeded struct {
	CollectionID uuid.UUID       `json:"collection_id"`
	Tenant       string          `json:"tenant"`
	Run          int             `json:"run"`
	TaskID       uuid.UUID       `json:"task_id"`
	AttemptID    int64           `json:"attempt_id"`
	Worker       string          `json:"worker"`
	Result       json.RawMessage `json:"result,omitzero"`
	Message      string          `json:"message,omitempty"`
}

// Audience says who can do something about a failure.
type Audience string

// The audiences of a failure.
const (
	AudienceUser     Audience = "user"
	AudienceOperator Audience = "operator"
)

// Error codes of our own. Handlers may use any other.
const (
	CodePanic         = "panic"
	CodeTimeout       = "timeout"
	CodeLost          = "lost"
	CodeInterrupted   = "interrupted"
	CodeCanceled      = "canceled"
	CodeInvalidResult = "invalid_result"
	CodeExit          = "exit"
	CodeHTTPStatus    = "http_status"
	CodeConfig        = "config"
)

// A TaskError says why an attempt failed.
type TaskError struct {
	Code      string   `json:"code"`
	Message   string   `json:"message,omitempty"`
	Detail    string   `json:"detail,omitempty"` // for operators
	Audience  Audience `json:"audience"`
	Retryable bool     `json:"retryable,omitzero"`
}

// TaskFailed closes an attempt with an error.
type TaskFailed struct {
	CollectionID uuid.UUID `json:"collection_id"`
	Tenant       string    `json:"tenant"`
	Run          int       `json:"run"`
	TaskID       uuid.UUID `json:"task_id"`
	AttemptID    int64     `json:"attempt_id"`
	Worker       string    `json:"worker"`
	// ByClaim is set only when an owner writes, on behalf of a lost worker or to
	// end a deferred attempt; Worker is then the claim's.
	ByClaim      *int64    `json:"by_claim,omitempty"`
	Error        TaskError `json:"error"`
	RetryAfterMS int64     `json:"retry_after_ms,omitzero"`
}

// TaskDeferred says that the handler has returned and that the outcome comes
// later, from outside.
type TaskDeferred struct {
	CollectionID uuid.UUID `json:"collection_id"`
	Tenant       string    `json:"tenant"`
	Run          int       `json:"run"`
	TaskID       uuid.UUID `json:"task_id"`
	AttemptID    int64     `json:"attempt_id"`
	Worker       string    `json:"worker"`
}

// EventName implements [Event].
func (LedgerOpened) EventName() string     { return "LedgerOpened" }
func (LedgerOpened) collection() uuid.UUID { return uuid.Nil }

// EventName implements [Event].
func (RulesActivated) EventName() string     { return "RulesActivated" }
func (RulesActivated) collection() uuid.UUID { return uuid.Nil }

// EventName implements [Event].
func (CollectionCreated) EventName() string       { return "CollectionCreated" }
func (e CollectionCreated) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (RetryRequested) EventName() string       { return "RetryRequested" }
func (e RetryRequested) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (CancelRequested) EventName() string       { return "CancelRequested" }
func (e CancelRequested) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (PartitionClaimed) EventName() string     { return "PartitionClaimed" }
func (PartitionClaimed) collection() uuid.UUID { return uuid.Nil }

// EventName implements [Event].
func (PartitionReleased) EventName() string     { return "PartitionReleased" }
func (PartitionReleased) collection() uuid.UUID { return uuid.Nil }

// EventName implements [Event].
func (TaskStarted) EventName() string       { return "TaskStarted" }
func (e TaskStarted) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (TaskSucceeded) EventName() string       { return "TaskSucceeded" }
func (e TaskSucceeded) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (TaskFailed) EventName() string       { return "TaskFailed" }
func (e TaskFailed) collection() uuid.UUID { return e.CollectionID }

// EventName implements [Event].
func (TaskDeferred) EventName() string       { return "TaskDeferred" }
func (e TaskDeferred) collection() uuid.UUID { return e.CollectionID }
