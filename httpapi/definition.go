package httpapi

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/ledger"
)

// maxFieldErrors bounds what one bad request is answered with.
const maxFieldErrors = 100

// A CreateRequest asks for a collection of tasks given one by one.
type CreateRequest struct {
	_ struct{} `additionalProperties:"false"`

	Name        string            `doc:"Need not be unique." example:"certificate for shop.example" json:"name" maxLength:"200" minLength:"1"`
	Description string            `json:"description,omitempty" maxLength:"4096"`
	Labels      map[string]string `doc:"To find it again: at most 32, names of at most 63 bytes, values of at most 256." example:"{\"team\":\"web\"}" json:"labels,omitempty" maxProperties:"32"`
	Tasks       []TaskRequest     `doc:"The chain. A task begins when the one before has succeeded." json:"tasks" maxItems:"200" minItems:"1" nullable:"false"`
}

// A TaskRequest defines one task. What it leaves out is as the catalog says of
// its type.
type TaskRequest struct {
	_ struct{} `additionalProperties:"false"`

	Name        string          `doc:"Unique in the chain." example:"key" json:"name" maxLength:"200" minLength:"1"`
	Type        string          `doc:"A type of the catalog, or one that an executor serves in Go." example:"certificate.key" json:"type" maxLength:"200" minLength:"1"`
	Args        json.RawMessage `doc:"Any JSON that fits the type's args_schema: at most 256 KiB and 64 levels. Kept digit for digit. Default {}." json:"args,omitempty"`
	Description *string         `json:"description,omitempty" maxLength:"4096"`
	Queue       *string         `doc:"Which executors run it: those that serve this queue. Default: the type's." example:"default" json:"queue,omitempty" maxLength:"255" minLength:"1"`
	TimeoutMS   *int64          `doc:"Of one attempt." json:"timeout_ms,omitempty" maximum:"86400000" minimum:"1"`
	MaxAttempts *int            `doc:"How many failures in one run are one too many." json:"max_attempts,omitempty" maximum:"1000" minimum:"1"`
	Immutable   *bool           `doc:"True: the previous task's result is not handed to the handler." json:"immutable,omitempty"`
}

// A TemplateRequest asks for a collection made from a template of the catalog.
type TemplateRequest struct {
	_ struct{} `additionalProperties:"false"`

	Input       json.RawMessage   `doc:"What the template is filled in with; must fit its input_schema. Default {}." json:"input,omitempty"`
	Name        string            `doc:"Default: the template's name." json:"name,omitempty" maxLength:"200" minLength:"1"`
	Description string            `doc:"Default: the template's." json:"description,omitempty" maxLength:"4096"`
	Labels      map[string]string `doc:"To find it again: at most 32, names of at most 63 bytes, values of at most 256." json:"labels,omitempty" maxProperties:"32"`
}

// TransformSchema implements [huma.SchemaTransformer]: labels have text only.
func (CreateRequest) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Examples = []any{map[string]any{
		"name":   "certificate for shop.example",
		"labels": map[string]any{"team": "web"},
		"tasks": []any{
			map[string]any{"name": "key", "type": "certificate.key", "args": map[string]any{"domain": "shop.example"}},
			map[string]any{"name": "csr", "type": "certificate.csr", "args": map[string]any{"domain": "shop.example"}},
		},
	}}
	return s
}

// A definition is a collection that a request asks for, sound as far as it can
// be known before the ledger encodes it. Its tasks have no ids yet.
type definition struct {
	name, template, description string
	labels                      map[string]string
	tasks                       []ledger.Task
	hash                        string // request_hash
}

// fromTasks reads a CreateRequest.
func (a *API) fromTasks(r *CreateRequest) (*definition, error) {
	if n := len(r.Tasks); n < 1 || n > ledger.MaxTasks {
		message := "has " + strconv.Itoa(n) + " entries, want 1 to " + strconv.Itoa(ledger.MaxTasks)
		return nil, badFields(codeInvalid, []FieldError{fieldError("/tasks", message)})
	}
	d := &definition{name: r.Name, description: r.Description, labels: r.Labels, tasks: make([]ledger.Task, len(r.Tasks))}
	code, fields := codeInvalid, []FieldError(nil)
	for i := range r.Tasks {
		task, taskCode, bad := a.task(&r.Tasks[i], "/tasks/"+strconv.Itoa(i))
		if taskCode == codeUnknownType {
			code = codeUnknownType
		}
		fields = append(fields, bad...)
		d.tasks[i] = task
	}
	if len(fields) > 0 {
		return nil, badFields(code, fields[:min(len(fields), maxFieldErrors)])
	}
	return d, nil
}

