package history

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// Options say what a history is like.
type Options struct {
	Seed       uint64
	LedgerID   uuid.UUID
	Partitions int32
	Chains     int // collections, spread over the partitions
	Tasks      int // of each collection; with Trouble the most, at least 1
	Concurrent int // collections of a partition under way at once, default 8
	// Trouble adds failures, retries by hand, lost workers, releases, cancels,
	// deferred outcomes, lanes, finally tasks, repeated appends, broken records
	// and other people's.
	Trouble bool
}

// Make returns the records of each partition, in log order from offset 0,
// which is the genesis.
func Make(o Options) ([][]ledger.Record, error) {
	if o.Concurrent <= 0 {
		o.Concurrent = 8
	}
	logs := make([][]ledger.Record, o.Partitions)
	for i := range o.Partitions {
		chains := o.Chains / int(o.Partitions)
		if int(i) < o.Chains%int(o.Partitions) {
			chains++
		}
		w := newWriter(o, i)
		if err := w.run(chains); err != nil {
			return nil, fmt.Errorf("make partition %d: %w", i, err)
		}
		logs[i] = w.records
	}
	return logs, nil
}

// epochMS is when every history begins.
const epochMS = 1_750_000_000_000

// writer makes the log of one partition. It folds what it writes, as everybody
// does, to know what comes next.
type writer struct {
	Options

	rng     *rand.Rand
	fold    *ledger.Partition
	records []ledger.Record
	timeMS  int64
	claims  []ledger.PartitionReleased // how each worker so far would give back its claim
	live    []*chain
	ended   []*chain // failed or canceled
	ending  []job    // runs that have ended and whose finally tasks have not
	sent    []ledger.Message
}

// chain is what the author of a retry would read from its row.
type chain struct {
	job

	orderingKey string
	tasks       []ledger.Task
	attempts    []int
	results     []json.RawMessage
	done        int
}

// job is a run for which an executor has something to do.
type job struct {
	ledger.RunID

	tenant  string
	finally int // how many finally tasks it has
}

func newWriter(o Options, partition int32) *writer {
	return &writer{
		Options: o, rng: rand.New(rand.NewPCG(o.Seed, uint64(partition))), //nolint:gosec // not negative
		fold: ledger.NewPartition(partition), timeMS: epochMS,
	}
}

func (w *writer) run(chains int) error {
	err := w.append(ledger.LedgerOpened{
		LedgerID: w.LedgerID, Partitions: w.Partitions, Rules: ledger.Rules, Window: ledger.DefaultWindow,
	})
	if err == nil {
		err = w.takeOver()
	}
	for err == nil && (chains > 0 || len(w.live)+len(w.ending) > 0) {
		switch {
		case chains > 0 && (len(w.live) < w.Concurrent && w.rng.IntN(3) == 0 || len(w.live)+len(w.ending) == 0):
			chains--
			err = w.create()
		case w.Trouble && w.rng.IntN(6) == 0:
			err = w.trouble()
		default:
			err = w.step(w.pick())
		}
	}
	return err
}

// pick returns any run under way.
func (w *writer) pick() job {
	i := w.rng.IntN(len(w.live) + len(w.ending))
	if i < len(w.live) {
		return w.live[i].job
	}
	return w.ending[i-len(w.live)]
}

func (w *writer) worker() string { return w.claims[len(w.claims)-1].Worker }

func (w *writer) eventID() uuid.UUID {
	var random [8]byte
	binary.BigEndian.PutUint64(random[:], w.rng.Uint64())
	return ledger.NewCollectionID(w.rng.Int32N(ledger.MaxPartitions), time.UnixMilli(w.timeMS), random)
}

func (w *writer) append(e ledger.Event) error {
	m, err := ledger.Encode(w.fold.Index(), ledger.Meta{
		EventID: w.eventID(), Source: ledger.Source(w.LedgerID, "history"), Time: time.UnixMilli(w.timeMS),
	}, e)
	if err != nil {
		return err
	}
	if w.Trouble && w.rng.IntN(4) == 0 {
		w.sent = append(w.sent, m)
	}
	return w.appendMessage(m)
}

