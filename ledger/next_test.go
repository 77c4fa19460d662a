package ledger_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

func holdsNothing(int64) bool { return false }

func runA(number int) ledger.RunID {
	return ledger.RunID{Collection: collectionID("A"), Run: number}
}

// nextA is what the owner of the default queue should do for a run of A.
func (s *stream) nextA(run int, worker string) ledger.Action {
	s.t.Helper()
	a, ok := s.p.NextFor(runA(run), "default", worker, holdsNothing)
	require.True(s.t, ok)
	return a
}

// create appends a creation that a transcript has no words for.
func (s *stream) create(edit func(e *ledger.CollectionCreated)) {
	s.t.Helper()
	e, ok := s.event("CollectionCreated", map[string]string{"tasks": "2"}).(ledger.CollectionCreated)
	require.True(s.t, ok)
	edit(&e)
	out, err := s.p.Apply(record(s.t, 0, s.offset, e, nil))
	require.NoError(s.t, err)
	require.Equal(s.t, ledger.Accepted, out.Verdict, out.Reason)
	s.offset++
}

// Record times say since when a task could be started; a task that waits for
// its next attempt is not late before that is due.
func TestNextSaysSinceWhen(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=2 max=2 finally=1")
	require.EqualValues(t, 2000, s.nextA(1, "w1").SinceMS, "created")
	s.tell("TaskStarted", "TaskFailed id=3 by=1 code=lost retryable=true")
	require.EqualValues(t, 4000, s.nextA(1, "w1").SinceMS, "the attempt was lost")
	s.tell("TaskStarted attempt=2", "TaskFailed id=5 retryable=true after=700")
	a := s.nextA(1, "w1")
	require.EqualValues(t, 6000, a.BaseMS)
	require.EqualValues(t, 700, a.WaitMS)
	require.EqualValues(t, 6700, a.SinceMS, "waits")
	s.tell("TaskStarted attempt=3", "PartitionReleased claim=1", "PartitionClaimed worker=w1 prev=1")
	a = s.nextA(1, "w1")
	require.EqualValues(t, 8000, a.SinceMS, "the attempt was never started")
	require.Zero(t, a.WaitMS)
	s.tell("TaskStarted attempt=4 claim=9", "TaskSucceeded id=10")
	require.EqualValues(t, 11_000, s.nextA(1, "w1").SinceMS, "the task before has succeeded")
	s.tell("TaskStarted t=1 claim=9", "TaskFailed t=1 id=12")
	require.EqualValues(t, 13_000, s.nextA(1, "w1").SinceMS, "the run has ended")
	s.tell("RetryRequested from=1 attempts=1")
	require.EqualValues(t, 14_000, s.nextA(2, "w1").SinceMS, "retried")
}

// An open attempt: whose it is decides what becomes of it, and when.
func TestNextOfOpenAttempts(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated", "TaskStarted")
	lost := ledger.TaskError{Code: "lost", Message: "the worker was lost", Detail: "worker w1", Audience: "operator", Retryable: true}
	want := ledger.Action{
		Kind: ledger.ActionFail, Collection: collectionID("A"), Tenant: "default", Run: 1, TaskID: ledger.TaskID(collectionID("A"), ledger.KindTask, 0),
		TaskKind: ledger.KindTask, TaskType: "noop", AttemptID: 3, Error: lost, Claim: 1, Worker: "w1",
	}
	require.Equal(t, want, s.nextA(1, "w1"), "its own, and nobody here holds it")
	s.tell("PartitionClaimed worker=w1 prev=1")
	want.Claim = 4
	require.Equal(t, want, s.nextA(1, "w1"), "of an earlier claim of its own")
	s.tell("PartitionClaimed worker=w2 prev=4")
	want.Kind, want.Error, want.Attempt, want.Claim, want.Worker = ledger.ActionStart, ledger.TaskError{}, 2, 5, "w2"
	want.WaitMS, want.LostWorker = ledger.TakeoverGraceMS, "w1"
	require.Equal(t, want, s.nextA(1, "w2"), "of another worker")
	event, ok := want.Event().(ledger.TaskStarted)
	require.True(t, ok)
	require.Equal(t, ledger.TaskStarted{CollectionID: want.Collection, Tenant: "default", Run: 1, TaskID: want.TaskID, Attempt: 2, Claim: 5, Worker: "w2"}, event)
	s.tell("TaskDeferred id=3")
	for _, held := range []bool{false, true} {
		a, ok := s.p.NextFor(runA(1), "default", "w2", func(int64) bool { return held })
		require.True(t, ok, "nobody holds a deferred attempt, whatever a process thinks")
		require.Equal(t, "timeout", a.Error.Code)
		require.True(t, a.Error.Retryable)
		require.Empty(t, a.LostWorker)
	}
}

