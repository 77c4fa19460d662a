package executortest

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// TB is what a Kit needs of a test; a *testing.T is one.
type TB interface {
	Helper()
	// Context ends with the test, and so do the contexts of handlers.
	Context() context.Context
	Logf(format string, args ...any)
	// Fatalf must not return.
	Fatalf(format string, args ...any)
}

// DefaultPatience is how long a handler may run, unless [Kit.Patience] says
// otherwise.
const DefaultPatience = 10 * time.Second

// tenant is whose all collections of a kit are.
const tenant = "default"

// A Kit is a ledger in memory with an executor on it. Make it with [New].
type Kit struct {
	// Patience is how long one handler may run before the test fails: one that
	// hangs is to be named, and not to hang the test. Zero means DefaultPatience.
	Patience time.Duration

	tb       TB
	registry *executor.Registry
	types    []string
	runner   *executor.Runner
	ledgerID uuid.UUID
	worker   string
	workers  int // that there were
	fold     *ledger.Partition
	queues   map[string]bool // that have tasks
	nowMS    int64           // the time of the next record

	collections uint64
	runs        map[ledger.RunID]*Run
	during      map[string]func(*Run)
	current     *current // nil while no handler runs
}

// current is the attempt whose handler runs.
type current struct {
	attempt *Attempt
	run     *Run
	cancel  context.CancelCauseFunc
	restart bool // the executor is to be restarted when the handler has returned
}

// New returns a ledger without collections and an executor with the handlers of a
// registry. What is registered later is not seen.
func New(tb TB, registry *executor.Registry) *Kit {
	tb.Helper()
	k := &Kit{
		tb: tb, registry: registry, types: registry.Types(), ledgerID: uuid.New(), fold: ledger.NewPartition(0),
		queues: make(map[string]bool), nowMS: time.Now().UnixMilli(),
		runs: make(map[ledger.RunID]*Run), during: make(map[string]func(*Run)),
	}
	k.append(ledger.LedgerOpened{LedgerID: k.ledgerID, Partitions: 1, Rules: ledger.Rules, Window: ledger.DefaultWindow})
	k.newWorker()
	return k
}

// Run creates a collection of the tasks and runs it until its run has ended and
// its finally tasks too, or until a task waits for its outcome from outside: see
// [Run.Complete].
func (k *Kit) Run(definitions ...Definition) *Run {
	k.tb.Helper()
	k.mustBeIdle("Run")
	k.collections++
	var random [8]byte
	binary.BigEndian.PutUint64(random[:], k.collections)
	c := &collection{
		id:      ledger.NewCollectionID(0, time.UnixMilli(k.nowMS), random),
		results: make(map[uuid.UUID]result), attempts: make(map[uuid.UUID]int),
	}
	for _, d := range definitions {
		k.check(d)
		k.queues[d.task.Queue] = true
		c.add(d)
	}
	r := k.newRun(c, 1)
	k.claim()
	k.append(ledger.CollectionCreated{
		CollectionID: c.id, Tenant: tenant, Name: collectionName, RequestHash: requestHash, AsOf: k.fold.Position(),
		Tasks: c.tasks, Finally: c.finally,
	})
	k.drive()
	return r
}

const collectionName = "test"

// requestHash stands for the hash of a request that nobody made.
var requestHash = strings.Repeat("0", 64) //nolint:gochecknoglobals // never changed

// check refuses what would wait for ever.
func (k *Kit) check(d Definition) {
	k.tb.Helper()
	if d.err != nil {
		k.tb.Fatalf("executortest: %v", d.err)
	}
	if !slices.Contains(k.types, d.task.Type) {
		k.tb.Fatalf("executortest: task %q has type %q, for which the registry has no handler; it has %s",
			d.task.Name, d.task.Type, listed(k.types))
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// During calls do beside the handler of a task, the next time it runs: to cancel
// the run then, or to restart the executor. The handler should wait for its
// context or for something that do does, else it may have returned before.
func (k *Kit) During(task string, do func(*Run)) { k.during[task] = do }

// RestartExecutor ends the executor as at the end of a shutdown's grace period
// and starts another. Within [Kit.During] the context of the handler ends with
// [executor.ErrShutdown]; if the handler then returns an error, its attempt is
// left to the new executor, which starts the task again, or has it fail when its
// definition says [Definition.FailOnInterrupt].
func (k *Kit) RestartExecutor() {
	k.tb.Helper()
	if k.current == nil {
		k.newWorker()
		return
	}
	k.current.restart = true
	k.current.cancel(executor.ErrShutdown)
}

// mustBeIdle ends the test when a run is to be driven from within [Kit.During].
func (k *Kit) mustBeIdle(what string) {
	k.tb.Helper()
	if k.current != nil {
		k.tb.Fatalf("executortest: %s was called while the handler of task %q runs", what, k.current.attempt.Task)
	}
}

// newWorker starts another executor, which takes all claims.
func (k *Kit) newWorker() {
	k.tb.Helper()
	k.workers++
	k.worker = fmt.Sprintf("executortest-%d", k.workers)
	var err error
	k.runner, err = executor.NewRunner(executor.RunnerConfig{
		Registry: k.registry, Worker: k.worker, Source: ledger.Source(k.ledgerID, "executor"), Logger: newLogger(k.tb),
		Output: k.output, OutcomeToken: k.token,
	})
	if err != nil {
		k.tb.Fatalf("executortest: %v", err)
	}
	k.claim()
}

// claim takes the claims that this executor has not.
func (k *Kit) claim() {
	k.tb.Helper()
	for _, q := range slices.Sorted(maps.Keys(k.queues)) {
		prev := int64(-1)
		if c, ok := k.fold.Claim(q); ok {
			prev = c.Offset
			if c.Worker == k.worker {
				continue
			}
		}
		k.append(ledger.PartitionClaimed{Queue: q, Prev: prev, Worker: k.worker})
	}
}

// append appends an event, which must be accepted.
func (k *Kit) append(e ledger.Event) {
	k.tb.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		k.tb.Fatalf("executortest: make an event id: %v", err)
	}
	msg, err := ledger.Encode(0, ledger.Meta{EventID: id, Source: ledger.Source(k.ledgerID, "test"), Time: time.UnixMilli(k.nowMS)}, e)
	if err != nil {
		k.tb.Fatalf("executortest: %s: %v", e.EventName(), err)
	}
	k.appendMessage(msg)
}

func (k *Kit) appendMessage(msg ledger.Message) {
	k.tb.Helper()
	out, err := k.fold.Apply(ledger.Record{
		Offset: k.fold.Position(), TimeMS: k.nowMS, Key: msg.Key, Value: msg.Value, Headers: msg.Headers,
	})
	k.nowMS++ // two records seldom have one time
	switch {
	case err != nil:
		k.tb.Fatalf("executortest: %v", err)
	case out.Verdict != ledger.Accepted:
		k.tb.Fatalf("executortest: the ledger refused a %s: %s: %s", strings.TrimPrefix(out.Type, "keten.v1."), out.Verdict, out.Reason)
	}
	k.note(&out)
}

// note keeps what a record changed.
func (k *Kit) note(out *ledger.Outcome) {
	for i := range out.Attempts {
		a := &out.Attempts[i]
		k.runs[ledger.RunID{Collection: a.Collection, Run: a.Run}].note(a)
	}
	for _, change := range out.Runs {
		r := k.runs[ledger.RunID{Collection: change.Collection, Run: change.Run}]
		r.status, r.failedTask = change.Status, change.FailedTask
		if change.Error != nil {
			r.failure = *change.Error
		}
	}
}