// appendMessage writes a record and takes in what it meant.
func (w *writer) appendMessage(m ledger.Message) error {
	w.timeMS += w.rng.Int64N(3)
	r := ledger.Record{
		Partition: w.fold.Index(), Offset: int64(len(w.records)), TimeMS: w.timeMS,
		Key: m.Key, Value: m.Value, Headers: m.Headers,
	}
	o, err := w.fold.Apply(r)
	if err != nil {
		return err
	}
	w.records = append(w.records, r)
	for _, t := range o.Tasks {
		w.note(t)
	}
	for _, c := range o.Collections {
		w.move(c)
	}
	return nil
}

func (w *writer) note(t ledger.TaskChange) {
	if t.TaskKind == ledger.KindFinally {
		w.noteFinally(t)
		return
	}
	for _, c := range w.live {
		if c.Collection != t.Collection {
			continue
		}
		c.attempts[t.Index] = t.Attempts
		if t.Status == ledger.StatusSucceeded {
			c.results[t.Index], c.done = t.Result, t.Index+1
		}
	}
}

// noteFinally forgets a run whose last finally task is done.
func (w *writer) noteFinally(t ledger.TaskChange) {
	w.ending = slices.DeleteFunc(w.ending, func(j job) bool {
		return j.RunID == ledger.RunID{Collection: t.Collection, Run: t.Run} && t.Index == j.finally-1 &&
			(t.Status == ledger.StatusSucceeded || t.Status == ledger.StatusFailed)
	})
}

// move keeps the lists of live and ended chains.
func (w *writer) move(x ledger.CollectionChange) {
	for i, c := range w.live {
		if c.Collection != x.ID || x.Status == ledger.StatusPending || x.Status == ledger.StatusRunning {
			continue
		}
		w.live = append(w.live[:i], w.live[i+1:]...)
		if c.finally > 0 {
			w.ending = append(w.ending, c.job)
		}
		if x.Status != ledger.StatusSucceeded {
			w.ended = append(w.ended, c)
		}
		return
	}
}

func (w *writer) create() error {
	var random [8]byte
	binary.BigEndian.PutUint64(random[:], w.rng.Uint64())
	c := &chain{job: job{
		RunID:  ledger.RunID{Collection: ledger.NewCollectionID(w.fold.Index(), time.UnixMilli(w.timeMS), random), Run: 1},
		tenant: "default",
	}}
	n := w.Tasks
	if w.Trouble {
		n = 1 + w.rng.IntN(w.Tasks)
		c.tenant = []string{"default", "eins", "zwei ✓"}[w.rng.IntN(3)]
		c.orderingKey = w.lane(c.tenant)
	}
	c.tasks = w.tasks(c.Collection, ledger.KindTask, n)
	c.attempts, c.results = make([]int, n), make([]json.RawMessage, n)
	w.live = append(w.live, c)
	e := ledger.CollectionCreated{
		CollectionID: c.Collection, Tenant: c.tenant, Name: "chain " + strconv.Itoa(len(w.records)%100), Template: "request-certificate",
		OrderingKey: c.orderingKey, RequestHash: strings.Repeat("ab", 32), AsOf: w.fold.Position(), Tasks: c.tasks, Finally: w.finally(c),
		Actor: ledger.Actor{Kind: "anonymous", Address: "127.0.0.1", RequestID: strconv.Itoa(len(w.records))},
	}
	if w.Trouble {
		e.Description = "from <here> & there \U0001F600"
		e.Labels = map[string]string{"color": []string{"red", "green", "blue"}[w.rng.IntN(3)], "ümlaut": "\\u0000"}
	}
	return w.append(e)
}

// lane returns the ordering key of a new collection, one of two that belong to
// this partition, or none.
func (w *writer) lane(tenant string) string {
	n := w.rng.IntN(4)
	for i := 0; n < 2; i++ {
		key := "shop-" + strconv.Itoa(i)
		if p, _ := ledger.PartitionFor(tenant, key, "", w.Partitions); p != w.fold.Index() {
			continue
		}
		if n == 0 {
			return key
		}
		n--
	}
	return ""
}

func (w *writer) tasks(id uuid.UUID, kind ledger.Kind, n int) []ledger.Task {
	tasks := make([]ledger.Task, 0, n)
	for i := range n {
		tasks = append(tasks, w.task(id, kind, i))
	}
	return tasks
}

// finally returns the finally tasks of a chain's run.
func (w *writer) finally(c *chain) []ledger.Task {
	c.finally = 0
	if w.Trouble {
		c.finally = w.rng.IntN(3)
	}
	return w.tasks(c.Collection, ledger.KindFinally, c.finally)
}

