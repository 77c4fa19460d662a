package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/keten-ledger/keten/ledger"
)

// RunnerConfig says what a [Runner] runs attempts with.
type RunnerConfig struct {
	// Registry holds the handlers and their middleware. What is registered later
	// is not seen. Required.
	Registry *Registry
	// Worker is who reports the outcomes. Required.
	Worker string
	// Source is the ce_source of the records, from [ledger.Source]. Required.
	Source string
	// Logger is what handlers log to. Required.
	Logger *slog.Logger
	// Output makes what the handler of an attempt shows progress and lines by. It
	// is closed when the handler has returned. Nil: handlers get a nil Output.
	Output func(ledger.Attempt) *Output
	// OutcomeToken makes [TaskInfo.OutcomeToken] of an attempt. Nil: handlers get
	// none.
	OutcomeToken func(ledger.Attempt) func() (string, error)
}

// A Runner runs single attempts in the way an [Executor] does, for whoever reads
// and appends records by other means: package executortest does so in memory.
// It is safe for concurrent use.
type Runner struct {
	runner

	handlers map[string]RawHandler
}

// NewRunner returns a runner. The error names a missing field.
func NewRunner(cfg RunnerConfig) (*Runner, error) {
	if cfg.Registry == nil || cfg.Worker == "" || cfg.Source == "" || cfg.Logger == nil {
		return nil, errors.New("make runner: registry, worker, source and logger are required")
	}
	handlers, _ := cfg.Registry.copyHandlers() // how many run at a time is the caller's to bound
	return &Runner{
		runner: runner{
			worker: cfg.Worker, source: cfg.Source, logger: cfg.Logger, output: cfg.Output, token: cfg.OutcomeToken,
		},
		handlers: handlers,
	}, nil
}

// Run runs the handler of an attempt in the calling goroutine and hands the
// record to append to done, exactly once, also when the handler panics or ends
// its goroutine. ok is false when there is nothing to append: the handler was
// interrupted by a shutdown and leaves its attempt to the next owner. ctx is what
// the handler gets, with the task's timeout as its deadline; [context.Cause]
// decides between [ErrCanceled], [ErrTakenOver] and [ErrShutdown]. A type without
// a handler fails the attempt with code config. An outcome that cannot be
// encoded is a mistake of this package: Run panics.
func (r *Runner) Run(ctx context.Context, a ledger.Attempt, done func(msg ledger.Message, ok bool)) {
	h := r.handlers[a.Task.Type]
	if h == nil {
		h = missingHandler
	}
	r.run(ctx, h, a, func(rep report) {
		if rep.broken != nil {
			panic(fmt.Sprintf("executor: encode the outcome of attempt %d: %v", a.ID, rep.broken))
		}
		done(rep.msg, !rep.abandoned)
	})
}
