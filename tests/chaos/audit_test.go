package chaos_test

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// An audit is a second fold of one partition, from bytes, that shares no code
// with package ledger. It knows as much of the rules as the load of these tests
// needs: no retries, cancels, lanes, finally tasks or deferrals.
type audit struct {
	claims   map[string]*auditClaim
	runs     map[uuid.UUID]*auditRun
	attempts map[int64]*auditAttempt // accepted starts, by their offset
}

type auditClaim struct {
	offset   int64
	worker   string
	released bool
}

type auditRun struct {
	collection uuid.UUID
	tasks      []auditTask
	at         int // the task that is next
	open       *auditAttempt
	status     string // "" while it is active
	code       string // of the failure
}

type auditTask struct {
	ID          uuid.UUID `json:"id"`
	OnInterrupt string    `json:"on_interrupt"`
	MaxAttempts int       `json:"max_attempts"`

	starts, failures int
	succeeded        int64 // offset of its success, 0 for none: offset 0 is the genesis
	succeededMS      int64
}

type auditAttempt struct {
	id       int64
	task     int
	run      *auditRun
	number   int
	claim    int64
	worker   string
	openedMS int64
	// status is "" while it is open, else succeeded, failed, superseded or
	// not_started; outcomes counts accepted ones.
	status   string
	closedMS int64
	outcomes int
	// abandoned: it was ended by somebody who took over.
	abandoned bool
}

// auditEvent is the union of the events' data.
type auditEvent struct {
	CollectionID uuid.UUID   `json:"collection_id"`
	Run          int         `json:"run"`
	TaskID       uuid.UUID   `json:"task_id"`
	Attempt      int         `json:"attempt"`
	AttemptID    int64       `json:"attempt_id"`
	Claim        int64       `json:"claim"`
	Prev         int64       `json:"prev"`
	Queue        string      `json:"queue"`
	Worker       string      `json:"worker"`
	ByClaim      *int64      `json:"by_claim"`
	Running      []int64     `json:"running"`
	Tasks        []auditTask `json:"tasks"`
	Error        struct {
		Code      string `json:"code"`
		Retryable bool   `json:"retryable"`
	} `json:"error"`
}

func newAudit() *audit {
	return &audit{claims: map[string]*auditClaim{}, runs: map[uuid.UUID]*auditRun{}, attempts: map[int64]*auditAttempt{}}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// judge says whether a record counts, and notes what it does.
func (a *audit) judge(r *kgo.Record) (accepted bool, err error) {
	var e auditEvent
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return false, fmt.Errorf("offset %d: %w", r.Offset, err)
	}
	switch name := strings.TrimPrefix(header(r, "ce_type"), "keten.v1."); name {
	case "LedgerOpened":
		return r.Offset == 0, nil
	case "CollectionCreated":
		return a.created(&e), nil
	case "PartitionClaimed":
		return a.claimed(r.Offset, &e), nil
	case "PartitionReleased":
		return a.released(r, &e), nil
	case "TaskStarted":
		return a.started(r, &e), nil
	case "TaskSucceeded", "TaskFailed":
		return a.outcome(r, &e, name == "TaskSucceeded"), nil
	default:
		return false, fmt.Errorf("offset %d: the load has no %s", r.Offset, name)
	}
}

func (a *audit) created(e *auditEvent) bool {
	if a.runs[e.CollectionID] != nil {
		return false
	}
	a.runs[e.CollectionID] = &auditRun{collection: e.CollectionID, tasks: e.Tasks}
	return true
}

func (a *audit) claimed(offset int64, e *auditEvent) bool {
	current := a.claims[e.Queue]
	if current == nil && e.Prev != -1 || current != nil && e.Prev != current.offset {
		return false
	}
	a.claims[e.Queue] = &auditClaim{offset: offset, worker: e.Worker}
	return true
}

func (a *audit) released(r *kgo.Record, e *auditEvent) bool {
	current := a.claims[e.Queue]
	if current == nil || e.Claim > current.offset || e.Claim == current.offset && (current.released || current.worker != e.Worker) {
		return false
	}
	current.released = current.released || e.Claim == current.offset
	listed := make(map[int64]bool)
	for _, id := range e.Running {
		listed[id] = true
	}
	for _, run := range a.runs {
		if open := run.open; open != nil && open.worker == e.Worker && open.claim == e.Claim && !listed[open.id] {
			open.close("not_started", r)
		}
	}
	return true
}

func (a *audit) started(r *kgo.Record, e *auditEvent) bool {
	run, claim := a.runs[e.CollectionID], a.claims["default"]
	if run == nil || run.status != "" || claim == nil || e.Run != 1 {
		return false
	}
	task := &run.tasks[run.at]
	if task.ID != e.TaskID || e.Attempt != task.starts+1 || e.Claim != claim.offset || e.Worker != claim.worker || claim.released {
		return false
	}
	if run.open != nil {
		if run.open.claim == e.Claim || task.OnInterrupt != "restart" {
			return false
		}
		run.open.abandoned = true
		run.open.close("superseded", r)
	}
	task.starts++
	run.open = &auditAttempt{
		id: r.Offset, task: run.at, run: run, number: e.Attempt, claim: e.Claim, worker: e.Worker, openedMS: r.Timestamp.UnixMilli(),
	}
	a.attempts[r.Offset] = run.open
	return true
}

func (t *auditAttempt) close(status string, r *kgo.Record) {
	t.status, t.closedMS, t.run.open = status, r.Timestamp.UnixMilli(), nil
}

func (a *audit) outcome(r *kgo.Record, e *auditEvent, success bool) bool {
	run, claim := a.runs[e.CollectionID], a.claims["default"]
	if run == nil || run.open == nil || run.open.id != e.AttemptID || e.Run != 1 || run.tasks[run.at].ID != e.TaskID {
		return false
	}
	if e.ByClaim == nil && e.Worker != run.open.worker {
		return false
	}
	if e.ByClaim != nil && (claim.released || *e.ByClaim != claim.offset || e.Worker != claim.worker) {
		return false
	}
	task := &run.tasks[run.at]
	run.open.outcomes++
	run.open.abandoned = e.ByClaim != nil
	if success {
		run.open.close("succeeded", r)
		task.succeeded, task.succeededMS = r.Offset, r.Timestamp.UnixMilli()
		if run.at++; run.at == len(run.tasks) {
			run.status = "succeeded"
		}
		return true
	}
	run.open.close("failed", r)
	lost := e.ByClaim != nil && (e.Error.Code == "lost" || e.Error.Code == "interrupted")
	if lost && e.Error.Retryable && task.OnInterrupt == "restart" {
		return true
	}
	task.failures++
	if !e.Error.Retryable || task.failures >= task.MaxAttempts {
		run.status, run.code = "failed", e.Error.Code
	}
	return true
}
