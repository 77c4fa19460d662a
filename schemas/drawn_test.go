package schemas_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

const (
	partition = 8
	maxOffset = 1<<63 - 1
)

func encode(t require.TestingT, e ledger.Event) ledger.Message {
	meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: ledger.Source(uuid.Nil, "test"), Time: time.UnixMilli(0)}
	msg, err := ledger.Encode(partition, meta, e)
	require.NoError(t, err, "%+v", e)
	return msg
}

// drawEvent draws an event of a type within every limit, often at one.
func drawEvent(t *rapid.T, event string) ledger.Event {
	switch event {
	case "LedgerOpened":
		return ledger.LedgerOpened{
			LedgerID: drawUUID(t, 4), Partitions: int32(drawInt(t, "partitions", 1, ledger.MaxPartitions)),
			Rules: int(drawInt(t, "rules", 0, maxOffset)), Window: drawInt(t, "window", 1, 1<<40),
		}
	case "RulesActivated":
		return ledger.RulesActivated{Rules: int(drawInt(t, "rules", 0, maxOffset))}
	case "CollectionCreated":
		return drawCreated(t)
	case "RetryRequested":
		return drawRetry(t)
	case "CancelRequested":
		return ledger.CancelRequested{
			CollectionID: drawCollection(t), Tenant: drawName(t, "tenant", ledger.MaxKeyBytes), Run: drawCount(t, "run", 1),
			IdempotencyKey: drawText(t, "idempotency_key", ledger.MaxKeyBytes), RequestHash: drawHash(t),
			Reason: drawText(t, "reason", ledger.MaxMessageBytes), Actor: drawActor(t),
		}
	case "PartitionClaimed":
		return ledger.PartitionClaimed{
			Queue: drawName(t, "queue", ledger.MaxKeyBytes), Prev: drawInt(t, "prev", -1, maxOffset), Worker: drawName(t, "worker", ledger.MaxKeyBytes),
		}
	case "PartitionReleased":
		return ledger.PartitionReleased{
			Queue: drawName(t, "queue", ledger.MaxKeyBytes), Claim: drawOffset(t, "claim"), Worker: drawName(t, "worker", ledger.MaxKeyBytes),
			Running: rapid.SliceOfN(rapid.Int64Range(0, maxOffset), 0, 3).Draw(t, "running"), GraceMS: drawInt(t, "grace_ms", 0, ledger.MaxTimeoutMS),
		}
	}
	return drawTaskEvent(t, event)
}

// drawTaskEvent draws an event about an attempt.
func drawTaskEvent(t *rapid.T, event string) ledger.Event {
	c, run := drawCollection(t), drawCount(t, "run", 1)
	tenant, worker := drawName(t, "tenant", ledger.MaxKeyBytes), drawName(t, "worker", ledger.MaxKeyBytes)
	kind := rapid.SampledFrom([]ledger.Kind{ledger.KindTask, ledger.KindFinally}).Draw(t, "kind")
	task := ledger.TaskID(c, kind, rapid.IntRange(0, ledger.MaxTasks-1).Draw(t, "index"))
	switch event {
	case "TaskStarted":
		return ledger.TaskStarted{CollectionID: c, Tenant: tenant, Run: run, TaskID: task, Attempt: drawCount(t, "attempt", 1), Claim: drawOffset(t, "claim"), Worker: worker}
	case "TaskSucceeded":
		return ledger.TaskSucceeded{
			CollectionID: c, Tenant: tenant, Run: run, TaskID: task, AttemptID: drawOffset(t, "attempt_id"), Worker: worker,
			Result: drawOptional(t, "result"), Message: drawText(t, "message", ledger.MaxMessageBytes),
		}
	case "TaskFailed":
		e := ledger.TaskFailed{
			CollectionID: c, Tenant: tenant, Run: run, TaskID: task, AttemptID: drawOffset(t, "attempt_id"), Worker: worker,
			Error: ledger.TaskError{
				Code: drawName(t, "code", ledger.MaxNameBytes), Message: drawText(t, "message", ledger.MaxMessageBytes),
				Detail:    drawText(t, "detail", ledger.MaxDetailBytes),
				Audience:  rapid.SampledFrom([]ledger.Audience{ledger.AudienceUser, ledger.AudienceOperator}).Draw(t, "audience"),
				Retryable: rapid.Bool().Draw(t, "retryable"),
			},
			RetryAfterMS: drawInt(t, "retry_after_ms", 0, ledger.MaxBackoffMS),
		}
		if rapid.Bool().Draw(t, "by another") {
			e.ByClaim = new(drawOffset(t, "by_claim"))
		}
		return e
	case "TaskDeferred":
		return ledger.TaskDeferred{CollectionID: c, Tenant: tenant, Run: run, TaskID: task, AttemptID: drawOffset(t, "attempt_id"), Worker: worker}
	}
	t.Fatalf("no event %q can be drawn", event)
	return nil
}

