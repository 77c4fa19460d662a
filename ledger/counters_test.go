package ledger_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// lose lets the attempts of A's task be lost, one after the other, as their
// worker reports it under claim 1. The next attempt is then number from+times.
func (s *stream) lose(target string, from, times int) {
	s.t.Helper()
	for i := range times {
		s.tell(fmt.Sprintf("TaskStarted %s attempt=%d", target, from+i))
		s.tell(fmt.Sprintf("TaskFailed %s id=%d by=1 code=lost retryable=true", target, s.offset-1))
	}
}

// fail lets one attempt of A's task fail in a way that may be tried again.
func (s *stream) fail(target string, attempt int) string {
	s.t.Helper()
	s.tell(fmt.Sprintf("TaskStarted %s attempt=%d", target, attempt))
	at := s.offset
	line := s.do(fmt.Sprintf("TaskFailed %s id=%d retryable=true", target, at-1))
	require.Contains(s.t, line, " accepted")
	return line
}

// Nine losses are fine, the tenth is the last: of a task in a run, and of a
// finally task in its run.
func TestLossesAreCounted(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"t=0", "f=0"} {
		s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=1 max=2 finally=1 fmax=2")
		if target == "f=0" {
			s.tell("CancelRequested")
		}
		for lost := range 10 {
			s.tell(fmt.Sprintf("TaskStarted %s attempt=%d", target, lost+1))
			a := s.nextA(1, "w1")
			require.Equal(t, "lost", a.Error.Code)
			require.Equal(t, lost < 9, a.Error.Retryable, "%s after %d losses", target, lost)
			if lost < 9 {
				s.tell(fmt.Sprintf("TaskFailed %s id=%d by=1 code=lost retryable=true", target, s.offset-1))
			}
			s.p = restored(t, s.p)
		}
	}
}

// A success begins anew: the task behind it has lost and failed nothing yet.
func TestSuccessResetsTheCounters(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"t=%d", "f=%d"} {
		first, second := fmt.Sprintf(target, 0), fmt.Sprintf(target, 1)
		s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=2 max=2 finally=2 fmax=2")
		if first == "f=0" {
			s.tell("CancelRequested")
		}
		s.lose(first, 1, 9)
		require.Contains(t, s.fail(first, 10), "waiting/10")
		s.tell(fmt.Sprintf("TaskStarted %s attempt=11", first), fmt.Sprintf("TaskSucceeded %s id=%d", first, s.offset))
		s.lose(second, 1, 8)
		s.tell(fmt.Sprintf("TaskStarted %s attempt=9", second))
		require.True(t, s.nextA(1, "w1").Error.Retryable, "%s: the ninth loss", second)
		s.tell(fmt.Sprintf("TaskFailed %s id=%d by=1 code=lost retryable=true", second, s.offset-1))
		require.Contains(t, s.fail(second, 10), "waiting/10", "%s: the first failure", second)
		require.Contains(t, s.fail(second, 11), "failed/11", "%s: the second", second)
	}
}

