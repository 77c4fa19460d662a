package ledger_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// An edit makes a record that is refused of one that is not.
type wireEdit func(t *testing.T, r *ledger.Record)

// swap replaces the first place of old in the record's value.
func swap(old, with string) wireEdit {
	return func(t *testing.T, r *ledger.Record) {
		t.Helper()
		require.Contains(t, string(r.Value), old)
		r.Value = []byte(strings.Replace(string(r.Value), old, with, 1))
	}
}

// only replaces the record's value.
func only(with string) wireEdit {
	return func(_ *testing.T, r *ledger.Record) { r.Value = []byte(with) }
}

// cut replaces what stands from the first begin up to the end behind it.
func cut(begin, end, with string) wireEdit {
	return func(t *testing.T, r *ledger.Record) {
		t.Helper()
		before, rest, ok := strings.Cut(string(r.Value), begin)
		require.True(t, ok)
		_, after, ok := strings.Cut(rest, end)
		require.True(t, ok)
		r.Value = []byte(before + with + end + after)
	}
}

// happened makes the value that of an event that Encode refuses.
func happened(e ledger.Event) wireEdit {
	return func(t *testing.T, r *ledger.Record) {
		t.Helper()
		text, err := json.Marshal(e)
		require.NoError(t, err)
		r.Value = text
	}
}

func underKey(with string) wireEdit {
	return func(_ *testing.T, r *ledger.Record) { r.Key = []byte(with) }
}

// underHeader gives a header another value, or takes it away when there is none.
func underHeader(name string, with ...string) wireEdit {
	return func(_ *testing.T, r *ledger.Record) {
		var kept []ledger.Header
		for _, h := range r.Headers {
			if h.Key != name {
				kept = append(kept, h)
			}
		}
		for _, v := range with {
			kept = append(kept, ledger.Header{Key: name, Value: []byte(v)})
		}
		r.Headers = kept
	}
}

// under replaces the collection's id, in the value and in the key.
func under(id string) wireEdit {
	return func(t *testing.T, r *ledger.Record) {
		t.Helper()
		swap(string(r.Key), id)(t, r)
		r.Key = []byte(id)
	}
}

func inPartition(n int32) wireEdit {
	return func(_ *testing.T, r *ledger.Record) { r.Partition = n }
}

// refusedRecords are the records of the files, by file. What an edit starts
// from is the event's record with all that it can carry.
func refusedRecords(t *testing.T) map[string]ledger.Record {
	t.Helper()
	records := map[string]ledger.Record{}
	for event, edits := range map[string]map[string]wireEdit{
		"LedgerOpened": openedEdits(), "CollectionCreated": createdEdits(), "RetryRequested": retryEdits(), "CancelRequested": cancelEdits(),
		"PartitionClaimed": claimedEdits(), "PartitionReleased": releasedEdits(), "RulesActivated": {"rules_negative": swap(`"rules":9223372036854775807`, `"rules":-1`)},
		"TaskStarted": startedEdits(), "TaskSucceeded": succeededEdits(), "TaskFailed": failedEdits(), "TaskDeferred": deferredEdits(),
	} {
		for name, change := range edits {
			r := wireRecord(t, wireEvents()["keten.v1."+event+".most"])
			change(t, &r)
			records["keten.v1."+event+"."+name] = r
		}
	}
	return records
}

