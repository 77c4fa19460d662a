package ledger_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// createdEdits are those of the event that carries most: definitions, labels,
// keys and the ids made of them.
func createdEdits() map[string]wireEdit {
	keyed := ledger.KeyedCollectionID("default", "order", "key", wirePartition)
	all := withActor(withPayload(map[string]wireEdit{}, "args", `"args":{}`))
	maps.Copy(all, map[string]wireEdit{
		"id_without_its_key": swap(`"idempotency_key":"key",`, ``), "id_of_another_key": swap(`"idempotency_key":"key"`, `"idempotency_key":"yek"`),
		"id_of_another_lane": swap(`"ordering_key":"order"`, `"ordering_key":"redro"`), "id_of_another_tenant": swap(`"tenant":"default"`, `"tenant":"tluafed"`),
		"tenant_empty": swap(`"tenant":"default"`, `"tenant":""`), "name_empty": swap(`"name":"näme"`, `"name":""`), "name_too_long": swap(`näme`, overlong(ledger.MaxNameBytes)),
		"template_too_long": swap(`"template":"template"`, `"template":"`+overlong(ledger.MaxNameBytes)+`"`), "description_too_long": cut(`"description":"`, `","labels"`, `"description":"`+overlong(ledger.MaxMessageBytes)),
		"labels_too_many": swap(`"labels":{`, `"labels":{`+wireLabels(ledger.MaxLabels-1)+`,`), "label_without_key": swap(`"empty":""`, `"":""`), "label_with_nul": swap(`"empty":""`, `"empty":"\u0000"`),
		"label_key_too_long": swap(`"empty":""`, `"`+overlong(ledger.MaxLabelKeyBytes)+`":""`), "label_value_too_long": swap(`"empty":""`, `"empty":"`+overlong(ledger.MaxLabelValueBytes)+`"`),
		"ordering_key_too_long": swap(`"ordering_key":"order"`, `"ordering_key":"`+overlong(ledger.MaxKeyBytes)+`"`), "idempotency_key_too_long": swap(`"idempotency_key":"key"`, `"idempotency_key":"`+overlong(ledger.MaxKeyBytes)+`"`),
		"key_of_the_plain_id": underKey(uuid.Nil.String()), "tasks_missing": cut(`"tasks":[`, `"finally":`, ``), "tasks_empty": cut(`"tasks":[`, `,"finally":`, `"tasks":[]`),
		"tasks_too_many": swap(`"tasks":[`, `"tasks":[`+strings.Repeat(`{},`, ledger.MaxTasks-1)), "finally_too_many": swap(`"finally":[`, `"finally":[`+strings.Repeat(`{},`, ledger.MaxTasks)),
		"definitions_too_large": happened(largeDefinitions(keyed)),
	})
	return withDefinitions(all, keyed)
}

// withDefinitions adds what is wrong with a task.
func withDefinitions(all map[string]wireEdit, c uuid.UUID) map[string]wireEdit {
	id := func(k ledger.Kind, index int) string { return ledger.TaskID(c, k, index).String() }
	maps.Copy(all, map[string]wireEdit{
		"task_id_of_another": swap(id(ledger.KindTask, 1), id(ledger.KindTask, 2)), "task_id_of_finally": swap(id(ledger.KindTask, 0), id(ledger.KindFinally, 0)),
		"finally_id_of_task": swap(id(ledger.KindFinally, 0), id(ledger.KindTask, 0)), "task_index_gap": swap(`"index":1`, `"index":2`), "task_index_negative": swap(`"index":0`, `"index":-1`),
		"task_name_empty": swap(`"name":"t0"`, `"name":""`), "task_name_twice": swap(`"name":"t1"`, `"name":"t0"`), "task_name_too_long": swap(`"name":"t0"`, `"name":"`+overlong(ledger.MaxNameBytes)+`"`),
		"task_type_empty": swap(`"type":"noop"`, `"type":""`), "task_type_too_long": swap(`"type":"noop"`, `"type":"`+overlong(ledger.MaxNameBytes)+`"`),
		"task_queue_empty": swap(`"queue":"default"`, `"queue":""`), "task_queue_too_long": swap(`"queue":"default"`, `"queue":"`+overlong(ledger.MaxKeyBytes)+`"`),
		"task_description_too_long": swap(`"does nothing"`, `"`+overlong(ledger.MaxMessageBytes)+`"`), "task_immutable_as_number": swap(`"immutable":true`, `"immutable":1`),
		"task_on_interrupt_missing": swap(`"on_interrupt":"restart",`, ``), "task_on_interrupt_unknown": swap(`"on_interrupt":"restart"`, `"on_interrupt":"maybe"`),
		"task_max_attempts_0": swap(`"max_attempts":1`, `"max_attempts":0`), "task_max_attempts_too_many": swap(`"max_attempts":1`, `"max_attempts":1001`),
		"task_attempts_before": swap(`"timeout_ms":3600000}`, `"timeout_ms":3600000,"attempts":1}`), "finally_attempts_before": swap(`"timeout_ms":3600000}]}`, `"timeout_ms":3600000,"attempts":1}]}`),
		"task_fail_with_attempts": swap(`"on_interrupt":"fail","max_attempts":1`, `"on_interrupt":"fail","max_attempts":2`),
		"task_timeout_0":          swap(`"timeout_ms":3600000`, `"timeout_ms":0`), "task_timeout_too_long": swap(`"timeout_ms":3600000`, `"timeout_ms":86400001`),
		"as_of_missing": swap(`"as_of":9223372036854775807,`, ``), "as_of_negative": swap(`"as_of":9223372036854775807`, `"as_of":-1`), "task_index_missing": swap(`"index":0,`, ``), "task_args_missing": swap(`"args":{},`, ``),
		"backoff_missing": swap(`"backoff":{"initial_ms":1000,"multiplier":2,"max_ms":300000},`, ``), "backoff_initial_negative": swap(`"initial_ms":1000`, `"initial_ms":-1`),
		"backoff_initial_too_long": swap(`"initial_ms":1000`, `"initial_ms":86400001`), "backoff_multiplier_0": swap(`"multiplier":2`, `"multiplier":0`), "backoff_multiplier_too_large": swap(`"multiplier":2`, `"multiplier":101`),
		"backoff_max_below_initial": swap(`"max_ms":300000`, `"max_ms":999`), "backoff_max_too_long": swap(`"max_ms":300000`, `"max_ms":86400001`),
		"backoff_unknown_member": swap(`"backoff":{`, `"backoff":{"extra":1,`), "task_unknown_member": swap(`"index":0,`, `"index":0,"extra":1,`), "task_as_list": swap(`"tasks":[{`, `"tasks":[[],{`),
	})
	return all
}

// wireLabels are so many members of an object.
func wireLabels(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"k%d":""`, i)
	}
	return strings.Join(list, ",")
}

// largeDefinitions is an event whose definitions are too large together, while
// everything else about it is right.
func largeDefinitions(c uuid.UUID) ledger.Event {
	e := ledger.CollectionCreated{
		CollectionID: c, Tenant: "default", Name: "n", OrderingKey: "order", IdempotencyKey: "key", RequestHash: strings.Repeat("0a", 32),
		Tasks: []ledger.Task{wireTask(c, ledger.KindTask, 0)}, Finally: []ledger.Task{wireTask(c, ledger.KindFinally, 0)},
	}
	e.Tasks[0].Args = json.RawMessage(`"` + strings.Repeat("x", ledger.MaxDefinitionBytes/2) + `"`)
	e.Finally[0].Args = e.Tasks[0].Args
	return e
}
