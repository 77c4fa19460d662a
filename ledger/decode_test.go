package ledger_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

// everyEvent has each type of event, bare and with every member.
func everyEvent() []ledger.Event {
	id, keyed := collectionID("A"), ledger.KeyedCollectionID("default", "lane", "key", 0)
	task := ledger.TaskID(id, ledger.KindTask, 0)
	hash, claim := strings.Repeat("0f", 32), int64(4)
	actor := ledger.Actor{Kind: "token", ID: "7", Name: "Zoë", Address: "192.0.2.1", RequestID: "r"}
	whole := tasks(keyed, nil)
	whole[0].Description, whole[0].Immutable, whole[0].Args = "d", true, json.RawMessage(`{"a":[1.50,null,"\u001f"]}`)
	finally := []ledger.Task{whole[0]}
	finally[0].ID = ledger.TaskID(keyed, ledger.KindFinally, 0)
	suffix := tasks(id, map[string]string{"tasks": "3", "from": "1", "attempts": "2"})
	worker := "default/host-1"
	return []ledger.Event{
		ledger.LedgerOpened{LedgerID: id, Partitions: 12, Rules: ledger.Rules, Window: 65_536},
		ledger.RulesActivated{Rules: 1},
		ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "n", RequestHash: hash, AsOf: 7, Tasks: tasks(id, nil)},
		ledger.CollectionCreated{
			CollectionID: keyed, Tenant: "default", Name: "n", Template: "t", Description: "d", Labels: map[string]string{"a": "b", "c": ""},
			OrderingKey: "lane", IdempotencyKey: "key", RequestHash: hash, AsOf: 7, Actor: actor, Tasks: whole, Finally: finally,
		},
		ledger.RetryRequested{CollectionID: id, Tenant: "t", Run: 2, Name: "n", RequestHash: hash, TaskCount: 3, Tasks: suffix},
		ledger.RetryRequested{
			CollectionID: id, Tenant: "t", Run: 2, AsOf: 7, Name: "n", Template: "t", Labels: map[string]string{"a": "b"}, OrderingKey: "lane",
			IdempotencyKey: "key", RequestHash: hash, Reason: "r", Actor: actor, Input: json.RawMessage(`[1]`), TaskCount: 3, Tasks: suffix,
			Amended: []uuid.UUID{suffix[0].ID},
		},
		ledger.CancelRequested{CollectionID: id, Tenant: "t", Run: 1, IdempotencyKey: "k", RequestHash: hash, Reason: "r", Actor: actor},
		ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: worker},
		ledger.PartitionReleased{Queue: "default", Claim: 1, Worker: worker, Running: []int64{2, 3}, GraceMS: 1000},
		ledger.TaskStarted{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, Attempt: 1, Claim: 4, Worker: worker},
		ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 3, Worker: worker},
		ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 3, Worker: worker, Result: json.RawMessage(`{"é":[true,-1e5,{}]}`), Message: "fine"},
		ledger.TaskFailed{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 3, Worker: worker, Error: ledger.TaskError{Code: "exit", Audience: ledger.AudienceUser}},
		ledger.TaskFailed{
			CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 3, Worker: worker, ByClaim: &claim, RetryAfterMS: 5,
			Error: ledger.TaskError{Code: "lost", Message: "m", Detail: "d", Audience: ledger.AudienceOperator, Retryable: true},
		},
		ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, AttemptID: 3, Worker: worker},
	}
}

// What is written most is read the short way: without this, the tests that
// compare the two ways would compare one with itself.
func TestHotEventsTakeTheShortWay(t *testing.T) {
	t.Parallel()
	hot := map[string]bool{"CollectionCreated": true, "TaskStarted": true, "TaskSucceeded": true, "TaskFailed": true, "TaskDeferred": true}
	seen := map[string]bool{}
	for _, e := range everyEvent() {
		r := record(t, 0, 7, e, nil)
		require.Equal(t, hot[e.EventName()], ledger.IsHot(r), "%s", r.Value)
		env, err := ledger.Decode(r)
		require.NoError(t, err, "%s", r.Value)
		require.Equal(t, e, env.Event)
		seen[e.EventName()] = true
	}
	require.Len(t, seen, 11, "every type of event")
}