// startedEdits also hold what is true of every event: bytes, headers, key.
func startedEdits() map[string]wireEdit {
	c := wireCollection().String()
	all := map[string]wireEdit{
		"no_json": only(`hello`), "empty": only(``), "null": only(`null`), "array": only(`[]`), "string": only(`"x"`), "half": only(`{"run":1`),
		"data_behind": swap(`}`, `} 1`), "comment": swap(`{`, `{/**/`), "byte_order_mark": swap(`{`, "\ufeff{"), "comma_at_end": swap(`}`, `,}`),
		"member_twice": swap(`"run":2`, `"run":2,"run":2`), "member_unknown": swap(`"run":2`, `"run":2,"extra":1`), "member_in_capitals": swap(`"run"`, `"Run"`),
		"member_null": swap(`"run":2`, `"run":null`), "text_null": swap(`"worker":"w"`, `"worker":null`), "id_null": swap(`"`+c+`"`, `null`),
		"number_as_text": swap(`"run":2`, `"run":"2"`), "number_fraction": swap(`"run":2`, `"run":2.5`), "number_with_point": swap(`"run":2`, `"run":2.0`),
		"number_with_exponent": swap(`"run":2`, `"run":2e0`), "number_with_zero": swap(`"run":2`, `"run":02`), "number_missing": swap(`"claim":9223372036854775807,`, ``), "number_too_large": swap(`"claim":9223372036854775807`, `"claim":9223372036854775808`),
		"text_as_number": swap(`"worker":"w"`, `"worker":1`), "text_not_utf8": swap(`"worker":"w"`, "\"worker\":\"w\xff\""), "text_with_nul": swap(`"worker":"w"`, `"worker":"w\u0000"`),
		"text_with_lone_surrogate": swap(`"worker":"w"`, `"worker":"\ud800"`), "text_with_raw_newline": swap(`"worker":"w"`, "\"worker\":\"\n\""), "text_with_odd_escape": swap(`"worker":"w"`, `"worker":"\x"`),
		"id_in_capitals": swap(c, strings.ToUpper(c)), "id_in_braces": swap(c, "{"+c+"}"), "id_as_urn": swap(c, "urn:uuid:"+c), "id_without_dashes": swap(c, strings.ReplaceAll(c, "-", "")),
		"id_of_version_4": under(strings.Replace(c, "-7008-", "-4008-", 1)), "task_id_of_another_variant": swap(`-b1d3-`, `-71d3-`), "id_of_another_variant": under(strings.Replace(c, "-8102-", "-4102-", 1)),
		"id_of_another_partition": under(strings.Replace(c, "-7008-", "-7009-", 1)), "id_nil": swap(c, uuid.Nil.String()),
		"another_partition": inPartition(wirePartition + 1), "too_large": swap(`"worker":"w"`, `"worker":"`+strings.Repeat("x", ledger.MaxEventBytes)+`"`),

		"key_missing": underKey(""), "key_of_another": underKey(strings.Replace(c, "01a0", "01a1", 1)), "key_in_capitals": underKey(strings.ToUpper(c)),
		"header_id_missing": underHeader(ledger.HeaderID), "header_id_twice": underHeader(ledger.HeaderID, "01a0c450-6c01-7000-8000-000000000001", "01a0c450-6c01-7000-8000-000000000001"),
		"header_id_of_version_4": underHeader(ledger.HeaderID, "01a0c450-6c01-4000-8000-000000000001"), "header_id_as_urn": underHeader(ledger.HeaderID, "urn:uuid:01a0c450-6c01-7000-8000-000000000001"),
		"header_id_no_uuid": underHeader(ledger.HeaderID, "1"), "header_type_twice": underHeader(ledger.HeaderType, "keten.v1.TaskStarted", "other"),
		"header_type_missing": underHeader(ledger.HeaderType), "header_type_of_others": underHeader(ledger.HeaderType, "com.example.TaskStarted"),
		"header_type_in_capitals": underHeader(ledger.HeaderType, "Keten.v1.TaskStarted"), "header_type_unknown": underHeader(ledger.HeaderType, "keten.v1.NeverHappened"),
		"header_type_of_version_0": underHeader(ledger.HeaderType, "keten.v0.TaskStarted"), "header_type_without_name": underHeader(ledger.HeaderType, "keten."),

		"attempt_0": swap(`"attempt":2147483647`, `"attempt":0`), "attempt_too_large": swap(`"attempt":2147483647`, `"attempt":2147483648`),
		"claim_negative": swap(`"claim":9223372036854775807`, `"claim":-1`),
	}
	return withTaskEvent(all, 2)
}

// withTaskEvent adds what the events about attempts have in common.
func withTaskEvent(all map[string]wireEdit, run int) map[string]wireEdit {
	at, c := `"run":`+strconv.Itoa(run)+`,`, wireCollection()
	task, final := ledger.TaskID(c, ledger.KindTask, 1).String(), ledger.TaskID(c, ledger.KindFinally, 0).String()
	taskID := func(id string) wireEdit {
		return func(t *testing.T, r *ledger.Record) {
			t.Helper()
			if strings.Contains(string(r.Value), task) {
				swap(task, id)(t, r)
			} else {
				swap(final, id)(t, r)
			}
		}
	}
	all["run_0"], all["run_too_large"], all["run_missing"] = swap(at, `"run":0,`), swap(at, `"run":2147483648,`), swap(at, ``)
	all["tenant_empty"], all["tenant_too_long"] = swap(`"tenant":"t"`, `"tenant":""`), swap(`"tenant":"t"`, `"tenant":"`+overlong(ledger.MaxKeyBytes)+`"`)
	all["worker_empty"], all["worker_too_long"] = swap(`"worker":"w"`, `"worker":""`), swap(`"worker":"w"`, `"worker":"`+overlong(ledger.MaxKeyBytes)+`"`)
	all["task_of_version_7"] = taskID(strings.Replace(task, "-8008-", "-7008-", 1))
	all["task_of_another_partition"] = taskID(strings.Replace(task, "-8008-", "-8009-", 1))
	return all
}