func (w *writer) task(id uuid.UUID, kind ledger.Kind, index int) ledger.Task {
	t := ledger.Task{
		ID: ledger.TaskID(id, kind, index), Index: index, Name: "step-" + strconv.Itoa(index),
		Type: "certificate.step" + strconv.Itoa(index), Queue: ledger.DefaultQueue, Args: w.payload(),
		OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts,
		Backoff: ledger.Backoff{
			InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS,
		},
		TimeoutMS: ledger.DefaultTimeoutMS,
	}
	if w.Trouble {
		t.MaxAttempts = 1 + w.rng.IntN(3)
		t.Immutable = w.rng.IntN(4) == 0
		if t.MaxAttempts == 1 && w.rng.IntN(4) == 0 {
			t.OnInterrupt = ledger.OnInterruptFail
		}
	}
	return t
}

func (w *writer) payload() json.RawMessage {
	if !w.Trouble {
		return fmt.Appendf(nil, `{"domain":"d%d.example","bits":2048}`, w.rng.IntN(1_000_000))
	}
	awkward := []string{
		`{}`, `null`, `"\\u0000 is not a NUL"`, `{"n":123456789012345678901234567890.000100}`, `[1e300,-0,1E-7]`,
		`"\ud83d\ude00"`, `{"":{"":[[]]}}`, `"` + strings.Repeat("ä", 2000) + `"`, strings.Repeat("[", 64) + strings.Repeat("]", 64),
	}
	return json.RawMessage(awkward[w.rng.IntN(len(awkward))])
}

// step lets an executor, or who has the outcome of a deferred attempt, do the
// next thing for a run.
func (w *writer) step(j job) error {
	if a, ok := w.fold.OpenAttempt(j.RunID); ok {
		switch w.fate(a) {
		case "report":
			return w.report(j, a)
		case "defer":
			return w.append(ledger.TaskDeferred{
				CollectionID: j.Collection, Tenant: j.tenant, Run: j.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker,
			})
		}
	}
	if a, ok := w.fold.NextFor(j.RunID, ledger.DefaultQueue, w.worker(), func(int64) bool { return false }); ok {
		return w.append(a.Event())
	}
	if c, _ := w.fold.Claim(ledger.DefaultQueue); c.Released && w.rng.IntN(4) == 0 {
		return w.takeOver()
	}
	return nil // it waits for its lane, or for an owner
}

// fate decides what becomes of an open attempt now: report, defer, or "" when
// nobody is there to say.
func (w *writer) fate(a ledger.Attempt) string {
	if !w.Trouble {
		return "report"
	}
	n := w.rng.IntN(12)
	switch {
	case a.Worker != w.worker() && n < 6, n == 0:
		return "" // lost
	case n == 1:
		return "defer" // once more, perhaps
	case a.Deferred && n < 6:
		return ""
	}
	return "report"
}

func (w *writer) report(j job, a ledger.Attempt) error {
	if !w.Trouble || w.rng.IntN(5) > 0 {
		result := w.payload()
		return w.append(ledger.TaskSucceeded{
			CollectionID: j.Collection, Tenant: j.tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker,
			Result: result, Message: "done",
		})
	}
	return w.append(ledger.TaskFailed{
		CollectionID: j.Collection, Tenant: j.tenant, Run: a.Run, TaskID: a.Task.ID, AttemptID: a.ID, Worker: a.Worker,
		Error: ledger.TaskError{
			Code: ledger.CodeExit, Message: "exit status 1", Detail: "line\nline", Audience: ledger.AudienceUser,
			Retryable: w.rng.IntN(2) == 0,
		},
	})
}

// takeOver claims the partition for a new worker; what the old one had open is
// lost, unless it gives back its claim and says otherwise.
func (w *writer) takeOver() error {
	prev := int64(-1)
	if c, ok := w.fold.Claim(ledger.DefaultQueue); ok {
		prev = c.Offset
	}
	worker := fmt.Sprintf("executor-%d-%d", w.fold.Index(), len(w.claims)+1)
	w.claims = append(w.claims, ledger.PartitionReleased{Queue: ledger.DefaultQueue, Claim: w.fold.Position(), Worker: worker})
	return w.append(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: prev, Worker: worker})
}

