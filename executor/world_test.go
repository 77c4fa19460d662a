package executor_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// bubble runs a test with a ledger of its own on a broker in memory, in virtual
// time: sessions expire and back-offs pass in no time.
func bubble(t *testing.T, partitions int32, body func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { body(t, newWorld(t, partitions)) })
}

// A world is a ledger, and a witness that folds all of it.
type world struct {
	cluster *kfake.Cluster
	network *kfake.VirtualNetwork
	log     *eventlog.Log
	witness *witness
}

const brokerAddr = "127.0.0.1:9092"

func newWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	w := &world{network: &kfake.VirtualNetwork{}}
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen))
	require.NoError(t, err)
	t.Cleanup(w.cluster.Close)
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{
		Config: w.config("init", w.network.DialContext), Partitions: partitions, ReplicationFactor: 1,
	})
	require.NoError(t, err)
	w.log = w.open(t, "test", w.network.DialContext)
	w.witness = startWitness(t, w.log)
	return w
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (w *world) config(client string, dial dialer) eventlog.Config {
	return eventlog.Config{
		Brokers: []string{brokerAddr}, ClientID: client, AllowSingleReplica: true, Logger: logger(), Dialer: dial,
	}
}

func (w *world) open(t *testing.T, client string, dial dialer) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(t.Context(), w.config(client, dial))
	require.NoError(t, err)
	t.Cleanup(log.Close)
	return log
}

func logger() *slog.Logger {
	if os.Getenv("KETEN_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// A process is an executor with a connection of its own, which can be cut.
type process struct {
	worker   string
	log      *eventlog.Log
	executor *executor.Executor
	metrics  *prometheus.Registry
	wire     *wire
	ended    chan error
	stop     context.CancelFunc
}

// start runs an executor until the test ends.
func (w *world) start(t *testing.T, reg *executor.Registry, change ...func(*executor.Config)) *process {
	t.Helper()
	return w.startAs(t, executor.NewWorkerID(), reg, change...)
}

func (w *world) startAs(t *testing.T, worker string, reg *executor.Registry, change ...func(*executor.Config)) *process {
	t.Helper()
	p := &process{
		worker: worker, metrics: prometheus.NewRegistry(),
		wire: &wire{dial: w.network.DialContext}, ended: make(chan error, 1),
	}
	logConfig := w.config(worker, p.wire.DialContext)
	logConfig.Registerer = p.metrics
	var err error
	p.log, err = eventlog.Open(t.Context(), logConfig)
	require.NoError(t, err)
	t.Cleanup(p.log.Close)
	cfg := executor.Config{
		Log: p.log, Registry: reg, Worker: p.worker, Logger: logger(), Registerer: p.metrics, Slots: 16,
	}
	for _, f := range change {
		f(&cfg)
	}
	p.executor, err = executor.New(cfg)
	require.NoError(t, err)
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { p.ended <- p.executor.Run(ctx) }()
	t.Cleanup(func() {
		p.stop()
		require.NoError(t, p.wait(t))
	})
	return p
}

// wait returns what Run returned.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(time.Hour):
		require.FailNow(t, "the executor does not end")
		return nil
	}
}

// metric reads one counter or gauge by its name and labels (name, value, …); a
// metric that is not there is zero.
func (p *process) metric(name string, labels ...string) int {
	families, err := p.metrics.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() { // in the order of their names
				have = append(have, l.GetName(), l.GetValue())
			}
			if f.GetName() == name && strings.Join(have, "\n") == strings.Join(sorted(labels), "\n") {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return 0
}

// sorted puts pairs in the order of their names.
func sorted(pairs []string) []string {
	m := make(map[string]string)
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k, m[k])
	}
	return out
}

// A wire is a network that can be cut.
type wire struct {
	dial  dialer
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (w *wire) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := w.dial(ctx, network, addr)
	if err == nil {
		w.conns = append(w.conns, c)
	}
	return c, err
}

func (w *wire) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.conns = nil
	}
}

// A fact is what one record meant, of an own copy of the slices.
type fact struct {
	ledger.Outcome

	partition int32
}

