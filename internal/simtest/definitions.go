package simtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// maxTasks bounds both lists of a collection.
const maxTasks = 4

// keyring is the keys that route to the world's partition, for every tenant: two
// tenants with the same keys must not get into each other's way.
type keyring struct {
	lanes []string // ordering keys
	keys  []string // idempotency keys for collections without an ordering key
}

func tenants() []string { return []string{"tenant", "other tenant"} }

func newKeyring(index, partitions int32) keyring {
	fits := func(key string) bool {
		for _, t := range tenants() {
			if p, ok := ledger.PartitionFor(t, key, "", partitions); !ok || p != index {
				return false
			}
		}
		return true
	}
	find := func(prefix string, n int) (list []string) {
		for i := 0; len(list) < n; i++ {
			if key := prefix + itoa(i); fits(key) {
				list = append(list, key)
			}
		}
		return list
	}
	return keyring{lanes: find("lane-", 2), keys: find("key-", 3)}
}

// A request is what a user asks for: the same request may come twice.
type request struct {
	tenant   string
	ordering string
	key      string // idempotency key, "" for none
	hash     string
	shape    shape
}

// A shape is the definitions of a collection before it has an id.
type shape struct {
	name    string
	tasks   []ledger.Task
	finally []ledger.Task
}

func (w *world) newRequest() request {
	r := request{tenant: tenants()[0], shape: w.newShape()}
	if w.dice.chance(30) {
		r.tenant = tenants()[1]
	}
	if w.dice.chance(45) {
		r.ordering = oneOf(w.dice, w.keys.lanes)
	}
	r.hash = hashText(w.unique())
	return r
}

// unique counts: no two payloads of a run are equal by chance.
func (w *world) unique() int {
	w.serial++
	return w.serial
}

func hashText(n int) string { return fmt.Sprintf("%064x", n) }

func (w *world) payload() json.RawMessage {
	return json.RawMessage(`{"v":` + itoa(w.unique()) + `}`)
}

func (w *world) newShape() shape {
	s := shape{name: "collection " + itoa(w.unique())}
	for i := range w.dice.between(1, maxTasks) {
		s.tasks = append(s.tasks, w.newTask("t"+itoa(i), i))
	}
	for i := range max(0, w.dice.between(-1, 2)) {
		s.finally = append(s.finally, w.newTask("f"+itoa(i), i))
	}
	return s
}

func (w *world) newTask(name string, index int) ledger.Task {
	d := w.dice
	t := ledger.Task{
		Index: index, Name: name, Type: "type-" + name, Queue: oneOf(d, w.queues), Args: w.payload(),
		Immutable: d.chance(20), OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: d.between(1, 3),
		Backoff:   ledger.Backoff{InitialMS: int64(d.between(0, 2000)), Multiplier: int64(d.between(1, 3)), MaxMS: 20_000},
		TimeoutMS: oneOf(d, []int64{2_000, 20_000, 300_000}),
	}
	if d.chance(30) && !w.deadly {
		t.OnInterrupt, t.MaxAttempts = ledger.OnInterruptFail, 1
	}
	return t
}

// withIDs gives definitions the ids of their collection.
func withIDs(list []ledger.Task, id uuid.UUID, kind ledger.Kind) []ledger.Task {
	out := make([]ledger.Task, len(list))
	for i := range list {
		out[i] = list[i]
		out[i].ID = ledger.TaskID(id, kind, list[i].Index)
	}
	return out
}

// created is the event that creates the collection a request asks for.
func (r *request) created(id uuid.UUID, asOf int64) ledger.CollectionCreated {
	return ledger.CollectionCreated{
		CollectionID: id, Tenant: r.tenant, Name: r.shape.name, OrderingKey: r.ordering, IdempotencyKey: r.key,
		RequestHash: r.hash, AsOf: asOf, Tasks: withIDs(r.shape.tasks, id, ledger.KindTask),
		Finally: withIDs(r.shape.finally, id, ledger.KindFinally),
	}
}

// startMS is when every world begins, in Unix milliseconds.
const startMS = 1_700_000_000_000

func (w *world) wall() time.Time { return time.UnixMilli(w.nowMS) }

// ledgerID is the id of every world's ledger.
func ledgerID() uuid.UUID { return uuid.UUID{0: 1, 6: 0x40, 8: 0x80, 15: 1} }

func zeroHash() string { return strings.Repeat("0", 64) }