// task reads one task that stands at path, or says what is wrong with it.
func (a *API) task(r *TaskRequest, path string) (t ledger.Task, code string, bad []FieldError) {
	args := r.Args
	if len(args) == 0 {
		args = json.RawMessage("{}")
	}
	spec, err := a.spec(r.Name, r.Type, args)
	var invalid *catalog.ValidationError
	switch {
	case errors.As(err, &invalid):
		return t, codeInvalid, violations(path+"/args", invalid)
	case err != nil:
		return t, codeUnknownType, []FieldError{fieldError(path+"/type", "there is no task type "+strconv.Quote(shortened(r.Type)))}
	}
	t = newDefinition(spec)
	override(&t, r)
	if err := ledger.CheckTask(t); err != nil {
		return t, codeInvalid, badBody(path, err).Errors
	}
	return t, "", nil
}

// spec asks the catalog for a type's defaults, and takes the ledger's for a
// type that only a handler in Go knows.
func (a *API) spec(name, typ string, args json.RawMessage) (catalog.TaskSpec, error) {
	spec, err := a.cfg.Catalog.Spec(name, typ, args)
	if !errors.Is(err, catalog.ErrUnknownType) || !a.known[typ] {
		return spec, err
	}
	return catalog.TaskSpec{
		Name: name, Type: typ, Queue: ledger.DefaultQueue, Args: args, OnInterrupt: string(ledger.OnInterruptRestart),
		MaxAttempts: ledger.DefaultMaxAttempts, BackoffInitialMS: ledger.DefaultBackoffInitialMS,
		BackoffMultiplier: ledger.DefaultBackoffMultiplier, BackoffMaxMS: ledger.DefaultBackoffMaxMS,
		TimeoutMS: ledger.DefaultTimeoutMS,
	}, nil
}

func newDefinition(s catalog.TaskSpec) ledger.Task {
	return ledger.Task{
		Name: s.Name, Type: s.Type, Queue: s.Queue, Description: s.Description, Args: s.Args, Immutable: s.Immutable,
		OnInterrupt: ledger.OnInterrupt(s.OnInterrupt), MaxAttempts: s.MaxAttempts,
		Backoff:   ledger.Backoff{InitialMS: s.BackoffInitialMS, Multiplier: s.BackoffMultiplier, MaxMS: s.BackoffMaxMS},
		TimeoutMS: s.TimeoutMS,
	}
}

func override(t *ledger.Task, r *TaskRequest) {
	if r.Description != nil {
		t.Description = *r.Description
	}
	if r.Queue != nil {
		t.Queue = *r.Queue
	}
	if r.TimeoutMS != nil {
		t.TimeoutMS = *r.TimeoutMS
	}
	if r.MaxAttempts != nil {
		t.MaxAttempts = *r.MaxAttempts
	}
	if r.Immutable != nil {
		t.Immutable = *r.Immutable
	}
}

// fromTemplate reads a TemplateRequest.
func (a *API) fromTemplate(name string, r *TemplateRequest) (*definition, error) {
	template, ok := a.cfg.Catalog.Template(name)
	if !ok {
		return nil, unknownTemplate(shortened(name))
	}
	input := r.Input
	if len(input) == 0 {
		input = json.RawMessage("{}")
	}
	specs, err := template.Resolve(input)
	var invalid *catalog.ValidationError
	switch {
	case errors.As(err, &invalid):
		return nil, badFields(codeInvalid, violations("/input", invalid))
	case err != nil:
		return nil, err
	}
	d := &definition{
		name: r.Name, template: template.Name, description: r.Description, labels: r.Labels,
		tasks: make([]ledger.Task, len(specs)),
	}
	if d.name == "" {
		d.name = template.Name
	}
	if d.description == "" {
		d.description = template.Description
	}
	for i, spec := range specs {
		d.tasks[i] = newDefinition(spec)
		if err := ledger.CheckTask(d.tasks[i]); err != nil {
			return nil, badBody("/input", err)
		}
	}
	return d, nil
}

// shortened keeps a name that is quoted back from filling an answer.
func shortened(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
