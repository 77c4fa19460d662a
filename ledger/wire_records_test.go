package ledger_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// wirePartition is where all records of the files are, as if in a ledger of 12
// partitions.
const wirePartition = 8

func wireCollection() uuid.UUID {
	return ledger.NewCollectionID(wirePartition, time.UnixMilli(1_790_000_000_000), [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
}

func wireLedger() uuid.UUID { return uuid.MustParse("6b1f3c52-9e0d-4d4a-8a6e-0f3d2c7b9a41") }

func wireTask(id uuid.UUID, kind ledger.Kind, index int) ledger.Task {
	return ledger.Task{
		ID: ledger.TaskID(id, kind, index), Index: index, Name: "t" + strconv.Itoa(index), Type: "noop",
		Queue: ledger.DefaultQueue, Args: json.RawMessage(`{}`), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts,
		Backoff:   ledger.Backoff{InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS},
		TimeoutMS: ledger.DefaultTimeoutMS,
	}
}

func wireFullTask(id uuid.UUID, kind ledger.Kind, index int) ledger.Task {
	t := wireTask(id, kind, index)
	t.Description, t.Immutable, t.OnInterrupt = "does nothing", true, ledger.OnInterruptFail
	t.Args = json.RawMessage(`{"b":[1,"ü",null,{"n":1.50e300}],"a":"<&>"}`)
	return t
}

// wireTriedTask has been started in earlier runs.
func wireTriedTask(id uuid.UUID, index int) ledger.Task {
	t := wireFullTask(id, ledger.KindTask, index)
	t.Attempts = 3
	return t
}

// wireEvents are the events of the files: with as little and with as much as
// they can carry, and some whose texts are as long as they may be.
func wireEvents() map[string]ledger.Event {
	all := map[string]ledger.Event{}
	add := func(variant string, e ledger.Event) { all["keten.v1."+e.EventName()+"."+variant] = e }
	for _, e := range wireLeast() {
		add("least", e)
	}
	for _, e := range wireMost() {
		add("most", e)
	}
	for _, e := range wireLongest() {
		add("longest", e)
	}
	succeeded := ledger.TaskSucceeded{CollectionID: wireCollection(), Tenant: "t", Run: 1, TaskID: ledger.TaskID(wireCollection(), ledger.KindTask, 1), Worker: "w"}
	succeeded.Result = json.RawMessage(`null`)
	add("null", succeeded)
	return all
}

func wireLeast() []ledger.Event {
	id, hash := wireCollection(), strings.Repeat("0a", 32)
	task := ledger.TaskID(id, ledger.KindTask, 1)
	return []ledger.Event{
		ledger.LedgerOpened{LedgerID: wireLedger(), Partitions: 1, Window: 1},
		ledger.RulesActivated{},
		ledger.CollectionCreated{CollectionID: id, Tenant: "t", Name: "n", RequestHash: hash, Tasks: []ledger.Task{wireTask(id, ledger.KindTask, 0)}},
		ledger.RetryRequested{
			CollectionID: id, Tenant: "t", Run: 2, Name: "n", RequestHash: hash, TaskCount: 1, Tasks: []ledger.Task{wireTask(id, ledger.KindTask, 0)},
		},
		ledger.CancelRequested{CollectionID: id, Tenant: "t", Run: 1, RequestHash: hash},
		ledger.PartitionClaimed{Queue: "q", Prev: -1, Worker: "w"},
		ledger.PartitionReleased{Queue: "q", Worker: "w", Running: []int64{}},
		ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Attempt: 1, Worker: "w"},
		ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w"},
		ledger.TaskFailed{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w", Error: ledger.TaskError{Code: "c", Audience: ledger.AudienceUser}},
		ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w"},
	}
}

func wireMost() []ledger.Event {
	id, keyed := wireCollection(), ledger.KeyedCollectionID("default", "order", "key", wirePartition)
	hash, task := strings.Repeat("0a", 32), ledger.TaskID(id, ledger.KindTask, 1)
	labels := map[string]string{"team": "web", "empty": ""}
	actor := ledger.Actor{Kind: "api_key", ID: "k1", Name: "ci", Address: "192.0.2.1", RequestID: "r1"}
	return []ledger.Event{
		ledger.LedgerOpened{LedgerID: uuid.MustParse("ffffffff-ffff-ffff-ffff-ffffffffffff"), Partitions: ledger.MaxPartitions, Rules: 1, Window: 1 << 40},
		ledger.RulesActivated{Rules: 1<<63 - 1},
		ledger.CollectionCreated{
			CollectionID: keyed, Tenant: "default", Name: "näme", Template: "template", Description: "\"d\"\n<\u2028>\\\u007f", Labels: labels,
			OrderingKey: "order", IdempotencyKey: "key", RequestHash: hash, AsOf: 1<<63 - 1, Actor: actor,
			Tasks:   []ledger.Task{wireTask(keyed, ledger.KindTask, 0), wireFullTask(keyed, ledger.KindTask, 1)},
			Finally: []ledger.Task{wireFullTask(keyed, ledger.KindFinally, 0)},
		},
		ledger.RetryRequested{
			CollectionID: id, Tenant: "t", Run: 3, AsOf: 4, Name: "n", Template: "template", Labels: labels, OrderingKey: "o",
			IdempotencyKey: "key", RequestHash: hash, Reason: "cause removed", Actor: actor, Input: json.RawMessage(`[1]`),
			TaskCount: 2, Tasks: []ledger.Task{wireTriedTask(id, 1)}, Amended: []uuid.UUID{task},
			Finally: []ledger.Task{wireFullTask(id, ledger.KindFinally, 0)},
		},
		ledger.CancelRequested{CollectionID: id, Tenant: "t", Run: ledger.MaxCount, IdempotencyKey: "k", RequestHash: hash, Reason: "no longer needed", Actor: actor},
		ledger.PartitionClaimed{Queue: "gpu", Prev: 12, Worker: "default-1"},
		ledger.PartitionReleased{Queue: "gpu", Claim: 12, Worker: "w", Running: []int64{3, 1<<63 - 1}, GraceMS: 30_000},
		ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 2, TaskID: task, Attempt: ledger.MaxCount, Claim: 1<<63 - 1, Worker: "w"},
		ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 8, Worker: "w", Result: json.RawMessage(`"x"`), Message: "done"},
		ledger.TaskFailed{
			CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 8, Worker: "w", ByClaim: new(int64(7)),
			Error:        ledger.TaskError{Code: ledger.CodeLost, Message: "m", Detail: "d", Audience: ledger.AudienceOperator, Retryable: true},
			RetryAfterMS: 5,
		},
		ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 2, TaskID: ledger.TaskID(id, ledger.KindFinally, 0), AttemptID: 6, Worker: "w"},
	}
}