// The short way changes no verdict, no event and no word of an error.
func TestBothWaysToDecodeAgree(t *testing.T) {
	t.Parallel()
	events := everyEvent()
	rapid.Check(t, func(t *rapid.T) {
		e := rapid.SampledFrom(events).Draw(t, "event")
		r := record(t, 0, 7, e, nil)
		for range 20 {
			r.Value = edited(t, r.Value)
			r.Key = rapid.SampledFrom([][]byte{r.Key, r.Key, r.Key, nil, bytes.ToUpper(r.Key), []byte(uuid.Nil.String())}).Draw(t, "key")
			r.Partition = rapid.SampledFrom([]int32{0, 0, 0, 1}).Draw(t, "partition")
			_, _ = bothWays(t, r)
			r = record(t, 0, 7, e, nil)
		}
	})
}

func bothWays(t require.TestingT, r ledger.Record) (ledger.Envelope, error) {
	want, wantErr := ledger.DecodeAny(r)
	got, err := ledger.Decode(r)
	require.Equal(t, wantErr, err, "partition %d, key %q, value %q", r.Partition, r.Key, r.Value)
	require.Equal(t, want, got, "partition %d, key %q, value %q", r.Partition, r.Key, r.Value)
	return got, err
}

// Each value of each event gives way to each fragment, and to itself misspelled.
func TestBothWaysAgreeOnEachMember(t *testing.T) {
	t.Parallel()
	value := regexp.MustCompile(`[:\[]("[^"]*"|\d+|true|\{\})`)
	for _, e := range everyEvent() {
		r := record(t, 0, 7, e, nil)
		whole := string(r.Value)
		for _, at := range value.FindAllStringSubmatchIndex(whole, -1) {
			old := whole[at[2]:at[3]]
			misspelled := []string{
				old[:len(old)-1] + "x", strings.ToUpper(old), strings.Replace(old, "0", "g", 1), strings.Replace(old, "-", "_", 1), "0" + old, old + "0", " " + old, old + "\n",
			}
			for _, put := range append(misspelled, fragments()...) {
				r.Value = []byte(whole[:at[2]] + put + whole[at[3]:])
				_, _ = bothWays(t, r)
			}
		}
	}
}

// A UUID has one spelling: each byte at each place, judged as the library does.
func TestUUIDsAreCanonical(t *testing.T) {
	t.Parallel()
	text := []byte("018bcfe5-6800-7abc-8def-000000000012")
	for i := range text {
		for c := range 256 {
			b := bytes.Clone(text)
			b[i] = byte(c)
			want, err := uuid.ParseBytes(b)
			got, ok := ledger.ParseUUID(b)
			require.Equal(t, err == nil && want.String() == string(b), ok, "%q", b)
			if ok {
				require.Equal(t, want, got)
			}
		}
	}
	for _, other := range []string{"", "018bcfe5", "018bcfe568007abc8def000000000012", "{" + string(text) + "}", "urn:uuid:" + string(text), string(text) + "0"} {
		_, ok := ledger.ParseUUID([]byte(other))
		require.False(t, ok, other)
	}
}

// Every record that is kept for good, also the refused ones.
func TestBothWaysAgreeOnTheWire(t *testing.T) {
	t.Parallel()
	hot := 0
	for _, folder := range []string{wireFolder, refusedFolder} {
		for name, f := range wireFiles(t, folder) {
			r := f.record(0)
			_, err := bothWays(t, r)
			if ledger.IsHot(r) {
				require.NoError(t, err, name)
				hot++
			}
		}
	}
	require.Greater(t, hot, 8, "of the accepted ones")
}