// Without a claim of the queue and worker there is nothing to do.
func TestNextAsksForTheClaim(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"nobody's":         {"LedgerOpened", "CollectionCreated"},
		"another worker's": {"LedgerOpened", "CollectionCreated", "PartitionClaimed worker=w2"},
		"released":         {"LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated", "PartitionReleased claim=1"},
		"another queue's":  {"LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated queue=gpu"},
	} {
		s := told(t, lines...)
		require.Empty(t, s.p.Next("default", "w1", holdsNothing), name)
		_, ok := s.p.NextFor(runA(1), "default", "w1", holdsNothing)
		require.False(t, ok, name)
	}
}

// Actions come in the order of collections and runs, whatever a map's order.
func TestNextIsInOrder(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1")
	for _, c := range []string{"D", "B", "C", "A"} {
		s.tell("CollectionCreated finally=1 c="+c, "CancelRequested c="+c, "RetryRequested finally=1 c="+c, "CancelRequested run=2 c="+c, "RetryRequested run=3 c="+c)
	}
	var got []ledger.RunID
	for _, a := range s.p.Next("default", "w1", holdsNothing) {
		got = append(got, a.RunID())
	}
	var want []ledger.RunID
	for _, c := range []string{"A", "B", "C", "D"} {
		for run := 1; run <= 3; run++ {
			want = append(want, ledger.RunID{Collection: collectionID(c), Run: run})
		}
	}
	require.Equal(t, want, got)
}

// The wait is between half and all of initial × multiplier^(n−1), at most max,
// however many failures there were.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, b := range []ledger.Backoff{
		{InitialMS: 1000, Multiplier: 2, MaxMS: 300_000},
		{InitialMS: 7, Multiplier: 100, MaxMS: ledger.MaxBackoffMS},
		{InitialMS: 500, Multiplier: 1, MaxMS: 500},
		{InitialMS: 500, Multiplier: 1, MaxMS: 900},
		{InitialMS: 3000, Multiplier: 3, MaxMS: 3000},
		{InitialMS: 0, Multiplier: 2, MaxMS: 0},
	} {
		s := told(t, "LedgerOpened", "PartitionClaimed worker=w1")
		s.create(func(e *ledger.CollectionCreated) { e.Tasks[0].MaxAttempts, e.Tasks[0].Backoff = 1000, b })
		most, waits := b.InitialMS, map[int64]bool{}
		for n := range 80 {
			next := s.nextA(1, "w1")
			require.Equal(t, n+1, next.Attempt)
			out, err := s.p.Apply(record(t, 0, s.offset, next.Event(), nil))
			require.NoError(t, err)
			require.Equal(t, ledger.Accepted, out.Verdict)
			failed := s.event("TaskFailed", map[string]string{"retryable": "true"})
			e, ok := failed.(ledger.TaskFailed)
			require.True(t, ok)
			e.AttemptID = s.offset
			s.offset++
			_, err = s.p.Apply(record(t, 0, s.offset, e, nil))
			require.NoError(t, err)
			a := s.nextA(1, "w1")
			require.Equal(t, 1000*s.offset, a.BaseMS)
			require.LessOrEqual(t, a.WaitMS, most, "%+v after %d failures", b, n+1)
			require.GreaterOrEqual(t, a.WaitMS, most/2, "%+v after %d failures", b, n+1)
			waits[a.WaitMS] = true
			s.offset++
			most = min(most*b.Multiplier, b.MaxMS)
		}
		if b.InitialMS > 0 {
			require.Greater(t, len(waits), 10, "%+v: attempts do not wait for equally long", b)
		}
	}
}

