package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
)

// workerConfig is what an executor process is told.
type workerConfig struct {
	Brokers []string
	Prefix  string
	Journal string // the collector's socket
	Dir     string // of this member, kept over its restarts
	Mark    string // of everything this test starts
	Slots   int
	LeaseMS int64
	GraceMS int64
}

func (c workerConfig) readySocket() string { return filepath.Join(c.Dir, "ready") }
func (c workerConfig) outbox() string      { return filepath.Join(c.Dir, "outbox") }

// runWorker is the life of an executor process; it returns the exit code.
func runWorker(cfg workerConfig) int {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := work(ctx, cfg, logger); err != nil && ctx.Err() == nil {
		logger.Error("worker ends", slog.Any("error", err))
		return 1
	}
	return 0
}

func work(ctx context.Context, cfg workerConfig, logger *slog.Logger) error {
	notes, err := dialJournal(cfg.Journal)
	if err != nil {
		return err
	}
	worker := executor.NewWorkerID()
	readiness := &readiness{}
	if err := readiness.serve(cfg.readySocket()); err != nil {
		return err
	}
	log, err := openPatiently(ctx, eventlog.Config{
		Brokers: cfg.Brokers, Prefix: cfg.Prefix, ClientID: worker, AllowSingleReplica: true, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer log.Close()
	registry, err := newRegistry(notes, cfg, worker)
	if err != nil {
		return err
	}
	x, err := executor.New(executor.Config{
		Log: log, Registry: registry, Worker: worker, Slots: cfg.Slots, Logger: logger,
		Lease: time.Duration(cfg.LeaseMS) * time.Millisecond, ShutdownGrace: time.Duration(cfg.GraceMS) * time.Millisecond,
		OutboxDir: cfg.outbox(),
	})
	if err != nil {
		return err
	}
	readiness.set(x.Ready)
	return x.Run(ctx)
}

// openPatiently waits for brokers that are away, as a server does, and gives up
// at once when the ledger is not what it must be.
func openPatiently(ctx context.Context, cfg eventlog.Config) (*eventlog.Log, error) {
	for {
		log, err := eventlog.Open(ctx, cfg)
		if err == nil || !errors.Is(err, eventlog.ErrUnreachable) {
			return log, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// readiness answers on a socket whether the executor is ready.
type readiness struct{ ready atomic.Pointer[func() error] }

func (r *readiness) set(ready func() error) { r.ready.Store(&ready) }

func (r *readiness) serve(socket string) error {
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			err := errors.New("the ledger is not open yet")
			if ready := r.ready.Load(); ready != nil {
				err = (*ready)()
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}))
	}()
	return nil
}

// taskArgs says what a task of the load does.
type taskArgs struct {
	Step   int   `json:"step"` // index in the chain
	WorkMS int64 `json:"work_ms"`
	// FailFirst attempts fail and may be tried again.
	FailFirst int `json:"fail_first,omitempty"`
	// Refuse fails for good.
	Refuse bool `json:"refuse,omitempty"`
}

// stepResult is what every task of the load returns.
type stepResult struct {
	Index int `json:"index"`
}

// planned is the code of failures that the load asks for.
const planned = "planned"

// newRegistry has the task types of the load: "work" does it in this process,
// "child" in a command, "fork" in a command that leaves somebody behind; and
// those that misbehave.
func newRegistry(notes *notes, cfg workerConfig, worker string) (*executor.Registry, error) {
	r := executor.NewRegistry()
	note := func(h executor.RawHandler) executor.RawHandler { return noted(notes, worker, h) }
	r.HandleRaw("work", note(workHere))
	const child = `input=$(cat); step=$(printf '%s' "$input" | sed -n 's/.*"step":\([0-9]*\).*/\1/p'); sleep 0.1; printf '{"index":%s}' "$step"`
	for name, script := range map[string]string{"child": child, "fork": "sleep 1000 >/dev/null 2>&1 & " + child} {
		h, err := command(cfg, script)
		if err != nil {
			return nil, err
		}
		r.HandleRaw(name, note(h))
	}
	return r, registerBad(r, cfg, note)
}

// noted puts a handler's start and end into the journal. A handler that is
// interrupted by its context has no end there: nobody knows what it did.
func noted(notes *notes, worker string, h executor.RawHandler) executor.RawHandler {
	return func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
		n := note{
			Phase: phaseStart, Collection: t.Collection, Task: t.TaskID, Run: t.Run, Attempt: t.Attempt, Fence: t.Fence,
			PID: os.Getpid(), Worker: worker,
		}
		notes.write(n)
		returned := false
		defer func() {
			if !returned {
				n.Phase, n.Text = phaseFailure, "it did not return"
				notes.write(n)
			}
		}()
		result, err := h(ctx, t)
		returned = true
		n.Phase = phaseSuccess
		if err == nil {
			err = checkPrevious(t)
		}
		if err != nil {
			n.Phase, n.Text = phaseFailure, err.Error()
		}
		if ctx.Err() != nil {
			n.Phase = phaseInterrupted
		}
		notes.write(n)
		return result, err
	}
}

// checkPrevious sees to it that a task got the result of the one before it.
func checkPrevious(t executor.RawTask) error {
	var args taskArgs
	var previous stepResult
	if err := json.Unmarshal(t.Args, &args); err != nil || args.Step == 0 {
		return err
	}
	if err := t.DecodePrevious(&previous); err != nil {
		return err
	}
	if previous.Index != args.Step-1 {
		return executor.Fail("wrong_input", "", fmt.Sprintf("task %d got the result of task %d", args.Step, previous.Index))
	}
	return nil
}

func workHere(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
	var args taskArgs
	if err := json.Unmarshal(t.Args, &args); err != nil {
		return nil, executor.Permanent(err)
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Duration(args.WorkMS) * time.Millisecond):
	}
	switch {
	case args.Refuse:
		return nil, executor.Fail(planned, "", "this task fails for good")
	case t.Attempt <= args.FailFirst:
		return nil, &executor.Error{Code: planned, Message: strings.Repeat("again ", t.Attempt), Retryable: true}
	}
	return json.Marshal(stepResult{Index: args.Step})
}