// wireLongest are events at the limits in bytes.
func wireLongest() []ledger.Event {
	x := func(n int) string { return strings.Repeat("x", n) }
	tenant, order, key := x(ledger.MaxKeyBytes), strings.Repeat("o", ledger.MaxKeyBytes), strings.Repeat("k", ledger.MaxKeyBytes)
	id := ledger.KeyedCollectionID(tenant, order, key, wirePartition)
	first, second := wireTask(id, ledger.KindTask, 0), wireTask(id, ledger.KindTask, 1)
	first.Name, first.Type, first.Queue, first.Description = x(ledger.MaxNameBytes), x(ledger.MaxNameBytes), x(ledger.MaxKeyBytes), x(ledger.MaxMessageBytes)
	first.Args = json.RawMessage(`{"d":` + strings.Repeat("[", ledger.MaxPayloadDepth-1) + strings.Repeat("]", ledger.MaxPayloadDepth-1) + `,"n":[` + strings.Repeat("9", ledger.MaxNumberBytes) + `,1e300,1e-300,1E+0300]}`)
	first.MaxAttempts, first.TimeoutMS = ledger.MaxAttempts, ledger.MaxTimeoutMS
	first.Backoff = ledger.Backoff{InitialMS: ledger.MaxBackoffMS, Multiplier: ledger.MaxMultiplier, MaxMS: ledger.MaxBackoffMS}
	second.Args = json.RawMessage(`"` + x(ledger.MaxPayloadBytes-2) + `"`)
	labels := map[string]string{strings.Repeat("l", ledger.MaxLabelKeyBytes): x(ledger.MaxLabelValueBytes)}
	for i := range ledger.MaxLabels - 1 {
		labels["l"+strconv.Itoa(i)] = ""
	}
	plain := wireCollection()
	task := ledger.TaskID(plain, ledger.KindTask, ledger.MaxTasks-1)
	return []ledger.Event{
		ledger.CollectionCreated{
			CollectionID: id, Tenant: tenant, Name: strings.Repeat("é", ledger.MaxNameBytes/2), Template: x(ledger.MaxNameBytes), Description: x(ledger.MaxMessageBytes),
			Labels: labels, OrderingKey: order, IdempotencyKey: key, RequestHash: strings.Repeat("f", 64), Tasks: []ledger.Task{first, second},
			Actor: ledger.Actor{Kind: tenant, ID: tenant, Name: tenant, Address: tenant, RequestID: tenant},
		},
		ledger.TaskSucceeded{
			CollectionID: plain, Tenant: tenant, Run: 1, TaskID: task, AttemptID: 8, Worker: tenant,
			Result: json.RawMessage(`"` + x(ledger.MaxPayloadBytes-2) + `"`), Message: x(ledger.MaxMessageBytes),
		},
		ledger.TaskFailed{
			CollectionID: plain, Tenant: tenant, Run: 1, TaskID: task, AttemptID: 8, Worker: tenant,
			Error:        ledger.TaskError{Code: x(ledger.MaxNameBytes), Message: x(ledger.MaxMessageBytes), Detail: x(ledger.MaxDetailBytes), Audience: ledger.AudienceUser},
			RetryAfterMS: ledger.MaxBackoffMS,
		},
	}
}

// otherNotations are values that we would write in another way, by file.
func otherNotations() map[string]string {
	c := wireCollection()
	other := fmt.Sprintf(`{ "worker" : "\u0077", "claim":0,
 "attempt": 1, "task_id":%q,"run":1,"tenant":"t"	,"\u0063ollection_id":%q } `, ledger.TaskID(c, ledger.KindTask, 1), c)
	return map[string]string{"keten.v1.TaskStarted.other": other}
}

func wireRecord(t *testing.T, e ledger.Event) ledger.Record {
	t.Helper()
	m := ledger.Meta{
		EventID: uuid.MustParse("01a0c450-6c01-7000-8000-000000000001"), Time: time.UnixMilli(1_790_000_000_001),
		Source: ledger.Source(wireLedger(), "api"),
	}
	if _, ok := e.(ledger.CollectionCreated); ok {
		m.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	}
	msg, err := ledger.Encode(wirePartition, m, e)
	require.NoError(t, err)
	return ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value, Headers: msg.Headers}
}