func drawCreated(t *rapid.T) ledger.CollectionCreated {
	e := ledger.CollectionCreated{
		CollectionID: drawCollection(t), Tenant: drawName(t, "tenant", ledger.MaxKeyBytes), Name: drawName(t, "name", ledger.MaxNameBytes),
		Template: drawText(t, "template", ledger.MaxNameBytes), Description: drawText(t, "description", ledger.MaxMessageBytes),
		Labels: drawLabels(t), OrderingKey: drawText(t, "ordering_key", ledger.MaxKeyBytes),
		IdempotencyKey: drawText(t, "idempotency_key", ledger.MaxKeyBytes),
		RequestHash:    drawHash(t), AsOf: drawOffset(t, "as_of"), Actor: drawActor(t),
	}
	if e.IdempotencyKey != "" {
		e.CollectionID = ledger.KeyedCollectionID(e.Tenant, e.OrderingKey, e.IdempotencyKey, partition)
	} else if e.CollectionID.Version() == 8 {
		e.CollectionID = ledger.NewCollectionID(partition, time.UnixMilli(1), [8]byte{1})
	}
	e.Tasks = drawTasks(t, e.CollectionID, ledger.KindTask, 0, drawSize(t, "tasks", 1))
	e.Finally = drawTasks(t, e.CollectionID, ledger.KindFinally, 0, drawSize(t, "finally", 0))
	return e
}

func drawRetry(t *rapid.T) ledger.RetryRequested {
	count := drawSize(t, "task_count", 1)
	e := ledger.RetryRequested{
		CollectionID: drawCollection(t), Tenant: drawName(t, "tenant", ledger.MaxKeyBytes), Run: drawCount(t, "run", 2), AsOf: drawOffset(t, "as_of"),
		Name: drawName(t, "name", ledger.MaxNameBytes), Template: drawText(t, "template", ledger.MaxNameBytes), Labels: drawLabels(t),
		OrderingKey: drawText(t, "ordering_key", ledger.MaxKeyBytes), IdempotencyKey: drawText(t, "idempotency_key", ledger.MaxKeyBytes),
		RequestHash: drawHash(t), Reason: drawText(t, "reason", ledger.MaxMessageBytes), Actor: drawActor(t),
		Input: drawOptional(t, "input"), TaskCount: count,
	}
	e.Tasks = drawTasks(t, e.CollectionID, ledger.KindTask, rapid.IntRange(0, count-1).Draw(t, "first"), count)
	e.Finally = drawTasks(t, e.CollectionID, ledger.KindFinally, 0, drawSize(t, "finally", 0))
	for i := range e.Tasks {
		e.Tasks[i].Attempts = int(drawInt(t, "attempts", 0, ledger.MaxEarlierAttempts))
		if rapid.Bool().Draw(t, "amended") {
			e.Amended = append(e.Amended, e.Tasks[i].ID)
		}
	}
	return e
}

// drawSize draws how many tasks there are: few, or as many as there may be.
func drawSize(t *rapid.T, what string, least int) int {
	if rapid.IntRange(0, 19).Draw(t, what+" are many") == 0 {
		return ledger.MaxTasks
	}
	return rapid.IntRange(least, 3).Draw(t, what)
}

// drawTasks draws definitions with the indexes [from, to). The texts of many are
// short, since they must fit into an event.
func drawTasks(t *rapid.T, c uuid.UUID, kind ledger.Kind, from, to int) []ledger.Task {
	var list []ledger.Task
	for i := from; i < to; i++ {
		d := ledger.Task{
			ID: ledger.TaskID(c, kind, i), Index: i, Name: "t" + strconv.Itoa(i), Type: "noop", Queue: ledger.DefaultQueue,
			Args: json.RawMessage(`{}`), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts,
			Backoff: ledger.Backoff{Multiplier: 1}, TimeoutMS: ledger.DefaultTimeoutMS,
		}
		if to-from < 5 {
			drawDefinition(t, &d)
		}
		list = append(list, d)
	}
	return list
}

