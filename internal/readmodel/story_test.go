package readmodel_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

const startMS = 1_750_000_000_000

// story writes single events into one partition, and each of them at once into
// the tables.
type story struct {
	t     *testing.T
	store *readmodel.Store
	id    uuid.UUID // of the ledger
	fold  *ledger.Partition
	ms    int64
	last  ledger.Message
	claim int64
}

// newStory opens partition 0 of a ledger with n partitions, of which the
// executor "w" holds the only queue.
func newStory(t *testing.T, f *fixture, n int32) *story {
	t.Helper()
	s := &story{t: t, store: f.Store, id: f.ledgerID, fold: ledger.NewPartition(0), ms: startMS}
	_, err := f.Checkpoints(t.Context(), f.ledgerID, n)
	require.NoError(t, err)
	s.do(ledger.LedgerOpened{LedgerID: f.ledgerID, Partitions: n, Rules: ledger.Rules, Window: ledger.DefaultWindow})
	s.claim = s.fold.Position()
	s.do(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: -1, Worker: "w"})
	return s
}

// do appends an event, one second after the one before, and returns its offset.
func (s *story) do(e ledger.Event) int64 {
	s.t.Helper()
	m, err := ledger.Encode(0, ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: "/keten/test", Time: time.UnixMilli(s.ms)}, e)
	require.NoError(s.t, err)
	o := s.send(m)
	require.Equal(s.t, ledger.Accepted, o.Verdict, o.Reason)
	return o.Offset
}

func (s *story) send(m ledger.Message) ledger.Outcome {
	s.t.Helper()
	s.ms += 1000
	s.last = m
	r := ledger.Record{Offset: s.fold.Position(), TimeMS: s.ms, Key: m.Key, Value: m.Value, Headers: m.Headers}
	c := readmodel.NewChanges(readmodel.CheckpointOf(s.id, s.fold))
	o, err := s.fold.Apply(r)
	require.NoError(s.t, err)
	c.Add(r, o)
	c.To = readmodel.CheckpointOf(s.id, s.fold)
	require.NoError(s.t, s.store.Write(s.t.Context(), []*readmodel.Changes{c}))
	return o
}

func (s *story) at(seconds int) time.Time { return time.UnixMilli(startMS + int64(seconds)*1000).UTC() }

func (s *story) now() time.Time { return time.UnixMilli(s.ms).UTC() }

func newID(b byte) uuid.UUID {
	return ledger.NewCollectionID(0, time.UnixMilli(startMS), [8]byte{b})
}

func chain(id uuid.UUID, names ...string) []ledger.Task {
	var tasks []ledger.Task
	for i, name := range names {
		tasks = append(tasks, ledger.Task{
			ID: ledger.TaskID(id, ledger.KindTask, i), Index: i, Name: name, Type: "certificate." + name, Queue: ledger.DefaultQueue,
			Description: "does " + name, Args: json.RawMessage(`{"n":` + string(rune('0'+i)) + `}`), Immutable: i == 1,
			OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 2, Backoff: ledger.Backoff{InitialMS: 1, Multiplier: 2, MaxMS: 3}, TimeoutMS: 4,
		})
	}
	return tasks
}

func creation(id uuid.UUID, tenant string, names ...string) ledger.CollectionCreated {
	return ledger.CollectionCreated{
		CollectionID: id, Tenant: tenant, Name: "certificate", Template: "request-certificate", Description: "for d.example",
		Labels: map[string]string{"env": "test"}, RequestHash: strings.Repeat("ab", 32),
		Actor: ledger.Actor{Kind: "anonymous", Address: "127.0.0.1"}, Tasks: chain(id, names...),
	}
}

func (s *story) create(id uuid.UUID, tenant string, names ...string) {
	s.t.Helper()
	e := creation(id, tenant, names...)
	e.AsOf = s.fold.Position()
	s.do(e)
}

func (s *story) begin(id uuid.UUID, tenant string, run, index, attempt int) int64 {
	s.t.Helper()
	return s.do(ledger.TaskStarted{
		CollectionID: id, Tenant: tenant, Run: run, TaskID: ledger.TaskID(id, ledger.KindTask, index), Attempt: attempt,
		Claim: s.claim, Worker: "w",
	})
}

func (s *story) succeed(id uuid.UUID, tenant string, run, index int, attempt int64, result string) {
	s.t.Helper()
	e := ledger.TaskSucceeded{
		CollectionID: id, Tenant: tenant, Run: run, TaskID: ledger.TaskID(id, ledger.KindTask, index), AttemptID: attempt,
		Worker: "w", Message: "done",
	}
	if result != "" {
		e.Result = json.RawMessage(result)
	}
	s.do(e)
}

func (s *story) fail(id uuid.UUID, tenant string, run, index int, attempt int64, retryable bool) {
	s.t.Helper()
	s.do(ledger.TaskFailed{
		CollectionID: id, Tenant: tenant, Run: run, TaskID: ledger.TaskID(id, ledger.KindTask, index), AttemptID: attempt,
		Worker: "w", Error: failure(retryable),
	})
}

func failure(retryable bool) ledger.TaskError {
	return ledger.TaskError{
		Code: ledger.CodeExit, Message: "no challenge", Detail: "a long story", Audience: ledger.AudienceUser, Retryable: retryable,
	}
}

func (s *story) retry(id uuid.UUID, tenant string, run, from int, attempts []int, names ...string) {
	s.t.Helper()
	tasks := chain(id, names...)[from:]
	for i := range tasks {
		tasks[i].Attempts = attempts[i]
	}
	tasks[0].Args = json.RawMessage(`"amended"`)
	s.do(ledger.RetryRequested{
		CollectionID: id, Tenant: tenant, Run: run, AsOf: s.fold.Position(), Name: "certificate", IdempotencyKey: "again",
		RequestHash: strings.Repeat("cd", 32), Reason: "the challenge is there", Actor: ledger.Actor{Kind: "user", ID: "u"},
		TaskCount: len(names), Tasks: tasks, Amended: []uuid.UUID{tasks[0].ID},
	})
}
