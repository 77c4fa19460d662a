package schemas_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/schemas"
)

const partition = 5

// An example is one event twice: with as little and with as much as it can
// carry.
type example struct{ least, most ledger.Event }

func actor() ledger.Actor {
	return ledger.Actor{Kind: "api_key", ID: "k1", Name: "ci", Address: "192.0.2.1", RequestID: "r1"}
}

func collectionID() uuid.UUID {
	return ledger.NewCollectionID(partition, time.UnixMilli(1_700_000_000_000), [8]byte{1, 2, 3})
}

func task(id uuid.UUID, kind ledger.Kind, index int) ledger.Task {
	return ledger.Task{
		ID: ledger.TaskID(id, kind, index), Index: index, Name: "t" + string(rune('a'+index)), Type: "noop",
		Queue: ledger.DefaultQueue, Args: json.RawMessage(`{}`), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 1,
		Backoff:   ledger.Backoff{InitialMS: 1_000, Multiplier: 2, MaxMS: 300_000},
		TimeoutMS: ledger.DefaultTimeoutMS,
	}
}

func fullTask(id uuid.UUID, kind ledger.Kind, index int) ledger.Task {
	t := task(id, kind, index)
	t.Description, t.Immutable, t.OnInterrupt, t.Attempts = "does nothing", true, ledger.OnInterruptFail, 3
	t.Args = json.RawMessage(`{"a": [1, "ü", null, {"b": 1e300}]}`)
	return t
}

func examples() map[string]example {
	id := collectionID()
	keyed := ledger.KeyedCollectionID("default", "order", "key", partition)
	hash, claim := strings.Repeat("0a", 32), int64(7)
	taskID := ledger.TaskID(id, ledger.KindTask, 1)
	labels := map[string]string{"team": "web", "empty": ""}
	return map[string]example{
		"LedgerOpened": {
			ledger.LedgerOpened{LedgerID: uuid.Must(uuid.NewRandom()), Partitions: 1, Window: 1},
			ledger.LedgerOpened{LedgerID: uuid.Must(uuid.NewRandom()), Partitions: 4096, Rules: ledger.Rules, Window: ledger.DefaultWindow},
		},
		"RulesActivated": {ledger.RulesActivated{}, ledger.RulesActivated{Rules: 2}},
		"CollectionCreated": {
			ledger.CollectionCreated{CollectionID: id, Tenant: "t", Name: "n", RequestHash: hash, Tasks: []ledger.Task{task(id, ledger.KindTask, 0)}},
			ledger.CollectionCreated{
				CollectionID: keyed, Tenant: "default", Name: "name", Template: "template", Description: "d", Labels: labels,
				OrderingKey: "order", IdempotencyKey: "key", RequestHash: hash, AsOf: 9, Actor: actor(),
				Tasks:   []ledger.Task{task(keyed, ledger.KindTask, 0), fullTask(keyed, ledger.KindTask, 1)},
				Finally: []ledger.Task{fullTask(keyed, ledger.KindFinally, 0)},
			},
		},
		"RetryRequested": {
			ledger.RetryRequested{
				CollectionID: id, Tenant: "t", Run: 2, Name: "n", RequestHash: hash, TaskCount: 1,
				Tasks: []ledger.Task{task(id, ledger.KindTask, 0)},
			},
			ledger.RetryRequested{
				CollectionID: id, Tenant: "t", Run: 3, AsOf: 4, Name: "n", Template: "template", Labels: labels, OrderingKey: "o",
				IdempotencyKey: "key", RequestHash: hash, Reason: "cause removed", Actor: actor(), Input: json.RawMessage(`[1]`),
				TaskCount: 2, Tasks: []ledger.Task{fullTask(id, ledger.KindTask, 1)}, Amended: []uuid.UUID{taskID},
				Finally: []ledger.Task{fullTask(id, ledger.KindFinally, 0)},
			},
		},
		"CancelRequested": {
			ledger.CancelRequested{CollectionID: id, Tenant: "t", Run: 1, RequestHash: hash},
			ledger.CancelRequested{
				CollectionID: id, Tenant: "t", Run: 2, IdempotencyKey: "k", RequestHash: hash, Reason: "no longer needed", Actor: actor(),
			},
		},
		"PartitionClaimed": {
			ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "w"},
			ledger.PartitionClaimed{Queue: "gpu", Prev: 12, Worker: "default-1"},
		},
		"PartitionReleased": {
			ledger.PartitionReleased{Queue: "default", Claim: 0, Worker: "w"},
			ledger.PartitionReleased{Queue: "gpu", Claim: 12, Worker: "w", Running: []int64{3, 4}, GraceMS: 30_000},
		},
		"TaskStarted": {
			ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, Attempt: 1, Claim: 0, Worker: "w"},
			ledger.TaskStarted{CollectionID: id, Tenant: "t", Run: 2, TaskID: taskID, Attempt: 4, Claim: 9, Worker: "w"},
		},
		"TaskSucceeded": {
			ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, Worker: "w"},
			ledger.TaskSucceeded{
				CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, AttemptID: 8, Worker: "w",
				Result: json.RawMessage(`"x"`), Message: "done",
			},
		},
		"TaskFailed": {
			ledger.TaskFailed{
				CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, Worker: "w",
				Error: ledger.TaskError{Code: "c", Audience: ledger.AudienceUser},
			},
			ledger.TaskFailed{
				CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, AttemptID: 8, Worker: "w", ByClaim: &claim,
				Error: ledger.TaskError{
					Code: ledger.CodeLost, Message: "m", Detail: "d", Audience: ledger.AudienceOperator, Retryable: true,
				},
				RetryAfterMS: 5,
			},
		},
		"TaskDeferred": {
			ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 1, TaskID: taskID, Worker: "w"},
			ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 2, TaskID: taskID, AttemptID: 6, Worker: "w"},
		},
	}
}

