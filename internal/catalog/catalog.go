package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// OnInterrupt says what becomes of an attempt whose worker was lost.
const (
	OnInterruptRestart = "restart" // the task is started again
	OnInterruptFail    = "fail"    // the task fails: it must not run twice
)

// Audience says for whom the failures of a type are written.
const (
	AudienceUser     = "user"
	AudienceOperator = "operator"
)

// The meanings of a status in [HTTP].
const (
	StatusSuccess = "success" // the body is the result
	StatusRetry   = "retry"   // a failure that another attempt may mend
	StatusFail    = "fail"    // a failure for good
	StatusPending = "pending" // the outcome comes later, from outside
)

// A Catalog holds the task types and templates of one file; its zero value has
// none. It is not changed
// after loading, so any number of goroutines may use it.
type Catalog struct {
	Types     map[string]*Type     // by name; TypeNames gives their order
	Templates map[string]*Template // by name; TemplateNames gives their order
}

// A Type is what tasks of one kind have in common. Every field is filled in:
// where the file says nothing, with the default.
type Type struct {
	Name        string
	Description string
	// Exec, HTTP and Sleep are the type's runner: one at most. All nil: a
	// handler registered in Go serves the type.
	Exec          *Exec
	HTTP          *HTTP
	Sleep         *Sleep
	Queue         string
	Timeout       time.Duration // of one attempt; whole milliseconds, 1ms to 24h
	MaxAttempts   int           // 1 to 1,000
	MaxConcurrent int           // at a time in one executor, up to 10,000; 0: as many as it runs
	Backoff       Backoff
	OnInterrupt   string // OnInterruptRestart, or OnInterruptFail with MaxAttempts 1
	Audience      string // AudienceUser or AudienceOperator

	args   *schema // nil: any JSON
	result *schema // nil: any JSON
}

// Exec is the command that runs a type's tasks.
type Exec struct {
	Command     []string // argv, at least one; never given to a shell
	Dir         string   // absolute, also where the file names a relative one
	Env         []string // names of the variables passed on, nothing else is
	User        string   // run as this user; "": as the executor's own
	OutputLimit int      // bytes of result on standard output, 1 to 262,144
}

// HTTP is the request that runs a type's tasks.
type HTTP struct {
	Method       string            // GET, POST, PUT, PATCH or DELETE
	URL          string            // http or https, without user information
	Headers      map[string]string // values by name, at most 50
	HeadersFrom  map[string]string // absolute paths of files with values by name, at most 50
	Deferred     bool              // the outcome may come later, from outside
	Status       map[int]string    // meanings of statuses, 200 to 599, that differ from the usual ones
	AllowPrivate bool              // the address need not be a public one
}

// Sleep lets a type's tasks wait.
type Sleep struct {
	Duration time.Duration // when the args do not say how long; 0: they must
}

// Backoff is the wait between attempts: Initial, then Multiplier times the one
// before, up to Max. Whole milliseconds, 0 <= Initial <= Max <= 24h.
type Backoff struct {
	Initial    time.Duration
	Multiplier int // 1 to 100
	Max        time.Duration
}

// A Template is a chain of tasks that an input is filled into.
type Template struct {
	Name        string
	Description string
	Tasks       []TemplateTask // 1 to 200, in the order in which they run

	input *schema
}

// A TemplateTask is one task of a template. Fields the file leaves out have
// the values of the type.
type TemplateTask struct {
	Name        string // unique in the template
	Type        *Type
	Description string
	Queue       string
	Timeout     time.Duration
	MaxAttempts int
	Immutable   bool // the previous task's result is not handed to the handler

	args argument
}

// A TaskSpec is all a task definition needs besides id and index.
type TaskSpec struct {
	Name              string
	Type              string
	Description       string
	Queue             string
	Args              json.RawMessage // compact JSON, never empty
	Immutable         bool
	OnInterrupt       string
	MaxAttempts       int
	BackoffInitialMS  int64
	BackoffMultiplier int64
	BackoffMaxMS      int64
	TimeoutMS         int64
}

