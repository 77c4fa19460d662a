package executor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/ledger"
)

// The defaults of Config.
const (
	DefaultSlots         = 128
	DefaultShutdownGrace = 10 * time.Second
	DefaultLease         = 10 * time.Second
)

const (
	// pollMost bounds the records of one poll, and so the memory that fetches
	// in front of owners take.
	pollMost = 2_000
	// cancelWait bounds how long a shutdown waits for handlers whose context
	// was canceled, and readBackWait how long for outcomes to be read back. A
	// command that does not heed SIGTERM is killed after five seconds. The next
	// owner leaves the attempts alone for so much longer than the grace. What is
	// not read back in that time has been in the outbox for long: see keepAfter.
	cancelWait   = 6 * time.Second
	readBackWait = 5 * time.Second
)

// Config says what an Executor runs and how much of it at a time.
type Config struct {
	// Log is the ledger. It must have been opened with Worker as ClientID, so
	// that others can tell whether this worker is alive. Required.
	Log *eventlog.Log
	// Registry holds the handlers. What is registered later is not seen.
	// Required.
	Registry *Registry
	// Worker is the id of this process in claims and attempts, from
	// [NewWorkerID] with the same queues. It must be new for every start of a
	// process. Required.
	Worker string
	// Queues are the queues to serve. Executors that serve the same ones share
	// the partitions in one consumer group. Empty means the queue default.
	Queues []string
	// Slots is how many handlers run at a time, over all partitions. Zero means
	// DefaultSlots.
	Slots int
	// ShutdownGrace is how long handlers may go on after Run's context ended;
	// then theirs ends too. Zero means DefaultShutdownGrace.
	ShutdownGrace time.Duration
	// Lease is how old the knowledge of the log may be for tasks to be started,
	// and how long work stands untouched before the claim of another worker is
	// taken. Zero means DefaultLease.
	Lease time.Duration
	// OutboxDir is a folder in which outcomes are kept that could not be appended
	// because the brokers were away: they outlive this process there, and are
	// appended when an executor is started with the same folder. Up to 64
	// processes of a machine may share it. Empty: they are kept in memory only.
	OutboxDir string
	// OutcomeKey signs the tokens with which outcomes of deferred attempts are
	// reported to the API, which must have the same. Nil: there are no tokens.
	OutcomeKey *outcometoken.Key
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	if c.Log == nil || c.Registry == nil || c.Worker == "" || c.Logger == nil {
		return c, errors.New("log, registry, worker and logger are required")
	}
	if err := ledger.CheckText("worker", c.Worker, ledger.MaxKeyBytes); err != nil {
		return c, err
	}
	if len(c.Queues) == 0 {
		c.Queues = []string{ledger.DefaultQueue}
	}
	c.Queues = slices.Compact(slices.Sorted(slices.Values(c.Queues)))
	if len(c.Queues) > ledger.MaxQueues {
		return c, fmt.Errorf("there are %d queues, at most %d can be served", len(c.Queues), ledger.MaxQueues)
	}
	for _, q := range c.Queues {
		if err := ledger.CheckText("queue", q, ledger.MaxKeyBytes); err != nil || q == "" {
			return c, fmt.Errorf("queue %q: %w", q, cmp.Or(err, errors.New("has no name")))
		}
	}
	if set := setName(c.Queues); setOf(c.Worker) != set {
		return c, fmt.Errorf("worker id %q does not begin with the set of its queues, %s", c.Worker, set)
	}
	if c.Slots < 0 || c.ShutdownGrace < 0 || c.Lease < 0 {
		return c, errors.New("slots, shutdown grace and lease must not be negative")
	}
	if c.Slots == 0 {
		c.Slots = DefaultSlots
	}
	if c.ShutdownGrace == 0 {
		c.ShutdownGrace = DefaultShutdownGrace
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	return c, nil
}

// NewWorkerID returns a worker id for this start of a process that serves queues
// (none: the queue default): the name of its set of queues, host, process id and
// a random part. It is also to be the client id of the Kafka client.
func NewWorkerID(queues ...string) string {
	if len(queues) == 0 {
		queues = []string{ledger.DefaultQueue}
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	return setName(queues) + "/" + clip(host, ledger.MaxKeyBytes/4) + "-" + strconv.Itoa(os.Getpid()) + "-" + hex.EncodeToString(random[:])
}

// An Executor owns partitions and runs the handlers of their tasks. Make it
// with [New] and let it [Executor.Run].
type Executor struct {
	outcomeKey *outcometoken.Key // nil: there are no tokens

	log       *eventlog.Log
	handlers  map[string]RawHandler
	worker    string
	set       string // of queues
	queues    []string
	source    string
	grace     time.Duration
	lease     time.Duration
	logger    *slog.Logger
	metrics   *metrics
	slots     *slots
	tally     *tally
	outboxDir string
	outbox    *outbox.Outbox // nil: none; set before anything runs
	kick      chan struct{}  // the log ends are wanted now
	loops     sync.WaitGroup // owners with their drains, poll loop and watch
	running   sync.WaitGroup // handlers

	mu       sync.Mutex
	started  bool
	stopping bool // a shutdown has begun
	owners   map[int32]*owner
	failed   map[int32]error // partitions that stopped
	away     error           // of the last time the brokers were asked
	allAway  bool            // none of them answered then
	// outsideSince is since when this process is known not to be in its group.
	outsideSince time.Time
	// of the last time they were asked
	membersError, outboxError error
	blind                     error // why nothing is read any more
	answeredAt                time.Time
}

// New returns an executor that does nothing until it is run.
func New(cfg Config) (*Executor, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make executor: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the executor's metrics: %w", err)
	}
	handlers, limits := cfg.Registry.copyHandlers()
	return &Executor{
		outcomeKey: cfg.OutcomeKey,

		log: cfg.Log, handlers: handlers, worker: cfg.Worker, set: setName(cfg.Queues), queues: cfg.Queues,
		source: ledger.Source(cfg.Log.Info().LedgerID, "executor"), grace: cfg.ShutdownGrace, lease: cfg.Lease,
		logger: cfg.Logger.With(slog.String("worker", cfg.Worker)), metrics: m, slots: newSlots(cfg.Slots, limits, m),
		tally: newTally(), outboxDir: cfg.OutboxDir, kick: make(chan struct{}, 1),
		owners: make(map[int32]*owner), failed: make(map[int32]error),
	}, nil
}

// Run owns what the group assigns and runs tasks until ctx ends, which is not
// an error. Then nothing more is started and others may take the partitions;
// handlers get the grace period, and their outcomes are appended and read back as
// far as the brokers are there. Others are put into the outbox. An Executor runs
// once.
func (x *Executor) Run(ctx context.Context) error {
	if !x.begin() {
		return errors.New("run executor: it was run before")
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := x.takeOutbox(ctx, life); err != nil {
		return fmt.Errorf("run executor: %w", err)
	}
	if x.outbox != nil {
		defer x.closeOutbox(life, x.outbox)
	}
	if ctx.Err() != nil {
		end()
		x.loops.Wait()
		return nil
	}
	r, err := x.log.NewGroupReader(eventlog.GroupConfig{
		Group: x.groupOf(x.set), From: x.resumeAt,
		Assigned: func(ps []int32) { x.assigned(life, ps) },
		Revoked:  func(ps []int32) { x.revoked(life, ps) },
	})
	if err != nil {
		return fmt.Errorf("join consumer group %s: %w", x.groupOf(x.set), err)
	}
	x.logger.InfoContext(ctx, "executor runs", slog.String("group", x.groupOf(x.set)), slog.Any("types", slices.Sorted(maps.Keys(x.handlers))))
	x.loops.Go(func() { x.poll(life, r) })
	x.loops.Go(func() { x.watch(life) })
	<-ctx.Done()
	x.shutdown(life, r)
	end()
	x.loops.Wait()
	r.Close()
	return nil
}

func (x *Executor) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := !x.started
	x.started = true
	return first
}

// shutdown gives the partitions away and ends what runs. Others own them from
// here on; the releases tell them for how long what still runs is to be left
// alone. The group is left last: a worker that has left it is taken for dead.
func (x *Executor) shutdown(ctx context.Context, r *eventlog.Reader) {
	x.mu.Lock()
	x.stopping = true // owners that are made from here on start nothing either
	x.mu.Unlock()
	x.eachOwner(func(o *owner) { o.stopStarting(ctx, x.grace+cancelWait) })
	r.Retire()
	var snapshots sync.WaitGroup
	defer snapshots.Wait()
	snapshots.Go(func() { x.writeFinalSnapshots(ctx) })
	done := func(handlers, outcomes int) bool { return handlers+outcomes == 0 }
	x.tally.wait(x.grace, done)
	if handlers, _ := x.tally.now(); handlers > 0 {
		x.logger.InfoContext(ctx, "grace period is over, handlers are interrupted", slog.Int("handlers", handlers))
		x.eachOwner(func(o *owner) {
			for _, a := range o.held {
				a.cancel(ErrShutdown)
			}
		})
		x.tally.wait(cancelWait, func(handlers, _ int) bool { return handlers == 0 })
	}
	x.tally.wait(readBackWait, func(_, outcomes int) bool { return outcomes == 0 })
	if handlers, outcomes := x.tally.now(); handlers+outcomes > 0 {
		x.logger.WarnContext(ctx, "executor ends early; attempts are left to the next owner, outcomes to the outbox",
			slog.Int("handlers_running", handlers), slog.Int("outcomes_unconfirmed", outcomes), slog.Bool("outbox", x.outbox != nil))
	}
	if handlers, _ := x.tally.now(); handlers == 0 {
		x.running.Wait()
	}
}

// eachOwner runs do in every owner's goroutine and waits for it.
func (x *Executor) eachOwner(do func(o *owner)) {
	var all sync.WaitGroup
	for _, o := range x.allOwners() {
		all.Add(1)
		o.mail.put(func(time.Time) {
			defer all.Done()
			do(o)
		})
	}
	all.Wait()
}

// poll hands what is read to the owners. An owner that is busy holds the others
// up once its queue is full.
func (x *Executor) poll(ctx context.Context, r *eventlog.Reader) {
	for {
		fetches, err := r.Poll(ctx, pollMost)
		if err != nil {
			x.readerEnded(ctx, err)
			return
		}
		for _, f := range fetches {
			if o := x.owner(f.Partition); o != nil && !o.deliver(ctx, f) {
				return
			}
		}
	}
}

// readerEnded makes known that nothing is read any more, unless that was asked
// for.
func (x *Executor) readerEnded(ctx context.Context, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	x.logger.ErrorContext(ctx, "the ledger cannot be read any more; the process must be restarted", slog.Any("error", err))
	x.blind = err
}

func (x *Executor) owner(partition int32) *owner {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.owners[partition]
}

func (x *Executor) allOwners() []*owner {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Values(x.owners))
}