func (f fact) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d:%d %s %s %s", f.partition, f.Offset, strings.TrimPrefix(f.Type, "keten.v1."), f.Verdict, f.Reason)
	for _, a := range f.Attempts {
		fmt.Fprintf(&s, " attempt %d (no. %d, run %d) %s", a.ID, a.Number, a.Run, a.Status)
	}
	for _, r := range f.Runs {
		fmt.Fprintf(&s, " run %d %s", r.Run, r.Status)
	}
	return s.String()
}

// A witness folds the ledger on its own.
type witness struct {
	mu      sync.Mutex
	facts   []fact
	changed chan struct{} // closed and replaced with every fact
}

func startWitness(t *testing.T, log *eventlog.Log) *witness {
	t.Helper()
	w := &witness{changed: make(chan struct{})}
	from := make(map[int32]eventlog.Start)
	folds := make(map[int32]*ledger.Partition)
	for p := range log.Info().Partitions {
		from[p] = eventlog.Start{LeaderEpoch: -1}
		folds[p] = ledger.NewPartition(p)
	}
	r, err := log.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	go func() {
		for {
			fetches, err := r.Poll(context.WithoutCancel(t.Context()), 1000)
			if err != nil {
				return
			}
			for _, f := range fetches {
				w.fold(folds[f.Partition], f)
			}
		}
	}()
	return w
}

func (w *witness) fold(p *ledger.Partition, f eventlog.Fetched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range f.Records {
		out, err := p.Apply(r)
		if err != nil {
			return // the partition halts, as it is meant to
		}
		out.Attempts = append([]ledger.AttemptChange(nil), out.Attempts...)
		out.Runs = append([]ledger.RunChange(nil), out.Runs...)
		out.Tasks = append([]ledger.TaskChange(nil), out.Tasks...)
		out.Collections = append([]ledger.CollectionChange(nil), out.Collections...)
		w.facts = append(w.facts, fact{Outcome: out, partition: f.Partition})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// all returns what all records mean that anybody has appended so far.
func (w *witness) all() []fact {
	synctest.Wait() // the witness reads no faster than those it looks at
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.facts)
}

// await waits for facts to show something.
func (w *witness) await(t *testing.T, what string, ok func([]fact) bool) {
	t.Helper()
	deadline := time.After(2 * time.Hour)
	for {
		w.mu.Lock()
		facts, changed := slices.Clip(w.facts), w.changed
		w.mu.Unlock()
		if ok(facts) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			for _, f := range facts {
				t.Log(f)
			}
			require.FailNow(t, "never seen: "+what)
		}
	}
}

// awaitRun waits for the end of a run and returns it.
func (w *witness) awaitRun(t *testing.T, id uuid.UUID, run int) ledger.RunChange {
	t.Helper()
	var ended ledger.RunChange
	w.await(t, fmt.Sprintf("end of run %d of %s", run, id), func(facts []fact) bool {
		for _, f := range facts {
			for _, r := range f.Runs {
				if r.Collection == id && r.Run == run && r.Status != ledger.StatusPending && r.Status != ledger.StatusRunning {
					ended = r
					return true
				}
			}
		}
		return false
	})
	return ended
}

// attempts returns the last state of the attempts of a collection, in order.
func (w *witness) attempts(id uuid.UUID) []ledger.AttemptChange {
	var list []ledger.AttemptChange
	at := make(map[int64]int)
	for _, f := range w.all() {
		for _, a := range f.Attempts {
			if a.Collection != id {
				continue
			}
			i, seen := at[a.ID]
			if !seen {
				i = len(list)
				at[a.ID] = i
				list = append(list, a)
			}
			list[i] = a
		}
	}
	return list
}

// count returns how many records of a type got a verdict.
func (w *witness) count(event string, v ledger.Verdict) int {
	n := 0
	for _, f := range w.all() {
		if f.Type == "keten.v1."+event && f.Verdict == v {
			n++
		}
	}
	return n
}