// overlong is a text of one byte more than there may be, in fewer characters.
func overlong(most int) string { return strings.Repeat("x", most-1) + "é" }

func succeededEdits() map[string]wireEdit {
	all := withPayload(map[string]wireEdit{
		"attempt_id_negative": swap(`"attempt_id":8`, `"attempt_id":-1`), "message_too_long": swap(`"message":"done"`, `"message":"`+overlong(ledger.MaxMessageBytes)+`"`),
	}, "result", `"result":"x"`)
	return withTaskEvent(all, 1)
}

// withPayload adds what the gate for free JSON refuses in a member.
func withPayload(all map[string]wireEdit, name, old string) map[string]wireEdit {
	for what, json := range map[string]string{
		"too_large":                    `"` + strings.Repeat("x", ledger.MaxPayloadBytes-1) + `"`,
		"too_deep":                     strings.Repeat("[", ledger.MaxPayloadDepth+1) + strings.Repeat("]", ledger.MaxPayloadDepth+1),
		"too_deep_in_objects":          strings.Repeat(`{"a":`, ledger.MaxPayloadDepth+1) + `1` + strings.Repeat("}", ledger.MaxPayloadDepth+1),
		"with_nul":                     `["\u0000"]`,
		"with_nul_in_name":             `{"a":{"b\u0000":1}}`,
		"with_lone_surrogate":          `["\udc00"]`,
		"with_member_twice":            `{"a":[{"b":1,"b":1}]}`,
		"with_long_number":             `[` + strings.Repeat("9", ledger.MaxNumberBytes+1) + `]`,
		"with_large_exponent":          `{"a":1e301}`,
		"with_small_exponent":          `{"a":1E-301}`,
		"with_exponent_behind_zeros":   `0e+00301`,
		"with_exponent_beyond_integer": `1e99999999999999999999`,
		"not_utf8":                     "\"\xc3\x28\"",
		"not_complete":                 `{"a":`,
	} {
		all[name+"_"+what] = swap(old, `"`+name+`":`+json)
	}
	return all
}

func failedEdits() map[string]wireEdit {
	return withTaskEvent(map[string]wireEdit{
		"attempt_id_negative": swap(`"attempt_id":8`, `"attempt_id":-1`), "by_claim_negative": swap(`"by_claim":7`, `"by_claim":-1`), "by_claim_null": swap(`"by_claim":7`, `"by_claim":null`),
		"code_missing": swap(`"code":"lost",`, ``), "code_empty": swap(`"code":"lost"`, `"code":""`), "code_too_long": swap(`"code":"lost"`, `"code":"`+overlong(ledger.MaxNameBytes)+`"`),
		"message_too_long": swap(`"message":"m"`, `"message":"`+overlong(ledger.MaxMessageBytes)+`"`), "detail_too_long": swap(`"detail":"d"`, `"detail":"`+overlong(ledger.MaxDetailBytes)+`"`),
		"audience_missing": swap(`"audience":"operator",`, ``), "audience_unknown": swap(`"audience":"operator"`, `"audience":"nobody"`), "error_unknown_member": swap(`"error":{`, `"error":{"extra":1,`),
		"retryable_as_text": swap(`"retryable":true`, `"retryable":"true"`), "retry_after_negative": swap(`"retry_after_ms":5`, `"retry_after_ms":-1`),
		"retry_after_too_long": swap(`"retry_after_ms":5`, `"retry_after_ms":86400001`),
	}, 1)
}

func deferredEdits() map[string]wireEdit {
	return withTaskEvent(map[string]wireEdit{"attempt_id_negative": swap(`"attempt_id":6`, `"attempt_id":-1`)}, 2)
}

func openedEdits() map[string]wireEdit {
	return map[string]wireEdit{
		"with_key": underKey(wireCollection().String()), "id_nil": swap("ffffffff-ffff-ffff-ffff-ffffffffffff", uuid.Nil.String()), "id_missing": swap(`"ledger_id":"ffffffff-ffff-ffff-ffff-ffffffffffff",`, ``),
		"rules_negative": swap(`"rules":1`, `"rules":-1`), "partitions_0": swap(`"partitions":4096`, `"partitions":0`), "partitions_too_many": swap(`"partitions":4096`, `"partitions":4097`),
		"window_0": swap(`"window":1099511627776`, `"window":0`), "window_too_large": swap(`"window":1099511627776`, `"window":1099511627777`),
	}
}