// release gives back the claim, or that of the worker before, which is often
// late. Of the attempts under way it lists some. Behind a cancel it may end the
// run.
func (w *writer) release() error {
	if w.rng.IntN(2) == 0 {
		if err := w.cancel(); err != nil {
			return err
		}
	}
	e := w.claims[max(len(w.claims)-1-w.rng.IntN(2), 0)]
	e.Running, e.GraceMS = []int64{}, w.rng.Int64N(2)*30_000
	jobs := slices.Clone(w.ending)
	for _, c := range w.live {
		jobs = append(jobs, c.job)
	}
	for _, j := range jobs {
		if a, ok := w.fold.OpenAttempt(j.RunID); ok && a.Worker == e.Worker && w.rng.IntN(3) == 0 {
			e.Running = append(e.Running, a.ID)
		}
	}
	return w.append(e)
}

func (w *writer) trouble() error {
	switch w.rng.IntN(7) {
	case 0:
		return w.takeOver()
	case 1:
		return w.retry()
	case 2:
		return w.cancel()
	case 3:
		if len(w.sent) == 0 {
			return nil
		}
		return w.appendMessage(w.sent[w.rng.IntN(len(w.sent))])
	case 4:
		return w.appendMessage(w.foreign())
	case 5:
		return w.release()
	}
	return w.appendMessage(w.broken())
}

func (w *writer) retry() error {
	if len(w.ended) == 0 {
		return nil
	}
	i := w.rng.IntN(len(w.ended))
	c := w.ended[i]
	w.ended = append(w.ended[:i], w.ended[i+1:]...)
	w.live = append(w.live, c)
	c.Run++
	e := ledger.RetryRequested{
		CollectionID: c.Collection, Tenant: c.tenant, Run: c.Run, AsOf: w.fold.Position(), Name: "again", OrderingKey: c.orderingKey,
		IdempotencyKey: "k" + strconv.Itoa(c.Run), RequestHash: strings.Repeat("cd", 32), Reason: "the cause is gone",
		Actor: ledger.Actor{Kind: "anonymous"}, TaskCount: len(c.tasks), Tasks: slices.Clone(c.tasks[c.done:]), Finally: w.finally(c),
	}
	if c.done > 0 {
		e.Input = c.results[c.done-1]
	}
	for i := range e.Tasks {
		e.Tasks[i].Attempts = c.attempts[c.done+i]
	}
	if w.rng.IntN(2) == 0 {
		e.Tasks[0].Args, e.Amended = json.RawMessage(`{"amended":true}`), []uuid.UUID{e.Tasks[0].ID}
	}
	return w.append(e)
}

func (w *writer) cancel() error {
	if len(w.live) == 0 {
		return nil
	}
	c := w.live[w.rng.IntN(len(w.live))]
	return w.append(ledger.CancelRequested{
		CollectionID: c.Collection, Tenant: c.tenant, Run: c.Run, RequestHash: strings.Repeat("ef", 32), Reason: "not needed",
	})
}

// foreign is a record that somebody else wrote.
func (w *writer) foreign() ledger.Message {
	return ledger.Message{Key: []byte("\xff\x00"), Value: []byte(strings.Repeat("\x00\xfe?", w.rng.IntN(1000)))}
}

// broken is one that should have been ours, with strings that PostgreSQL
// refuses wherever a record can carry one.
func (w *writer) broken() ledger.Message {
	id := w.eventID().String()
	names := []string{"v1.CollectionCreated", "v1.TaskStarted", "v1.TaskFailed", "v1.TaskDeferred", "v1.PartitionReleased"}
	values := []string{"", "{", `{"collection_id":7}`, `{"\u0000":1}`, `{"x":"\ud800"}`, "\xff", `{"a":1,"a":2}`, `[` + strings.Repeat("9", 3000)}
	m := ledger.Message{
		Key:   []byte(w.eventID().String()),
		Value: []byte(values[w.rng.IntN(len(values))]),
		Headers: []ledger.Header{
			{Key: ledger.HeaderType, Value: []byte(ledger.TypePrefix + names[w.rng.IntN(len(names))])},
			{Key: ledger.HeaderID, Value: []byte(id)},
		},
	}
	if w.rng.IntN(3) == 0 { // two types: invalid, and the first may be anything
		m.Headers[0].Value = []byte("keten.\x00\xff")
		m.Headers = append(m.Headers, m.Headers[0])
	}
	return m
}