// What an open attempt's handler gets, and what is known of it.
func TestOpenAttempt(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", `CollectionCreated tasks=2`, "TaskStarted", `TaskSucceeded id=3 result="r"`)
	_, ok := s.p.OpenAttempt(runA(1))
	require.False(t, ok)
	s.tell("TaskStarted t=1", "TaskFailed t=1 id=5 by=1 code=lost retryable=true", "TaskStarted t=1 attempt=2")
	want := ledger.Attempt{
		ID: 7, Collection: collectionID("A"), Tenant: "default", Name: "n", Run: 1, Number: 2, Claim: 1, Worker: "w1", StartedMS: 7000,
		Task: tasks(collectionID("A"), nil)[1], TaskKind: ledger.KindTask, Input: json.RawMessage(`"r"`),
	}
	want.Task.Attempts = 2
	open := func() ledger.Attempt {
		a, ok := s.p.OpenAttempt(runA(1))
		require.True(t, ok)
		return a
	}
	require.Equal(t, want, open())
	s.tell("CancelRequested")
	want.Canceled = true
	require.Equal(t, want, open())
	s.tell("PartitionReleased claim=1 running=7 grace=500")
	want.Draining = true
	require.Equal(t, want, open())
	s.tell("TaskDeferred t=1 id=7")
	want.Deferred, want.DeferredMS = true, 10_000
	require.Equal(t, want, open())
	s.p = restored(t, s.p)
	require.Equal(t, want, open())
	_, ok = s.p.OpenAttempt(runA(2))
	require.False(t, ok)
}

// The next start, proposed while the attempt before is open.
func TestStartAfter(t *testing.T) {
	t.Parallel()
	begin := []string{"LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=2 finally=2", "TaskStarted"}
	s := told(t, begin...)
	a, ok := s.p.StartAfter(runA(1), "default", "w1")
	require.True(t, ok)
	want := ledger.Action{
		Kind: ledger.ActionStart, Collection: collectionID("A"), Tenant: "default", Run: 1, TaskID: ledger.TaskID(collectionID("A"), ledger.KindTask, 1),
		TaskKind: ledger.KindTask, TaskType: "noop", Attempt: 1, AttemptID: -1, Claim: 1, Worker: "w1",
	}
	require.Equal(t, want, a)
	none := func(s *stream, run int, queue, worker, why string) {
		t.Helper()
		_, ok := s.p.StartAfter(runA(run), queue, worker)
		require.False(t, ok, why)
	}
	none(s, 2, "default", "w1", "no such run")
	none(s, 1, "default", "w2", "the claim is another worker's")
	none(s, 1, "gpu", "w1", "a queue that nobody has claimed")
	none(told(t, begin[:3]...), 1, "default", "w1", "nothing is open")
	none(told(t, append(begin, "CancelRequested")...), 1, "default", "w1", "the run is canceled")
	none(told(t, append(begin, "PartitionReleased claim=1 running=3")...), 1, "default", "w1", "the claim is released")
	s.tell("TaskSucceeded id=3", "TaskStarted t=1")
	none(s, 1, "default", "w1", "the last task")
	s.tell("TaskFailed t=1 id=5", "TaskStarted f=0")
	a, ok = s.p.StartAfter(runA(1), "default", "w1")
	require.True(t, ok)
	want.TaskID, want.TaskKind = ledger.TaskID(collectionID("A"), ledger.KindFinally, 1), ledger.KindFinally
	require.Equal(t, want, a)
	s.tell("RetryRequested from=0 attempts=4", "TaskStarted run=2 attempt=5")
	a, ok = s.p.StartAfter(runA(2), "default", "w1")
	require.True(t, ok)
	require.Equal(t, 5, a.Attempt, "attempts count over all runs")
}

// The task behind may be of another queue.
func TestStartAfterStaysInItsQueue(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "PartitionClaimed worker=w1 queue=gpu")
	s.create(func(e *ledger.CollectionCreated) { e.Tasks[1].Queue = "gpu" })
	s.tell("TaskStarted")
	_, ok := s.p.StartAfter(runA(1), "default", "w1")
	require.False(t, ok)
	a, ok := s.p.StartAfter(runA(1), "gpu", "w1")
	require.True(t, ok)
	require.EqualValues(t, 2, a.Claim)
}
