package simtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keten-ledger/keten/ledger"
)

// saved is the outcome that the first fold gave a record: every other fold must
// give the same one.
type saved struct {
	verdict     ledger.Verdict
	reason      ledger.Reason
	collections []ledger.CollectionChange
	runs        []ledger.RunChange
	tasks       []ledger.TaskChange
	attempts    []ledger.AttemptChange
	touched     []ledger.RunID
}

func save(o *ledger.Outcome) saved {
	return saved{
		verdict: o.Verdict, reason: o.Reason,
		collections: slices.Clone(o.Collections), runs: slices.Clone(o.Runs),
		tasks: slices.Clone(o.Tasks), attempts: slices.Clone(o.Attempts), touched: slices.Clone(o.Touched),
	}
}

// difference names the first part in which another outcome differs, "" for none.
func (s *saved) difference(o *ledger.Outcome) string {
	switch {
	case s.verdict != o.Verdict || s.reason != o.Reason:
		return fmt.Sprintf("verdict %s(%s) and %s(%s)", s.verdict, s.reason, o.Verdict, o.Reason)
	case !slices.Equal(s.collections, o.Collections):
		return "collections"
	case !slices.EqualFunc(s.runs, o.Runs, sameRun):
		return "runs"
	case !slices.EqualFunc(s.tasks, o.Tasks, sameTask):
		return "tasks"
	case !slices.EqualFunc(s.attempts, o.Attempts, sameAttempt):
		return "attempts"
	case !slices.Equal(s.touched, o.Touched):
		return "touched"
	}
	return ""
}

// empty tells whether nothing changed: what must hold for a refused record.
func (s *saved) empty() bool {
	return len(s.collections)+len(s.runs)+len(s.tasks)+len(s.attempts) == 0
}

func sameRun(a, b ledger.RunChange) bool {
	return a.Collection == b.Collection && a.Run == b.Run && a.Status == b.Status && a.FailedTask == b.FailedTask && sameError(a.Error, b.Error)
}

func sameTask(a, b ledger.TaskChange) bool {
	return a.Collection == b.Collection && a.ID == b.ID && a.TaskKind == b.TaskKind && a.Index == b.Index && a.Run == b.Run &&
		a.Status == b.Status && a.Attempts == b.Attempts && a.AttemptID == b.AttemptID && a.Worker == b.Worker &&
		a.StartedMS == b.StartedMS && a.FinishedMS == b.FinishedMS && a.Message == b.Message &&
		bytes.Equal(a.Result, b.Result) && sameError(a.Error, b.Error)
}

func sameAttempt(a, b ledger.AttemptChange) bool {
	return a.ID == b.ID && a.Collection == b.Collection && a.TaskID == b.TaskID && a.TaskKind == b.TaskKind && a.Run == b.Run &&
		a.Number == b.Number && a.Claim == b.Claim && a.Worker == b.Worker && a.Status == b.Status &&
		a.StartedMS == b.StartedMS && a.FinishedMS == b.FinishedMS && a.Message == b.Message &&
		bytes.Equal(a.Result, b.Result) && sameError(a.Error, b.Error)
}

func sameError(a, b *ledger.TaskError) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func sameJSON(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

// changes tells what an outcome changed, for the trace.
func (s *saved) changes(w *world) string {
	var parts []string
	for _, a := range s.attempts {
		parts = append(parts, fmt.Sprintf("@%d %s", a.ID, a.Status))
	}
	for _, t := range s.tasks {
		parts = append(parts, fmt.Sprintf("%s %s/%d", w.taskName(t.Collection, t.ID), t.Status, t.Attempts))
	}
	for _, r := range s.runs {
		parts = append(parts, fmt.Sprintf("%s run %d %s", w.short(r.Collection), r.Run, r.Status))
	}
	if len(parts) == 0 {
		return ""
	}
	return " => " + strings.Join(parts, ", ")
}