// What has not failed by itself is no failure: superseded, lost and not started
// attempts leave max_attempts alone; and what was never started is no loss.
func TestFailuresAreWhatWorkersReport(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"t=0", "f=0"} {
		begin := func() *stream {
			s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=1 max=2 finally=1 fmax=2")
			if target == "f=0" {
				s.tell("CancelRequested")
			}
			return s
		}
		s := begin()
		s.tell("TaskStarted "+target, "PartitionClaimed worker=w1 prev=1", fmt.Sprintf("TaskStarted %s attempt=2 claim=%d", target, s.offset+1))
		require.Contains(t, s.do(fmt.Sprintf("TaskFailed %s id=%d retryable=true", target, s.offset-1)), "waiting/2", "superseded once, failed once")
		s = begin()
		s.lose(target, 1, 1)
		require.Contains(t, s.fail(target, 2), "waiting/2", "lost once, failed once")
		s = begin()
		claim := int64(1)
		for i := range 9 {
			s.tell(fmt.Sprintf("TaskStarted %s attempt=%d claim=%d", target, i+1, claim))
			s.tell(fmt.Sprintf("PartitionReleased claim=%d", claim), fmt.Sprintf("PartitionClaimed worker=w1 prev=%d", claim))
			claim = s.offset - 1
		}
		s.tell(fmt.Sprintf("TaskStarted %s attempt=10 claim=%d", target, claim))
		require.True(t, s.nextA(1, "w1").Error.Retryable, "never started nine times: no loss")
		require.Contains(t, s.do(fmt.Sprintf("TaskFailed %s id=%d retryable=true", target, s.offset-1)), "waiting/10", "never started nine times: no failure")
		s = begin()
		s.tell("TaskStarted " + target)
		require.Contains(t, s.do(fmt.Sprintf("TaskFailed %s id=%d code=lost retryable=true", target, s.offset-1)), "waiting/1", "a worker's own loss is a failure")
		s = begin()
		s.tell("TaskStarted " + target)
		require.Contains(t, s.do(fmt.Sprintf("TaskFailed %s id=%d by=1 code=timeout retryable=true", target, s.offset-1)), "waiting/1", "so is a timeout, whoever says so")
		s = begin()
		s.tell("TaskStarted "+target, fmt.Sprintf("TaskFailed %s id=%d by=1 code=interrupted retryable=true", target, s.offset))
		require.Zero(t, s.nextA(1, "w1").WaitMS, "what was interrupted may start again at once")
	}
}

// A task that waits for its next attempt is not open: a cancel ends its run.
func TestCancelWhileATaskWaits(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=1 max=2", "TaskStarted", "TaskFailed id=3 retryable=true")
	require.Equal(t, "5 accepted A run1 canceled, A.t0 canceled/1", s.do("CancelRequested"))
}

// A slow but honest worker's failure counts as its success does, as long as
// nobody has restarted the task.
func TestSlowWorkerMayFail(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=1", "TaskStarted", "PartitionClaimed worker=w2 prev=1")
	require.Equal(t, "5 accepted @3 failed, A run1 failed at A.t0, A.t0 failed/1", s.do("TaskFailed id=3"))
}

// An id is taken while finally tasks are under way, also when the window has
// forgotten the end: at every offset, none left out.
func TestEndingRunsAreRememberedBeyondTheWindow(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened window=3", "CollectionCreated finally=1", "CancelRequested")
	s.pass(20)
	require.Equal(t, "20 duplicate", s.do("CollectionCreated finally=1"))
	require.Equal(t, "21 accepted A run2 pending", s.do("RetryRequested finally=1"))
}

// The idempotency key of a retry is its own: only the lane routes it.
func TestRetryKeysDoNotRoute(t *testing.T) {
	t.Parallel()
	for i := range 12 {
		s := told(t, "LedgerOpened partitions=12", "CollectionCreated", "CancelRequested")
		e, ok := s.event("RetryRequested", nil).(ledger.RetryRequested)
		require.True(t, ok)
		e.IdempotencyKey = fmt.Sprintf("key %d", i)
		out, err := s.p.Apply(record(t, 0, 3, e, nil))
		require.NoError(t, err)
		require.Equal(t, ledger.Accepted, out.Verdict, out.Reason)
	}
}

// Leaving a lane from its middle or its tail leaves the head where it is.
func TestLanesAreLeftFromAnywhere(t *testing.T) {
	t.Parallel()
	for _, leaves := range []string{"B", "C"} {
		s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated c=A lane=x", "CollectionCreated c=B lane=x", "CollectionCreated c=C lane=x")
		s.tell("CancelRequested c=" + leaves)
		require.Equal(t, "A.t0 start attempt=1 base=0 wait=0", s.do("next w1"))
		s.tell("CancelRequested c=A")
		left := map[string]string{"B": "C", "C": "B"}[leaves]
		require.Equal(t, left+".t0 start attempt=1 base=0 wait=0", s.do("next w1"))
		s.tell("CancelRequested c="+left, "CollectionCreated c=D lane=x")
		require.Equal(t, "D.t0 start attempt=1 base=0 wait=0", s.do("next w1"))
		require.Equal(t, "1 active, 0 ending", s.do("size"))
	}
}
