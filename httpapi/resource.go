package httpapi

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// A CollectionSummary is a collection without its tasks, as lists show it.
type CollectionSummary struct {
	ID          uuid.UUID         `format:"uuid" json:"id"`
	Name        string            `json:"name"`
	Template    *string           `doc:"The catalog template it was made from; null when its tasks were given one by one." json:"template"`
	Description string            `json:"description"`
	Status      ledger.Status     `enum:"pending,running,succeeded,failed,canceled" doc:"Of the last run." json:"status"`
	Run         int               `doc:"The last run: 1 is the creation, each retry adds one." minimum:"1" json:"run"`
	Retryable   bool              `doc:"Whether a retry would be taken: the last run has failed or was canceled." json:"retryable"`
	Labels      map[string]string `json:"labels"`
	TaskCount   int               `minimum:"1" json:"task_count"`
	TasksDone   int               `doc:"How many tasks from the first have succeeded." minimum:"0" json:"tasks_done"`
	CurrentTask *CurrentTask      `doc:"The task that runs, failed, was canceled or comes next; null once all have succeeded." json:"current_task"`
	Error       *TaskError        `doc:"Why the last run failed; null unless it did. Lists leave detail out." json:"error"`
	CreatedAt   *time.Time        `doc:"When the ledger recorded it; null in the answer to a create, which may come before." json:"created_at"`
	StartedAt   *time.Time        `doc:"When its first task was started first." json:"started_at"`
	FinishedAt  *time.Time        `doc:"When the last run ended." json:"finished_at"`
	UpdatedAt   *time.Time        `json:"updated_at"`
	CreatedBy   Actor             `json:"created_by"`
	Position    string            `doc:"A position (partition:offset) of the ledger that this shows; a later read with Keten-At-Least set to it is not older." example:"3:1042" json:"position"`
}

// A Collection is a chain of tasks and what became of it.
type Collection struct {
	CollectionSummary

	Tasks []Task `doc:"In the order in which they run." json:"tasks" nullable:"false"`
}

// A CurrentTask is where a collection stands.
type CurrentTask struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Attempt int    `doc:"Its attempts so far, over all runs." minimum:"0" json:"attempt"`
}

// An Actor is who asked for something.
type Actor struct {
	Kind string  `doc:"anonymous until there is authentication." json:"kind"`
	ID   *string `json:"id"`
	Name *string `json:"name"`
}

// A TaskError says why a task or attempt failed.
type TaskError struct {
	Code      string          `doc:"panic, timeout, lost, interrupted, canceled, invalid_result, exit, http_status, config, or one of the handler's own." example:"exit" json:"code"`
	Message   string          `json:"message"`
	Detail    string          `doc:"For operators, such as the end of the log." json:"detail"`
	Audience  ledger.Audience `enum:"user,operator" doc:"Who can do something about it." json:"audience"`
	Retryable bool            `doc:"Whether another attempt may help." json:"retryable"`
}

