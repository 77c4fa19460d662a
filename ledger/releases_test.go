package ledger_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// draining lists the collections whose open attempt drains.
func (s *stream) draining(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		a, ok := s.p.OpenAttempt(ledger.RunID{Collection: collectionID(name), Run: 1})
		require.True(s.t, ok, "%s has an open attempt", name)
		return !a.Draining
	})
}

// A release is about one worker's attempts of one queue, whatever else it names:
// whoever writes it may be mistaken.
func TestReleaseLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "PartitionClaimed queue=gpu worker=w1",
		"CollectionCreated c=A", "CollectionCreated c=B queue=gpu", "TaskStarted c=A", "TaskStarted c=B claim=2", "PartitionClaimed worker=w2 prev=1",
		"CollectionCreated c=C", "TaskStarted c=C claim=7 worker=w2")
	// another worker in the name of w1's old claim: neither closed nor draining
	s.tell("PartitionReleased claim=1 worker=w3 running=5", "PartitionReleased claim=1 worker=w3")
	require.Empty(t, s.draining("A", "B", "C"))
	// the number of another queue's claim, and of its attempt
	s.tell("PartitionReleased claim=2 worker=w1 running=5,6,9")
	require.Equal(t, []string{"A"}, s.draining("A", "B", "C"))
	// late, and nothing is running: only what was opened under that claim is closed
	require.Equal(t, "13 accepted @5 not_started, A.t0 pending/1, wakes A run1", s.do("PartitionReleased claim=1 worker=w1"))
	require.Empty(t, s.draining("B", "C"))
	c, ok := s.p.Claim("default")
	require.True(t, ok)
	require.Equal(t, ledger.Claim{Offset: 7, Worker: "w2"}, c, "a late release does not end the claim after it")
}

// A deferred attempt is nobody's: a release neither closes it nor makes it drain.
func TestReleaseLeavesDeferredAttemptsAlone(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated c=A", "CollectionCreated c=B", "TaskStarted c=A", "TaskStarted c=B",
		"TaskDeferred c=A id=4", "TaskDeferred c=B id=5")
	require.Equal(t, "8 accepted", s.do("PartitionReleased claim=1 running=5"))
	require.Empty(t, s.draining("A", "B"))
}

// Attempts are closed in the order in which they were opened, in active runs and
// in those with finally tasks under way alike.
func TestReleaseClosesInOrder(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1")
	names := []string{"F", "B", "D", "A", "C", "E"}
	for i, name := range names {
		s.tell("CollectionCreated tasks=1 finally=1 c=" + name)
		if i%2 == 0 {
			s.tell("CancelRequested c="+name, "TaskStarted f=0 c="+name)
		} else {
			s.tell("TaskStarted c=" + name)
		}
	}
	out, err := s.p.Apply(record(t, 0, s.offset, s.event("PartitionReleased", nil), nil))
	require.NoError(t, err)
	require.Len(t, out.Attempts, len(names))
	for i, a := range out.Attempts {
		require.Equal(t, collectionID(names[i]), a.Collection)
		require.Equal(t, ledger.StatusNotStarted, a.Status)
	}
}

// Whoever follows outcomes asks Next again for the runs they touch, and for no
// others: the record's own run is always among them, also when it was refused.
func TestOutcomesNameTheirRuns(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1")
	tests := []struct {
		line, verdict string
		touched       []string
		run           int
	}{
		{"CollectionCreated c=A lane=x", "accepted", []string{"A"}, 1},
		{"CollectionCreated c=A lane=x", "duplicate", []string{"A"}, 1},
		{"CollectionCreated c=B lane=x", "accepted", []string{"B"}, 1},
		{"CollectionCreated c=C", "accepted", []string{"C"}, 1},
		{"TaskStarted c=A attempt=2", "stale", []string{"A"}, 1},
		{"TaskStarted c=A", "accepted", []string{"A"}, 1},
		{"TaskStarted c=C", "accepted", []string{"C"}, 1},
		{"CancelRequested c=C run=2", "stale", []string{"C"}, 2},
		{"TaskSucceeded c=A id=1", "stale", []string{"A"}, 1},
		{"TaskDeferred c=C id=8", "accepted", []string{"C"}, 1},
		{"CancelRequested c=A", "accepted", []string{"A"}, 1},
		{"TaskFailed c=A id=7", "accepted", []string{"A", "B"}, 1},
		{"RetryRequested c=A lane=x", "accepted", []string{"A"}, 2},
		{"RetryRequested c=A lane=x", "stale", []string{"A"}, 2},
		{"TaskStarted c=B", "accepted", []string{"B"}, 1},
		{"PartitionReleased running=16", "accepted", []string{"B"}, 1},
		{"PartitionClaimed worker=w1 prev=1", "accepted", nil, 0},
		{"TaskSucceeded c=B id=16", "accepted", []string{"B"}, 1},
		{"TaskStarted c=B t=1 claim=18", "accepted", []string{"B"}, 1},
		{"PartitionReleased claim=18", "accepted", []string{"B"}, 1},
	}
	for _, tt := range tests {
		word, f := fields(tt.line)
		out, err := s.p.Apply(record(t, 0, s.offset, s.event(word, f), nil))
		require.NoError(t, err)
		s.offset++
		require.Equal(t, tt.verdict, string(out.Verdict), tt.line)
		var want, got []ledger.RunID
		for _, name := range tt.touched {
			run := tt.run
			if name != tt.touched[0] {
				run = 1
			}
			want = append(want, ledger.RunID{Collection: collectionID(name), Run: run})
		}
		for _, id := range out.Touched {
			if !slices.Contains(got, id) {
				got = append(got, id)
			}
		}
		require.ElementsMatch(t, want, got, tt.line)
	}
}

// Outcomes carry what was reported.
func TestOutcomesCarryTheReport(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=2", "TaskStarted")
	id := collectionID("A")
	out, err := s.p.Apply(record(t, 0, 4, ledger.TaskSucceeded{
		CollectionID: id, Tenant: "default", Run: 1, TaskID: ledger.TaskID(id, ledger.KindTask, 0), AttemptID: 3, Worker: "w1",
		Result: []byte(`{"a":1}`), Message: "fine",
	}, nil))
	require.NoError(t, err)
	require.Len(t, out.Attempts, 1)
	require.Len(t, out.Tasks, 1)
	a, task := out.Attempts[0], out.Tasks[0]
	require.Equal(t, []string{"fine", `{"a":1}`, "fine", `{"a":1}`}, []string{a.Message, string(a.Result), task.Message, string(task.Result)})
	require.Equal(t, []int64{3000, 4000, 3000, 4000}, []int64{a.StartedMS, a.FinishedMS, task.StartedMS, task.FinishedMS})
}