func (x *Executor) assigned(ctx context.Context, partitions []int32) {
	at := time.Now() // before the log ends are asked, which it kicks off
	for _, p := range partitions {
		o := x.ownerOrNew(ctx, p)
		o.mail.put(func(time.Time) { o.assigned(ctx, at) })
	}
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

func (x *Executor) ownerOrNew(ctx context.Context, partition int32) *owner {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.owners[partition]
	if o == nil {
		o = newOwner(x, partition)
		o.stopping = x.stopping
		x.owners[partition] = o
		x.loops.Go(func() { o.run(ctx) })
	}
	return o
}

func (x *Executor) revoked(ctx context.Context, partitions []int32) {
	for _, p := range partitions {
		if o := x.owner(p); o != nil {
			o.mail.put(func(now time.Time) { o.revoked(ctx, now) })
		}
	}
}

func (x *Executor) partitionFailed(partition int32, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed[partition] = err
}

// Ready returns nil when the executor runs, the brokers answered within the
// lease, the outbox works and no partition has stopped; else what is wrong, in
// words.
func (x *Executor) Ready() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	switch {
	case !x.started:
		errs = append(errs, errors.New("the executor does not run"))
	case x.blind != nil:
		errs = append(errs, fmt.Errorf("the ledger cannot be read any more: %w", x.blind))
	case time.Since(x.answeredAt) > x.lease && x.away != nil:
		errs = append(errs, fmt.Errorf("the brokers do not answer: %w", x.away))
	case time.Since(x.answeredAt) > x.lease:
		errs = append(errs, errors.New("the brokers have not answered yet"))
	}
	if !x.outsideSince.IsZero() && time.Since(x.outsideSince) > x.lease {
		errs = append(errs, fmt.Errorf("the executor is not in its consumer group %s", x.groupOf(x.set)))
	}
	if x.outboxFull() {
		why := cmp.Or(x.outboxError, errors.New("the outbox is full"))
		errs = append(errs, fmt.Errorf("outcomes cannot be kept on the disk, and no task is started: %w", why))
	}
	for _, p := range slices.Sorted(maps.Keys(x.failed)) {
		errs = append(errs, fmt.Errorf("partition %d has stopped: %w", p, x.failed[p]))
	}
	return errors.Join(errs...)
}
