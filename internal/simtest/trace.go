package simtest

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// trace is what happened in a run: always as a hash, as text only when somebody
// reads it. A run that failed is simply run again, aloud.
type trace struct {
	hash  uint64
	loud  bool
	lines []string
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func (t *trace) mix(s string, n int64) {
	h := t.hash
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	for i := range 8 {
		h = (h ^ uint64(n>>(8*i)&0xff)) * fnvPrime
	}
	t.hash = h
}

// note tells one thing that somebody did.
func (w *world) note(who, what string, n int64) {
	w.trace.mix(who, n)
	w.trace.mix(what, w.nowMS)
	if w.trace.loud {
		w.say("%s %s %d", who, what, n)
	}
}

// say adds a line that the hash doesn't need; callers ask loud first.
func (w *world) say(format string, args ...any) {
	w.trace.lines = append(w.trace.lines,
		fmt.Sprintf("%4d %9.3fs  ", w.tick, float64(w.nowMS-startMS)/1000)+fmt.Sprintf(format, args...))
}

// noteRecord tells of a record that landed, with its verdict.
func (w *world) noteRecord(e *entry) {
	w.trace.mix(string(e.saved.verdict), e.record.Offset)
	w.trace.mix(string(e.saved.reason), int64(len(e.record.Value)))
	if !w.trace.loud {
		return
	}
	reason := ""
	if e.saved.reason != "" {
		reason = "(" + string(e.saved.reason) + ")"
	}
	w.say("  @%d %s%s %s%s", e.record.Offset, e.saved.verdict, reason, w.describe(e.parsed.Event), e.saved.changes(w))
}

// describe tells an event in one line.
func (w *world) describe(e ledger.Event) string {
	switch e := e.(type) {
	case nil:
		return "a record without event"
	case ledger.CollectionCreated:
		return fmt.Sprintf("CollectionCreated %s as_of=%d lane=%q key=%q %s finally%s", w.short(e.CollectionID), e.AsOf,
			e.OrderingKey, e.IdempotencyKey, tasksText(e.Tasks), tasksText(e.Finally))
	case ledger.RetryRequested:
		return fmt.Sprintf("RetryRequested %s run=%d as_of=%d %s finally%s input=%s", w.short(e.CollectionID), e.Run, e.AsOf,
			tasksText(e.Tasks), tasksText(e.Finally), e.Input)
	case ledger.CancelRequested:
		return fmt.Sprintf("CancelRequested %s run=%d", w.short(e.CollectionID), e.Run)
	case ledger.PartitionClaimed:
		return fmt.Sprintf("PartitionClaimed %s prev=%d %s", e.Queue, e.Prev, e.Worker)
	case ledger.PartitionReleased:
		return fmt.Sprintf("PartitionReleased %s claim=%d %s running=%v grace=%d", e.Queue, e.Claim, e.Worker, e.Running, e.GraceMS)
	case ledger.TaskStarted:
		return fmt.Sprintf("TaskStarted %s run=%d attempt=%d claim=%d %s", w.taskName(e.CollectionID, e.TaskID), e.Run, e.Attempt, e.Claim, e.Worker)
	case ledger.TaskSucceeded:
		return fmt.Sprintf("TaskSucceeded %s run=%d attempt=@%d %s %s", w.taskName(e.CollectionID, e.TaskID), e.Run, e.AttemptID, e.Worker, e.Result)
	case ledger.TaskFailed:
		by := ""
		if e.ByClaim != nil {
			by = fmt.Sprintf(" by_claim=%d", *e.ByClaim)
		}
		return fmt.Sprintf("TaskFailed %s run=%d attempt=@%d %s%s %s retryable=%t", w.taskName(e.CollectionID, e.TaskID), e.Run,
			e.AttemptID, e.Worker, by, e.Error.Code, e.Error.Retryable)
	case ledger.TaskDeferred:
		return fmt.Sprintf("TaskDeferred %s run=%d attempt=@%d %s", w.taskName(e.CollectionID, e.TaskID), e.Run, e.AttemptID, e.Worker)
	case ledger.LedgerOpened:
		return fmt.Sprintf("LedgerOpened window=%d", e.Window)
	case ledger.RulesActivated:
		return fmt.Sprintf("RulesActivated %d", e.Rules)
	}
	return e.EventName()
}

func tasksText(list []ledger.Task) string {
	parts := make([]string, 0, len(list))
	for i := range list {
		t := &list[i]
		text := fmt.Sprintf("%d:%s/%d", t.Index, t.Queue, t.MaxAttempts)
		if t.OnInterrupt == ledger.OnInterruptFail {
			text += "/fail"
		}
		parts = append(parts, text)
	}
	return "[" + strings.Join(parts, " ") + "]"
}

// short is a name for a collection: c and the order in which it was met.
func (w *world) short(id uuid.UUID) string {
	if n, ok := w.names[id]; ok {
		return n
	}
	n := "c" + itoa(len(w.names))
	w.names[id] = n
	return n
}

func (w *world) taskName(collection, task uuid.UUID) string {
	name := w.short(collection)
	for i := range maxTasks {
		switch task {
		case ledger.TaskID(collection, ledger.KindTask, i):
			return name + ".t" + itoa(i)
		case ledger.TaskID(collection, ledger.KindFinally, i):
			return name + ".f" + itoa(i)
		}
	}
	return name + ".?"
}