// task is a definition with the defaults.
func task(taskType string, change ...func(*ledger.Task)) ledger.Task {
	def := ledger.Task{
		Type: taskType, Queue: ledger.DefaultQueue, Args: json.RawMessage(`{}`),
		OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 1,
		Backoff:   ledger.Backoff{InitialMS: 1000, Multiplier: 2, MaxMS: 300_000},
		TimeoutMS: 3_600_000,
	}
	for _, f := range change {
		f(&def)
	}
	return def
}

func args(text string) func(*ledger.Task) {
	return func(d *ledger.Task) { d.Args = json.RawMessage(text) }
}

func attemptsMost(n int) func(*ledger.Task) {
	return func(d *ledger.Task) { d.MaxAttempts = n }
}

// newID returns a fresh collection id.
func newID(partition int32) uuid.UUID {
	idMu.Lock()
	defer idMu.Unlock()
	idNo++
	var random [8]byte
	binary.BigEndian.PutUint64(random[:], idNo)
	return ledger.NewCollectionID(partition, time.Now(), random)
}

var hash = strings.Repeat("a", 64)

var (
	idMu sync.Mutex
	idNo uint64
)

// create appends a collection.
func (w *world) create(t testing.TB, partition int32, tasks ...ledger.Task) uuid.UUID {
	t.Helper()
	asOf, err := w.log.End(t.Context(), partition)
	require.NoError(t, err)
	return w.createAt(t, partition, asOf, tasks...)
}

// createAt appends a collection with a log end learnt before.
func (w *world) createAt(t testing.TB, partition int32, asOf int64, tasks ...ledger.Task) uuid.UUID {
	t.Helper()
	id := newID(partition)
	w.append(t, partition, ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "test", RequestHash: hash, AsOf: asOf, Tasks: number(id, 0, tasks),
	})
	return id
}

// createFor appends a collection of a tenant.
func (w *world) createFor(t testing.TB, tenant string, partition int32, tasks ...ledger.Task) uuid.UUID {
	t.Helper()
	asOf, err := w.log.End(t.Context(), partition)
	require.NoError(t, err)
	id := newID(partition)
	w.append(t, partition, ledger.CollectionCreated{
		CollectionID: id, Tenant: tenant, Name: "test", RequestHash: hash, AsOf: asOf, Tasks: number(id, 0, tasks),
	})
	return id
}

// retry appends a retry of a suffix that begins at task from.
func (w *world) retry(t testing.TB, id uuid.UUID, run, from int, input string, tasks ...ledger.Task) {
	t.Helper()
	asOf, err := w.log.Ends(t.Context())
	require.NoError(t, err)
	p := ledger.PartitionOf(id)
	w.append(t, p, ledger.RetryRequested{
		CollectionID: id, Tenant: "default", Run: run, Name: "test", RequestHash: hash, AsOf: asOf[p],
		Input: json.RawMessage(input), TaskCount: from + len(tasks), Tasks: number(id, from, tasks),
	})
}

func (w *world) cancel(t testing.TB, id uuid.UUID, run int) {
	t.Helper()
	w.append(t, ledger.PartitionOf(id), ledger.CancelRequested{CollectionID: id, Tenant: "default", Run: run, RequestHash: hash})
}

func number(id uuid.UUID, from int, tasks []ledger.Task) []ledger.Task {
	numbered := make([]ledger.Task, len(tasks))
	for i, d := range tasks {
		d.Index = from + i
		d.ID = ledger.TaskID(id, ledger.KindTask, d.Index)
		d.Name = "t" + strconv.Itoa(d.Index)
		numbered[i] = d
	}
	return numbered
}

func (w *world) append(t testing.TB, partition int32, e ledger.Event) int64 {
	t.Helper()
	eventID, err := uuid.NewV7()
	require.NoError(t, err)
	msg, err := ledger.Encode(partition, ledger.Meta{EventID: eventID, Source: "/keten/test", Time: time.Now()}, e)
	require.NoError(t, err)
	offset, err := w.log.AppendWait(t.Context(), msg)
	require.NoError(t, err)
	return offset
}

// await receives what is to come within minutes of virtual time: without a limit
// a test that fails would go on for as long as its executors tick.
func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Minute):
		require.FailNow(t, "it never came")
		panic("unreachable")
	}
}

// A journal notes what handlers did.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, a ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, a...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}