// TypeNames returns the names of all types in byte order.
func (c *Catalog) TypeNames() []string { return slices.Sorted(maps.Keys(c.Types)) }

// TemplateNames returns the names of all templates in byte order.
func (c *Catalog) TemplateNames() []string { return slices.Sorted(maps.Keys(c.Templates)) }

// Type returns the type of that name, and whether there is one.
func (c *Catalog) Type(name string) (*Type, bool) {
	t, ok := c.Types[name]
	return t, ok
}

// Template returns the template of that name, and whether there is one.
func (c *Catalog) Template(name string) (*Template, bool) {
	t, ok := c.Templates[name]
	return t, ok
}

// CheckArgs returns an error that wraps [ErrUnknownType] when there is no such
// type, and a *[ValidationError] whose paths start at the args when they are
// no JSON or do not fit the type's args_schema. Empty args are checked as {}.
func (c *Catalog) CheckArgs(typeName string, args json.RawMessage) error {
	t, ok := c.Types[typeName]
	if !ok {
		return fmt.Errorf("%w %q", ErrUnknownType, typeName)
	}
	return t.args.checkJSON(orElse(args, "{}"))
}

// CheckResult is [Catalog.CheckArgs] for a result and the result_schema. An
// empty result is checked as null.
func (c *Catalog) CheckResult(typeName string, result json.RawMessage) error {
	t, ok := c.Types[typeName]
	if !ok {
		return fmt.Errorf("%w %q", ErrUnknownType, typeName)
	}
	return t.result.checkJSON(orElse(result, "null"))
}

// Spec returns the specification of a task that no template describes: the
// type's defaults with this name and these args. Empty args become {}. The
// errors are those of [Catalog.CheckArgs].
func (c *Catalog) Spec(name, typeName string, args json.RawMessage) (TaskSpec, error) {
	if err := c.CheckArgs(typeName, args); err != nil {
		return TaskSpec{}, err
	}
	t := c.Types[typeName]
	spec := t.spec(name)
	spec.Args = compact(orElse(args, "{}"))
	return spec, nil
}

// HasRunner reports whether the catalog says what runs the type.
func (t *Type) HasRunner() bool { return t.Exec != nil || t.HTTP != nil || t.Sleep != nil }

// ArgsSchemaJSON returns the args_schema as the file gives it, its keys in the
// file's order, or nil when the type has none.
func (t *Type) ArgsSchemaJSON() json.RawMessage { return t.args.json() }

// ResultSchemaJSON is [Type.ArgsSchemaJSON] for the result_schema.
func (t *Type) ResultSchemaJSON() json.RawMessage { return t.result.json() }

// InputSchemaJSON returns the input_schema as the file gives it, its keys in
// the file's order. A template without one takes the empty object only, and
// this is the schema that says so.
func (t *Template) InputSchemaJSON() json.RawMessage { return t.input.json() }

// spec returns what tasks of type t have when nothing else is said, but args.
func (t *Type) spec(name string) TaskSpec {
	return TaskSpec{
		Name:              name,
		Type:              t.Name,
		Description:       t.Description,
		Queue:             t.Queue,
		OnInterrupt:       t.OnInterrupt,
		MaxAttempts:       t.MaxAttempts,
		BackoffInitialMS:  t.Backoff.Initial.Milliseconds(),
		BackoffMultiplier: int64(t.Backoff.Multiplier),
		BackoffMaxMS:      t.Backoff.Max.Milliseconds(),
		TimeoutMS:         t.Timeout.Milliseconds(),
	}
}

func (t *TemplateTask) spec(args json.RawMessage) TaskSpec {
	spec := t.Type.spec(t.Name)
	spec.Description = t.Description
	spec.Queue = t.Queue
	spec.Args = args
	spec.Immutable = t.Immutable
	spec.MaxAttempts = t.MaxAttempts
	spec.TimeoutMS = t.Timeout.Milliseconds()
	return spec
}

func orElse(value json.RawMessage, fallback string) json.RawMessage {
	if len(value) == 0 {
		return json.RawMessage(fallback)
	}
	return value
}
