package executortest

import (
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// An Attempt is one execution of a task, and what came of it.
type Attempt struct {
	Task   string // its name
	Type   string
	Number int // from 1, counted over all runs; of a finally task in this one
	// Waited is the back-off before it, or how long its predecessor's executor
	// was waited for, which a Kit skips.
	Waited time.Duration
	Status ledger.Status // running, deferred, succeeded, failed, superseded or not started
	Result json.RawMessage
	Error  *ledger.TaskError // nil unless it failed

	id int64

	mu     sync.Mutex // guards what the handler says, from whatever goroutine
	output []executor.OutputEntry
	token  string
}

// Output returns what the handler has said so far by [executor.TaskInfo.Output],
// in order.
func (a *Attempt) Output() []executor.OutputEntry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.output)
}

// Lines returns the log lines of [Attempt.Output].
func (a *Attempt) Lines() []string {
	var lines []string
	for _, e := range a.Output() {
		if e.Kind == executor.OutputLine {
			lines = append(lines, e.Text)
		}
	}
	return lines
}

// output makes [executor.TaskInfo.Output] of an attempt.
func (k *Kit) output(def ledger.Attempt) *executor.Output {
	a := k.find(&def)
	return executor.NewOutput(func(e executor.OutputEntry) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.output = append(a.output, e)
	})
}

// Token returns the token for an outcome from outside that the handler asked for;
// empty when it asked for none.
func (a *Attempt) Token() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.token
}

// token makes [executor.TaskInfo.OutcomeToken] of an attempt.
func (k *Kit) token(def ledger.Attempt) func() (string, error) {
	a := k.find(&def)
	return func() (string, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.token = "outcome-token-of-" + def.Task.ID.String()
		return a.token, nil
	}
}

func (k *Kit) find(def *ledger.Attempt) *Attempt {
	return k.runs[ledger.RunID{Collection: def.Collection, Run: def.Run}].byID[def.ID]
}

// newLogger writes what handlers log to the test's log.
func newLogger(tb TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{tb}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ tb TB }

// Write implements [io.Writer].
func (w testWriter) Write(line []byte) (int, error) {
	if w.tb.Context().Err() == nil { // a test that has ended must not be written to
		w.tb.Logf("%s", line)
	}
	return len(line), nil
}