// A Task is one step of a collection: its definition and state.
type Task struct {
	ID          uuid.UUID          `doc:"The same in every run." format:"uuid" json:"id"`
	Index       int                `doc:"From 0." minimum:"0" json:"index"`
	Name        string             `doc:"Unique in the collection." json:"name"`
	Type        string             `doc:"Says which handler runs it." json:"type"`
	Description string             `json:"description"`
	Status      ledger.Status      `enum:"pending,running,waiting,succeeded,failed,canceled" doc:"waiting: for its next automatic attempt, or for an outcome from outside." json:"status"`
	Attempts    int                `doc:"How often it was started, over all runs." minimum:"0" json:"attempts"`
	Run         int                `doc:"The run of its last change." minimum:"1" json:"run"`
	Args        json.RawMessage    `doc:"Any JSON." json:"args"`
	Result      json.RawMessage    `doc:"Any JSON; null until it has succeeded." json:"result"`
	Message     *string            `doc:"What the handler said beside its result." json:"message"`
	Error       *TaskError         `doc:"Of the last attempt, when that failed." json:"error"`
	Queue       string             `doc:"Says which executors run it." json:"queue"`
	Immutable   bool               `doc:"Whether the previous task's result is kept from the handler." json:"immutable"`
	MaxAttempts int                `doc:"How many failures in one run are one too many." minimum:"1" json:"max_attempts"`
	TimeoutMS   int64              `doc:"Of one attempt." minimum:"1" json:"timeout_ms"`
	OnInterrupt ledger.OnInterrupt `enum:"restart,fail" doc:"What becomes of it when its worker is lost." json:"on_interrupt"`
	StartedAt   *time.Time         `doc:"Of the last attempt." json:"started_at"`
	FinishedAt  *time.Time         `doc:"Of the last attempt." json:"finished_at"`
	DurationMS  *int64             `doc:"Of the last attempt, once it has ended." json:"duration_ms"`
	Worker      *string            `doc:"The process that runs or ran the last attempt." json:"worker"`
	Progress    *Progress          `doc:"How far the task has come, while it runs; null when its handler has not said." json:"progress"`
}

// A TaskDetail is a task with every execution of it.
type TaskDetail struct {
	Task

	CollectionID uuid.UUID `format:"uuid" json:"collection_id"`
	AllAttempts  []Attempt `doc:"Oldest first." json:"all_attempts" nullable:"false"`
}

