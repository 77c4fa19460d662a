package history_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

func make2(t *testing.T, o history.Options) [][]ledger.Record {
	t.Helper()
	o.LedgerID = uuid.MustParse("0197a1b2-0000-7000-8000-00000000c0de")
	logs, err := history.Make(o)
	require.NoError(t, err)
	return logs
}

// Without trouble every record is accepted and every chain succeeds, in eleven
// records where it has five tasks.
func TestMakeHonest(t *testing.T) {
	t.Parallel()
	logs := make2(t, history.Options{Seed: 1, Partitions: 3, Chains: 20, Tasks: 5})
	ended, records := 0, 0
	for i, log := range logs {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			o, err := fold.Apply(r)
			require.NoError(t, err)
			require.Equal(t, ledger.Accepted, o.Verdict, o.Reason)
			for _, c := range o.Collections {
				if c.Status == ledger.StatusSucceeded {
					ended++
				}
			}
		}
		require.Zero(t, fold.Active())
		records += len(log)
	}
	require.Equal(t, 20, ended)
	require.Equal(t, 20*11+3*2, records, "with a genesis and a claim in each partition")
}

// With trouble every verdict and every way a run can end is there, and whatever
// else a reader has to get right.
func TestMakeTrouble(t *testing.T) {
	t.Parallel()
	o := history.Options{Seed: 1, Partitions: 2, Chains: 100, Tasks: 5, Trouble: true}
	s := sights{seen: map[string]bool{}, deferred: map[string]bool{}, lane: map[uuid.UUID]string{}, active: map[string]int{}, run: map[uuid.UUID]int{}}
	for i, log := range make2(t, o) {
		fold := ledger.NewPartition(int32(i))
		for _, r := range log {
			o, err := fold.Apply(r)
			require.NoError(t, err)
			s.seen[string(o.Verdict)] = true
			if o.Verdict == ledger.Accepted {
				s.look(o)
			}
		}
		require.Zero(t, fold.Active())
		require.Zero(t, fold.Ending())
	}
	for _, want := range []string{
		"accepted", "duplicate", "stale", "invalid", "foreign", "run succeeded", "run failed", "run canceled", "run 2",
		"task succeeded", "task failed", "task superseded", "task deferred", "task not_started",
		"finally succeeded", "finally failed", "finally superseded", "finally deferred", "finally not_started",
		"by claim lost", "by claim interrupted", "by claim timeout", "by claim canceled",
		"two in a lane", "outcome of a deferred attempt", "cancel with an open attempt", "finally task beside the next run",
		"release", "release that ends a run",
	} {
		require.True(t, s.seen[want], want)
	}
	one, two := make2(t, o), make2(t, o)
	require.Equal(t, one, two, "the same options give the same records")
}

// sights are what a history has shown.
type sights struct {
	seen     map[string]bool
	deferred map[string]bool // attempts
	lane     map[uuid.UUID]string
	active   map[string]int // collections by lane
	run      map[uuid.UUID]int
}

func (s *sights) note(ok bool, what string) { s.seen[what] = s.seen[what] || ok }

// look takes in an accepted record.
func (s *sights) look(o ledger.Outcome) {
	switch e := o.Event.(type) {
	case ledger.CollectionCreated:
		s.lane[e.CollectionID] = e.Tenant + " " + e.OrderingKey
	case ledger.TaskSucceeded:
		s.note(s.deferred[e.TaskID.String()+" "+strconv.FormatInt(e.AttemptID, 10)], "outcome of a deferred attempt")
	case ledger.TaskFailed:
		s.note(e.ByClaim != nil, "by claim "+e.Error.Code)
	case ledger.CancelRequested:
		s.note(len(o.Runs) == 0, "cancel with an open attempt")
	case ledger.PartitionReleased:
		s.note(true, "release")
		s.note(len(o.Runs) > 0, "release that ends a run")
	default:
	}
	for _, a := range o.Attempts {
		s.note(true, string(a.TaskKind)+" "+string(a.Status))
		s.note(a.TaskKind == ledger.KindFinally && a.Run < s.run[a.Collection], "finally task beside the next run")
		if a.Status == ledger.StatusDeferred {
			s.deferred[a.TaskID.String()+" "+strconv.FormatInt(a.ID, 10)] = true
		}
	}
	for _, c := range o.Collections {
		s.note(true, "run "+string(c.Status))
		s.note(true, "run "+strconv.Itoa(c.Run))
		s.lookAtLane(c)
	}
}

func (s *sights) lookAtLane(c ledger.CollectionChange) {
	lane := s.lane[c.ID]
	switch c.Status {
	case ledger.StatusPending:
		s.run[c.ID] = c.Run
		s.active[lane]++
		s.note(!strings.HasSuffix(lane, " ") && s.active[lane] > 1, "two in a lane")
	case ledger.StatusRunning:
	default:
		s.active[lane]--
	}
}
