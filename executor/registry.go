package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// A RawHandler runs one attempt of a task and returns its result as JSON; none
// is recorded as no result. The result must pass [ledger.CheckPayload], else
// the attempt fails with code invalid_result.
type RawHandler func(ctx context.Context, t RawTask) (json.RawMessage, error)

// A Registry holds the handlers of task types. It is safe for concurrent use;
// an [Executor] takes a copy when it is made.
type Registry struct {
	mu         sync.Mutex
	handlers   map[string]registered
	middleware []Middleware
	limits     map[string]int // by task type; none: as many as there are slots
}

// registered is a handler with the middleware of its own, outermost first.
type registered struct {
	handler    RawHandler
	middleware []Middleware
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{handlers: make(map[string]registered), limits: make(map[string]int)}
}

// HandleRaw registers the handler of a task type, with middleware of its own
// inside the registry's, outermost first. A type that is empty or has a handler
// already is a mistake in the program: HandleRaw panics.
func (r *Registry) HandleRaw(taskType string, h RawHandler, middleware ...Middleware) {
	checkMiddleware(middleware)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch _, taken := r.handlers[taskType]; {
	case taskType == "" || h == nil:
		panic("executor: a handler needs a task type and a function")
	case taken:
		panic(fmt.Sprintf("executor: task type %q has two handlers", taskType))
	}
	r.handlers[taskType] = registered{handler: h, middleware: slices.Clone(middleware)}
}

// Use puts middleware around all handlers of the registry, also those that are
// registered later. The first is the outermost; what a further call adds goes
// inside what is there.
func (r *Registry) Use(middleware ...Middleware) {
	checkMiddleware(middleware)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.middleware = append(r.middleware, middleware...)
}

// Limit bounds how many tasks of a type run at a time in one executor, for
// instance because what they call takes no more. Without a limit that is the
// executor's Slots. A limit below 1 is a mistake in the program: Limit panics.
func (r *Registry) Limit(taskType string, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if most < 1 {
		panic(fmt.Sprintf("executor: task type %q has a limit of %d", taskType, most))
	}
	r.limits[taskType] = most
}

// Types returns the registered task types in order.
func (r *Registry) Types() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.handlers))
}

// copyHandlers returns the handlers as they are now, each in its middleware, and
// the limits, by task type.
func (r *Registry) copyHandlers() (map[string]RawHandler, map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	handlers := make(map[string]RawHandler, len(r.handlers))
	for taskType, reg := range r.handlers {
		handlers[taskType] = wrap(reg.handler, slices.Concat(r.middleware, reg.middleware))
	}
	return handlers, maps.Clone(r.limits)
}

// Handle registers a Go function as the handler of a task type. Args are decoded
// from and the result is encoded to JSON with encoding/json. Args that do not
// fit A fail the task with code invalid_args, for good. Like
// [Registry.HandleRaw] it panics when the type has a handler already, and takes
// middleware for this handler alone.
func Handle[A, R any](r *Registry, taskType string, fn func(ctx context.Context, t Task[A]) (R, error), middleware ...Middleware) {
	r.HandleRaw(taskType, func(ctx context.Context, raw RawTask) (json.RawMessage, error) {
		t := Task[A]{TaskInfo: raw.TaskInfo}
		if len(raw.Args) > 0 {
			if err := json.Unmarshal(raw.Args, &t.Args); err != nil {
				return nil, &Error{Code: CodeInvalidArgs, Message: "the task's args do not fit its type: " + err.Error(), Err: err}
			}
		}
		result, err := fn(ctx, t)
		if err != nil {
			return nil, err
		}
		return encodeResult(result)
	}, middleware...)
}