func drawDefinition(t *rapid.T, d *ledger.Task) {
	d.Type, d.Queue = drawName(t, "type", ledger.MaxNameBytes), drawName(t, "queue", ledger.MaxKeyBytes)
	d.Description, d.Args = drawText(t, "description", ledger.MaxMessageBytes), drawJSON(t, "args")
	d.Immutable, d.TimeoutMS = rapid.Bool().Draw(t, "immutable"), drawInt(t, "timeout_ms", 1, ledger.MaxTimeoutMS)
	if rapid.Bool().Draw(t, "fail") {
		d.OnInterrupt = ledger.OnInterruptFail
	} else {
		d.MaxAttempts = int(drawInt(t, "max_attempts", 1, ledger.MaxAttempts))
	}
	d.Backoff.InitialMS = drawInt(t, "initial_ms", 0, ledger.MaxBackoffMS)
	d.Backoff.Multiplier = drawInt(t, "multiplier", 1, ledger.MaxMultiplier)
	d.Backoff.MaxMS = drawInt(t, "max_ms", d.Backoff.InitialMS, ledger.MaxBackoffMS)
}

func drawInt(t *rapid.T, what string, least, most int64) int64 {
	edge := rapid.SampledFrom([]int64{least, most})
	return rapid.OneOf(rapid.Int64Range(least, most), edge).Draw(t, what)
}

func drawCount(t *rapid.T, what string, least int64) int {
	return int(drawInt(t, what, least, ledger.MaxCount))
}

func drawOffset(t *rapid.T, what string) int64 { return drawInt(t, what, 0, maxOffset) }

// drawText draws a text of at most so many bytes, often of exactly as many and
// with whatever is not U+0000. Long ones are drawn by number, so that a failure
// does not print them.
func drawText(t *rapid.T, what string, most int) string {
	special := []string{
		"", "x", "\n", "a\nb\n", "<&>\u2028\"\\\x01\x7f", "\ufffd", "😀", "\U0010ffff", strings.Repeat("x", most), strings.Repeat("é", most/2),
	}
	if n := rapid.IntRange(0, 2*len(special)-1).Draw(t, what); n < len(special) {
		return special[n]
	}
	return strings.ReplaceAll(rapid.StringN(0, 12, most).Draw(t, what), "\x00", "0")
}

func drawName(t *rapid.T, what string, most int) string {
	if s := drawText(t, what, most); s != "" {
		return s
	}
	return "n"
}

func drawHash(t *rapid.T) string { return rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "request_hash") }

func drawLabels(t *rapid.T) map[string]string {
	labels := map[string]string{}
	for i := range rapid.SampledFrom([]int{0, 1, 2, ledger.MaxLabels}).Draw(t, "labels") {
		labels[strconv.Itoa(i)+drawText(t, "label", ledger.MaxLabelKeyBytes-2)] = drawText(t, "value", ledger.MaxLabelValueBytes)
	}
	return labels
}

func drawActor(t *rapid.T) ledger.Actor {
	return ledger.Actor{
		Kind: drawText(t, "kind", ledger.MaxKeyBytes), ID: drawText(t, "id", ledger.MaxKeyBytes), Name: drawText(t, "actor", ledger.MaxKeyBytes),
		Address: drawText(t, "address", ledger.MaxKeyBytes), RequestID: drawText(t, "request_id", ledger.MaxKeyBytes),
	}
}

func drawJSON(t *rapid.T, what string) json.RawMessage {
	all := []string{
		`null`, `{}`, `[]`, `""`, `0`, `-0.0`, `false`, `1e300`, `{"a":[1,"ü",null,{"b":1.50}]}`, `"<&>\u2028\u001f"`,
		nested(ledger.MaxPayloadDepth), strings.Repeat("9", ledger.MaxNumberBytes), encoded(strings.Repeat("x", 20_000)),
	}
	return json.RawMessage(all[rapid.IntRange(0, len(all)-1).Draw(t, what)])
}

func drawOptional(t *rapid.T, what string) json.RawMessage {
	if rapid.Bool().Draw(t, "no "+what) {
		return nil
	}
	return drawJSON(t, what)
}

func drawCollection(t *rapid.T) uuid.UUID {
	if rapid.Bool().Draw(t, "keyed") {
		return ledger.KeyedCollectionID("t", "", "k", partition)
	}
	ms, random := rapid.Int64Range(0, 1<<48-1).Draw(t, "created at"), drawUUID(t, 4)
	return ledger.NewCollectionID(partition, time.UnixMilli(ms), [8]byte(random[:8]))
}

func drawUUID(t *rapid.T, version byte) uuid.UUID {
	id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
	id[6] = version<<4 | id[6]&0x0f
	return id
}