func claimedEdits() map[string]wireEdit {
	return map[string]wireEdit{
		"with_key": underKey(wireCollection().String()), "prev_too_small": swap(`"prev":12`, `"prev":-2`), "prev_missing": swap(`"prev":12,`, ``),
		"queue_empty": swap(`"queue":"gpu"`, `"queue":""`), "queue_too_long": swap(`"queue":"gpu"`, `"queue":"`+overlong(ledger.MaxKeyBytes)+`"`), "worker_empty": swap(`"worker":"default-1"`, `"worker":""`),
	}
}

func releasedEdits() map[string]wireEdit {
	return map[string]wireEdit{
		"claim_negative": swap(`"claim":12`, `"claim":-1`), "running_null": swap(`"running":[3,9223372036854775807]`, `"running":null`),
		"running_missing": swap(`"running":[3,9223372036854775807],`, ``), "running_negative": swap(`"running":[3,`, `"running":[-1,`), "claim_missing": swap(`"claim":12,`, ``),
		"running_of_texts": swap(`"running":[3,`, `"running":["3",`), "grace_negative": swap(`"grace_ms":30000`, `"grace_ms":-1`), "grace_too_long": swap(`"grace_ms":30000`, `"grace_ms":86400001`),
	}
}

func cancelEdits() map[string]wireEdit {
	return withActor(map[string]wireEdit{
		"run_0": swap(`"run":2147483647`, `"run":0`), "run_too_large": swap(`"run":2147483647`, `"run":2147483648`),
		"idempotency_key_too_long": swap(`"idempotency_key":"k"`, `"idempotency_key":"`+overlong(ledger.MaxKeyBytes)+`"`),
		"reason_too_long":          swap(`"reason":"no longer needed"`, `"reason":"`+overlong(ledger.MaxMessageBytes)+`"`), "tenant_empty": swap(`"tenant":"t"`, `"tenant":""`),
		"request_hash_missing": swap(`"request_hash":"`+strings.Repeat("0a", 32)+`",`, ``), "request_hash_in_capitals": swap(`0a0a0a`, `0A0a0a`),
		"request_hash_too_short": swap(`0a0a"`, `0a0"`), "request_hash_too_long": swap(`0a0a"`, `0a0a0"`),
	})
}

func withActor(all map[string]wireEdit) map[string]wireEdit {
	for name, old := range map[string]string{"kind": "api_key", "id": "k1", "name": "ci", "address": "192.0.2.1", "request_id": "r1"} {
		all["actor_"+name+"_too_long"] = swap(`"`+name+`":"`+old+`"`, `"`+name+`":"`+overlong(ledger.MaxKeyBytes)+`"`)
	}
	all["actor_unknown_member"] = swap(`"actor":{`, `"actor":{"extra":1,`)
	return all
}

func retryEdits() map[string]wireEdit {
	task := ledger.TaskID(wireCollection(), ledger.KindTask, 1).String()
	return withPayload(map[string]wireEdit{
		"run_1": swap(`"run":3`, `"run":1`), "name_empty": swap(`"name":"n"`, `"name":""`), "reason_too_long": swap(`"cause removed"`, `"`+overlong(ledger.MaxMessageBytes)+`"`),
		"task_count_0": swap(`"task_count":2`, `"task_count":0`), "task_count_too_large": swap(`"task_count":2`, `"task_count":201`),
		"task_count_below_tasks": swap(`"task_count":2,"tasks":[{`, `"task_count":1,"tasks":[{},{`), "tasks_not_up_to_the_end": swap(`"task_count":2`, `"task_count":3`),
		"tasks_empty": cut(`"tasks":[`, `,"amended"`, `"tasks":[]`), "attempts_negative": swap(`"attempts":3`, `"attempts":-1`), "attempts_too_many": swap(`"attempts":3`, `"attempts":1073741825`),
		"amended_twice": swap(`"amended":["`+task, `"amended":["`+task+`","`+task), "as_of_negative": swap(`"as_of":4`, `"as_of":-1`),
		"amended_elsewhere": swap(`"amended":["`+task, `"amended":["`+ledger.TaskID(wireCollection(), ledger.KindTask, 0).String()), "ordering_key_too_long": swap(`"ordering_key":"o"`, `"ordering_key":"`+overlong(ledger.MaxKeyBytes)+`"`),
	}, "input", `"input":[1]`)
}