// An Attempt is one execution of a task.
type Attempt struct {
	ID         int64           `doc:"The offset of its start in the ledger's partition: grows with every attempt there, which is what makes it a fence." minimum:"0" json:"id"`
	Number     int             `doc:"From 1, over all runs." minimum:"1" json:"number"`
	Run        int             `minimum:"1" json:"run"`
	Status     ledger.Status   `enum:"running,deferred,succeeded,failed,superseded,not_started" doc:"deferred: its outcome comes from outside. superseded: its worker was lost and another attempt took its place. not_started: its worker gave the right to run it back before it began." json:"status"`
	Worker     string          `json:"worker"`
	StartedAt  time.Time       `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	DurationMS *int64          `json:"duration_ms"`
	Result     json.RawMessage `doc:"Any JSON." json:"result"`
	Message    *string         `json:"message"`
	Error      *TaskError      `json:"error"`
	Progress   *Progress       `doc:"The last that its handler said; null when it said nothing of it." json:"progress"`
}

// TransformSchema implements [huma.SchemaTransformer].
func (CollectionSummary) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return withNull(s, "error", "current_task")
}

// TransformSchema implements [huma.SchemaTransformer].
func (Task) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return withNull(s, "error", "progress")
}

// TransformSchema implements [huma.SchemaTransformer].
func (Attempt) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return withNull(s, "error", "progress")
}

// withNull says of members that they may be null, which huma cannot say of
// objects.
func withNull(s *huma.Schema, names ...string) *huma.Schema {
	for _, name := range names {
		member := s.Properties[name]
		s.Properties[name] = &huma.Schema{
			Description: member.Description,
			AnyOf:       []*huma.Schema{{Ref: member.Ref}, {Type: "null"}},
		}
	}
	return s
}

func newSummary(c *readmodel.Collection) CollectionSummary {
	s := CollectionSummary{
		ID: c.ID, Name: c.Name, Template: optional(c.Template), Description: c.Description,
		Status: c.Status, Run: c.Run, Retryable: retryable(c.Status), Labels: c.Labels,
		TaskCount: c.TaskCount, TasksDone: c.TasksDone, Error: newTaskError(c.Error),
		CreatedAt: &c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, UpdatedAt: &c.UpdatedAt,
		CreatedBy: newActor(c.CreatedBy), Position: formatPosition(c.Position),
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if c.CurrentTask != "" {
		s.CurrentTask = &CurrentTask{Name: c.CurrentTask, Type: c.CurrentTaskType, Attempt: c.CurrentAttempt}
	}
	return s
}

func newCollection(c *readmodel.Collection) Collection {
	tasks := make([]Task, len(c.Tasks))
	for i := range c.Tasks {
		tasks[i] = newTask(&c.Tasks[i])
	}
	out := Collection{CollectionSummary: newSummary(c), Tasks: tasks}
	if out.Error != nil && c.TasksDone < len(tasks) && tasks[c.TasksDone].Error != nil {
		out.Error = tasks[c.TasksDone].Error // with its detail
	}
	return out
}

func newTask(t *readmodel.Task) Task {
	d := &t.Definition
	return Task{
		ID: d.ID, Index: d.Index, Name: d.Name, Type: d.Type, Description: d.Description, Status: t.Status,
		Attempts: t.Attempts, Run: t.Run, Args: d.Args, Result: t.Result, Message: optional(t.Message),
		Error: newTaskError(t.Error), Queue: d.Queue, Immutable: d.Immutable, MaxAttempts: d.MaxAttempts,
		TimeoutMS: d.TimeoutMS, OnInterrupt: d.OnInterrupt, StartedAt: t.StartedAt, FinishedAt: t.FinishedAt,
		DurationMS: duration(t.StartedAt, t.FinishedAt), Worker: optional(t.Worker),
	}
}

func newAttempt(a *readmodel.Attempt) Attempt {
	return Attempt{
		ID: a.ID, Number: a.Number, Run: a.Run, Status: a.Status, Worker: a.Worker, StartedAt: a.StartedAt,
		FinishedAt: a.FinishedAt, DurationMS: duration(&a.StartedAt, a.FinishedAt), Result: a.Result,
		Message: optional(a.Message), Error: newTaskError(a.Error),
	}
}

// createdCollection is a collection as its creation defines it, before anything
// has run: the answer to a create, the same whenever it is asked again.
func createdCollection(c *readmodel.Collection, tasks []ledger.Task) Collection {
	created := readmodel.Collection{
		ID: c.ID, Name: c.Name, Template: c.Template, Description: c.Description, Labels: c.Labels,
		Status: ledger.StatusPending, Run: 1, TaskCount: len(tasks), CurrentTask: tasks[0].Name, CurrentTaskType: tasks[0].Type,
		CreatedBy: c.CreatedBy, Position: c.Position, Tasks: make([]readmodel.Task, len(tasks)),
	}
	for i := range tasks {
		created.Tasks[i] = readmodel.Task{Definition: tasks[i], Status: ledger.StatusPending, Run: 1}
	}
	out := newCollection(&created)
	out.CreatedAt, out.UpdatedAt = nil, nil // the broker's clock says, and may not have yet
	return out
}

// retriedCollection is row with another run that has been asked for and has
// not begun: the tasks from first on are pending.
func retriedCollection(row *readmodel.Collection, first int) Collection {
	c := *row
	c.Run, c.Status, c.Error, c.FinishedAt = row.Run+1, ledger.StatusPending, nil, nil
	c.Tasks = slices.Clone(row.Tasks)
	for i := first; i < len(c.Tasks); i++ {
		t := &c.Tasks[i]
		*t = readmodel.Task{Definition: t.Definition, Status: ledger.StatusPending, Run: c.Run, Attempts: t.Attempts, AttemptID: -1}
	}
	return newCollection(&c)
}

func newTaskError(e *ledger.TaskError) *TaskError {
	if e == nil {
		return nil
	}
	return &TaskError{Code: e.Code, Message: e.Message, Detail: e.Detail, Audience: e.Audience, Retryable: e.Retryable}
}

func newActor(a ledger.Actor) Actor {
	return Actor{Kind: a.Kind, ID: optional(a.ID), Name: optional(a.Name)}
}

func retryable(s ledger.Status) bool { return s == ledger.StatusFailed || s == ledger.StatusCanceled }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func duration(from, to *time.Time) *int64 {
	if from == nil || to == nil {
		return nil
	}
	ms := to.Sub(*from).Milliseconds()
	return &ms
}