// Texts and numbers at the borders of what an event may hold: both ways again,
// and what is accepted comes back.
func TestBothWaysAgreeOnUnusualEvents(t *testing.T) {
	t.Parallel()
	id := collectionID("A")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.SampledFrom(fragments()), rapid.SampledFrom([]string{"default", "restart", "user", "operator"}), rapid.String(), rapid.StringN(200, 300, -1))
		number := rapid.OneOf(rapid.Int64Range(0, 9), rapid.SampledFrom([]int64{-1, 999_999_999, 1_000_000_000, 1<<31 - 1, 1 << 31, 1e18 - 1, 1e18, 1<<63 - 1}), rapid.Int64())
		failed := ledger.TaskFailed{
			CollectionID: id, Tenant: text.Draw(t, "tenant"), Run: int(number.Draw(t, "run")), TaskID: ledger.TaskID(id, ledger.KindTask, 0),
			AttemptID: number.Draw(t, "attempt id"), Worker: text.Draw(t, "worker"), RetryAfterMS: number.Draw(t, "after"),
			Error: ledger.TaskError{Code: text.Draw(t, "code"), Message: text.Draw(t, "message"), Detail: text.Draw(t, "detail"), Audience: ledger.AudienceUser},
		}
		start := ledger.TaskStarted{
			CollectionID: id, Tenant: failed.Tenant, Run: failed.Run, TaskID: failed.TaskID, Attempt: int(number.Draw(t, "attempt")), Claim: number.Draw(t, "claim"), Worker: failed.Worker,
		}
		succeeded := ledger.TaskSucceeded{
			CollectionID: id, Tenant: failed.Tenant, Run: failed.Run, TaskID: failed.TaskID, AttemptID: failed.AttemptID, Worker: failed.Worker, Message: failed.Error.Message,
		}
		deferred := ledger.TaskDeferred{CollectionID: id, Tenant: failed.Tenant, Run: failed.Run, TaskID: failed.TaskID, AttemptID: failed.AttemptID, Worker: failed.Worker}
		created := ledger.CollectionCreated{
			CollectionID: id, Tenant: failed.Tenant, Name: text.Draw(t, "name"), RequestHash: strings.Repeat("0", 64), AsOf: number.Draw(t, "as of"), Tasks: tasks(id, nil),
			Labels: map[string]string{text.Draw(t, "label"): text.Draw(t, "value"), "b": ""},
		}
		created.Tasks[1].Name, created.Tasks[1].Queue, created.Tasks[1].MaxAttempts = text.Draw(t, "task"), text.Draw(t, "queue"), int(number.Draw(t, "attempts"))
		for _, e := range []ledger.Event{failed, start, succeeded, deferred, created} {
			r := record(t, 0, 7, started(id), map[string]string{"type": "keten.v1." + e.EventName()})
			var err error
			if r.Value, err = jsonv2.Marshal(e, jsonv2.Deterministic(true)); err != nil {
				continue // invalid UTF-8
			}
			if env, err := bothWays(t, r); err == nil {
				require.Equal(t, e, env.Event)
			}
		}
	})
}

// A member that is there twice is not accepted, wherever the second one stands.
func TestHotMembersAreThereOnce(t *testing.T) {
	t.Parallel()
	member := regexp.MustCompile(`,"[a-z_]+":("[^"]*"|\d+|true)`)
	for _, e := range everyEvent() {
		r := record(t, 0, 7, e, nil)
		whole := string(r.Value)
		for _, at := range member.FindAllStringIndex(whole, -1) {
			r.Value = []byte(whole[:at[1]] + whole[at[0]:])
			_, err := bothWays(t, r)
			require.Error(t, err, "%s", r.Value)
		}
	}
}

// Any bytes in a record: the two ways agree, and an accepted event, written
// once more, is the same event.
func FuzzDecode(f *testing.F) {
	for _, e := range everyEvent() {
		r := record(f, 0, 7, e, nil)
		f.Add([]byte("keten.v1."+e.EventName()), []byte(uuid.Must(uuid.NewV7()).String()), r.Key, r.Value)
	}
	f.Fuzz(func(t *testing.T, typ, id, key, value []byte) {
		r := ledger.Record{Key: key, Value: value, Headers: []ledger.Header{{Key: ledger.HeaderType, Value: typ}, {Key: ledger.HeaderID, Value: id}}}
		env, err := bothWays(t, r)
		if err != nil {
			return
		}
		first := again(t, env)
		second := again(t, first)
		require.Equal(t, first, second)
		require.Equal(t, marshaled(t, env.Event), marshaled(t, first.Event))
	})
}

// again encodes an event and decodes it.
func again(t *testing.T, env ledger.Envelope) ledger.Envelope {
	t.Helper()
	m, err := ledger.Encode(0, ledger.Meta{EventID: env.EventID, Source: "/keten/test/test", Time: time.UnixMilli(0)}, env.Event)
	require.NoError(t, err)
	got, err := bothWays(t, ledger.Record{Key: m.Key, Value: m.Value, Headers: m.Headers})
	require.NoError(t, err)
	require.Equal(t, env.EventID, got.EventID)
	require.Equal(t, env.Type, got.Type)
	return got
}

func marshaled(t *testing.T, e ledger.Event) string {
	t.Helper()
	b, err := jsonv2.Marshal(e, jsonv2.Deterministic(true))
	require.NoError(t, err)
	return string(b)
}
