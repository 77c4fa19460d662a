package chaos_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// A world is a ledger of one test, and the journal of what is done for it.
type world struct {
	brokers []string
	prefix  string
	group   string
	journal *journal
	log     *eventlog.Log
	client  *kgo.Client // knows nothing of the ledger
	admin   *kadm.Client
}

func newWorld(t *testing.T, brokers []string, partitions int32) *world {
	t.Helper()
	w := &world{brokers: brokers, prefix: "chaos-" + uuid.NewString()[:8], journal: startJournal(t)}
	w.group = w.prefix + ".executor.default"
	require.NoError(t, w.init(t, partitions))
	var err error
	w.log, err = eventlog.Open(t.Context(), w.config("chaos-test"))
	require.NoError(t, err)
	t.Cleanup(w.log.Close)
	w.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(w.client.Close)
	w.admin = kadm.NewClient(w.client)
	return w
}

func (w *world) init(t *testing.T, partitions int32) error {
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: w.config("chaos-init"), Partitions: partitions, ReplicationFactor: 1})
	return err
}

func (w *world) config(client string) eventlog.Config {
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("KETEN_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return eventlog.Config{Brokers: w.brokers, Prefix: w.prefix, ClientID: client, AllowSingleReplica: true, Logger: logger}
}

// A plan is one collection to come.
type plan struct {
	id    uuid.UUID
	tasks []ledger.Task
}

func (a taskArgs) encode() json.RawMessage {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // numbers and booleans can be encoded
	}
	return b
}

// taskArgsOf reads back what a task was asked to do.
func taskArgsOf(task *ledger.Task) taskArgs {
	var args taskArgs
	_ = json.Unmarshal(task.Args, &args) // it was encoded here
	return args
}

// tasksPerCollection is the length of every chain of the load.
const tasksPerCollection = 4

// drawPlan draws a collection: tasks of no time up to 0.3 s, some of which run a
// command, fail at first, may be started only once, or fail for good.
func drawPlan(dice *rand.Rand, partitions int32) plan {
	return planFor(dice, newCollectionID(dice.Int32N(partitions)))
}

func planFor(dice *rand.Rand, id uuid.UUID) plan {
	p := plan{id: id}
	for i := range tasksPerCollection {
		args := taskArgs{Step: i, WorkMS: dice.Int64N(301)}
		task := ledger.Task{
			ID: ledger.TaskID(p.id, ledger.KindTask, i), Index: i, Name: "t" + strconv.Itoa(i), Type: "work", Queue: ledger.DefaultQueue,
			OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 1, TimeoutMS: 60_000,
			Backoff: ledger.Backoff{InitialMS: 50, Multiplier: 2, MaxMS: 1000},
		}
		switch n := dice.IntN(100); {
		case n < 12:
			task.Type = "child"
		case n < 18:
			task.Type = "fork"
		case n < 38:
			task.OnInterrupt = ledger.OnInterruptFail
		case n < 58:
			task.MaxAttempts = 4 // more than it fails
			args.FailFirst = dice.IntN(3)
		case n < 60:
			args.Refuse = true
		}
		task.Args = args.encode()
		p.tasks = append(p.tasks, task)
	}
	return p
}

var (
	idMu sync.Mutex
	idNo uint64
)

// newCollectionID returns an id that no other of this process has.
func newCollectionID(partition int32) uuid.UUID {
	idMu.Lock()
	defer idMu.Unlock()
	idNo++
	var random [8]byte
	binary.BigEndian.PutUint64(random[:], idNo)
	return ledger.NewCollectionID(partition, time.Now(), random)
}

// create appends a collection.
func (w *world) create(ctx context.Context, p *plan) error {
	partition := ledger.PartitionOf(p.id)
	asOf, err := w.log.End(ctx, partition)
	if err != nil {
		return err
	}
	msg, err := encode(partition, ledger.CollectionCreated{
		CollectionID: p.id, Tenant: "default", Name: "load", RequestHash: strings.Repeat("a", 64), AsOf: asOf, Tasks: p.tasks,
	})
	if err != nil {
		return err
	}
	_, err = w.log.AppendWait(ctx, msg)
	return err
}

// createAll appends collections at once.
func (w *world) createAll(t *testing.T, plans []plan) error {
	t.Helper()
	var all errgroup.Group
	for i := range plans {
		all.Go(func() error { return w.create(t.Context(), &plans[i]) })
	}
	return all.Wait()
}

func encode(partition int32, e ledger.Event) (ledger.Message, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return ledger.Message{}, err
	}
	return ledger.Encode(partition, ledger.Meta{EventID: id, Source: "/keten/chaos", Time: time.Now()}, e)
}

// A witness folds the ledger while it is written, to tell when runs have ended.
type witness struct {
	mu     sync.Mutex
	ended  map[uuid.UUID]ledger.RunChange
	owners map[int32]string // workers that hold a claim, by partition
}

func (w *world) startWitness(t *testing.T) *witness {
	t.Helper()
	seen := &witness{ended: make(map[uuid.UUID]ledger.RunChange), owners: make(map[int32]string)}
	from := make(map[int32]eventlog.Start)
	folds := make(map[int32]*ledger.Partition)
	for p := range w.log.Info().Partitions {
		from[p] = eventlog.Start{LeaderEpoch: -1}
		folds[p] = ledger.NewPartition(p)
	}
	r, err := w.log.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(t, err)
	var reading sync.WaitGroup
	t.Cleanup(func() {
		r.Close()
		reading.Wait()
	})
	reading.Go(func() {
		for {
			fetches, err := r.Poll(context.Background(), 1000)
			if err != nil {
				return
			}
			for _, f := range fetches {
				if folds[f.Partition] == nil {
					continue
				}
				seen.fold(folds[f.Partition], f.Records)
			}
		}
	})
	return seen
}

func (s *witness) fold(p *ledger.Partition, records []ledger.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		out, err := p.Apply(r)
		if err != nil {
			return // it will not end, and the test says so
		}
		for _, run := range out.Runs {
			switch run.Status {
			case ledger.StatusSucceeded, ledger.StatusFailed, ledger.StatusCanceled:
				s.ended[run.Collection] = run
			default:
			}
		}
	}
	delete(s.owners, p.Index())
	if c, ok := p.Claim(ledger.DefaultQueue); ok && !c.Released {
		s.owners[p.Index()] = c.Worker
	}
}

// settled reports whether every partition has an owner, of so many workers.
func (s *witness) settled(workers int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	different := make(map[string]bool)
	for _, w := range s.owners {
		different[w] = true
	}
	return len(s.owners) == partitions && len(different) == workers
}

// open returns which of the plans have not ended.
func (s *witness) open(plans []plan) (open []uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range plans {
		if _, ok := s.ended[plans[i].id]; !ok {
			open = append(open, plans[i].id)
		}
	}
	return open
}

// awaitAll waits until all plans have ended. It goes on for as long as some do.
func (s *witness) awaitAll(plans []plan) error {
	left, since := len(plans)+1, time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		open := s.open(plans)
		switch {
		case len(open) == 0:
			return nil
		case len(open) < left:
			left, since = len(open), time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("%d collections do not end: %v", len(open), open[:min(len(open), 5)])
		}
	}
}