func encode(t *testing.T, e ledger.Event) ledger.Message {
	t.Helper()
	meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: ledger.Source(uuid.Nil, "test"), Time: time.UnixMilli(0)}
	msg, err := ledger.Encode(partition, meta, e)
	require.NoError(t, err)
	return msg
}

func decode(msg ledger.Message, value []byte) error {
	_, err := ledger.Decode(ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: value, Headers: msg.Headers})
	return err
}

func compile(t *testing.T, event string) *jsonschema.Schema {
	t.Helper()
	file := "events/keten.v1." + event + ".json"
	raw, err := schemas.FS.ReadFile(file)
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource(file, doc))
	schema, err := c.Compile(file)
	require.NoError(t, err)
	require.Equal(t, "keten.v1."+event, schema.Title)
	return schema
}

func fits(t *testing.T, s *jsonschema.Schema, value []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	return s.Validate(doc)
}

// What the ledger writes is what the schemas promise to other readers.
func TestEveryEventFitsItsSchema(t *testing.T) {
	t.Parallel()
	for name, ex := range examples() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := compile(t, name)
			for _, e := range []ledger.Event{ex.least, ex.most} {
				require.Equal(t, name, e.EventName())
				msg := encode(t, e)
				require.NoError(t, decode(msg, msg.Value))
				require.NoError(t, fits(t, schema, msg.Value), "%s", msg.Value)
			}
		})
	}
}

// The one who reads a schema learns of every member there is, and of none that
// the ledger would refuse.
func TestSchemasNameEveryMember(t *testing.T) {
	t.Parallel()
	for name, ex := range examples() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := compile(t, name)
			known := slices.Sorted(maps.Keys(schema.Properties))
			require.Equal(t, known, members(t, encode(t, ex.most).Value))
			require.Subset(t, members(t, encode(t, ex.least).Value), schema.Required)
		})
	}
}

func members(t *testing.T, value []byte) []string {
	t.Helper()
	var object map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(value, &object))
	return slices.Sorted(maps.Keys(object))
}

// Whatever is added to an object of an event is refused by the schema and by
// the ledger alike.
func TestUnknownMembersAreRefusedByBoth(t *testing.T) {
	t.Parallel()
	for name, ex := range examples() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema, msg := compile(t, name), encode(t, ex.most)
			var doc any
			require.NoError(t, json.Unmarshal(msg.Value, &doc))
			objects := closedObjects(doc)
			require.NotEmpty(t, objects)
			for _, object := range objects {
				object["unknown"] = true
				value, err := json.Marshal(doc)
				require.NoError(t, err)
				require.Error(t, fits(t, schema, value), "%s", value)
				var invalid *ledger.InvalidError
				require.ErrorAs(t, decode(msg, value), &invalid, "%s", value)
				require.Equal(t, "is not a known member", invalid.Rule)
				delete(object, "unknown")
			}
		})
	}
}

// closedObjects returns all objects of an event whose members it fixes.
func closedObjects(doc any) []map[string]any {
	var found []map[string]any
	switch v := doc.(type) {
	case map[string]any:
		found = append(found, v)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if key != "args" && key != "labels" && key != "input" && key != "result" {
				found = append(found, closedObjects(v[key])...)
			}
		}
	case []any:
		for _, item := range v {
			found = append(found, closedObjects(item)...)
		}
	}
	return found
}

// A member of the wrong type is refused by both.
func TestWrongTypesAreRefusedByBoth(t *testing.T) {
	t.Parallel()
	for name, ex := range examples() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema, msg := compile(t, name), encode(t, ex.most)
			for _, member := range members(t, msg.Value) {
				if member == "result" || member == "input" {
					continue // any JSON
				}
				var object map[string]json.RawMessage
				require.NoError(t, json.Unmarshal(msg.Value, &object))
				object[member] = json.RawMessage(`[[1]]`)
				value, err := json.Marshal(object)
				require.NoError(t, err)
				require.Error(t, fits(t, schema, value), "%s", value)
				var invalid *ledger.InvalidError
				require.ErrorAs(t, decode(msg, value), &invalid, "%s", value)
			}
		})
	}
}

// There is a schema for each event and for nothing else.
func TestThereIsOneSchemaPerEvent(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(schemas.FS, "events/*.json")
	require.NoError(t, err)
	var want []string
	for _, name := range slices.Sorted(maps.Keys(examples())) {
		want = append(want, "events/keten.v1."+name+".json")
	}
	require.Equal(t, want, files)
}
