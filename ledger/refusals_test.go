package ledger_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// Where several things speak against a record, the reason is always the same
// one: callers act on it.
func TestOrderOfReasons(t *testing.T) {
	t.Parallel()
	begin := []string{"LedgerOpened window=10", "PartitionClaimed worker=w1", "CollectionCreated tasks=2"}
	running := slices.Concat(begin, []string{"TaskStarted"})
	tests := map[string]struct {
		lines      []string
		line, want string
	}{
		"a duplicate is one, however old its as_of":           {begin, "CollectionCreated as_of=0", "3 duplicate"},
		"a duplicate is one, however far ahead its as_of":     {begin, "CollectionCreated as_of=99", "3 duplicate"},
		"active is final, a window would be decided again":    {append(begin[:3:3], "at 30"), "RetryRequested as_of=0", "30 stale(active)"},
		"changed is final, a window would be decided again":   {append(begin[:3:3], "at 25", "CancelRequested", "at 30"), "RetryRequested as_of=0", "30 stale(changed)"},
		"ahead is lost history, whoever is active":            {begin, "RetryRequested as_of=99", "3 stale(ahead)"},
		"ahead is lost history, whatever has ended":           {append(begin[:3:3], "CancelRequested", "RetryRequested", "CancelRequested run=2"), "RetryRequested run=2 as_of=7", "6 stale(ahead)"},
		"canceled comes before the attempt's number":          {append(running[:4:4], "CancelRequested"), "TaskStarted attempt=1", "5 stale(canceled)"},
		"canceled comes before the claim":                     {append(running[:4:4], "CancelRequested"), "TaskStarted attempt=2 claim=0", "5 stale(canceled)"},
		"the task comes before the claim":                     {begin, "TaskStarted t=1 claim=0", "3 stale(attempt)"},
		"the lane comes before the claim":                     {append(begin[:2:2], "CollectionCreated c=B lane=x", "CollectionCreated lane=x"), "TaskStarted claim=0", "4 stale(lane)"},
		"the claim comes before the attempt's number":         {begin, "TaskStarted attempt=2 worker=w2", "3 stale(claim)"},
		"the attempt's number comes before deferred":          {append(running[:4:4], "TaskDeferred id=3"), "TaskStarted attempt=1", "5 stale(attempt)"},
		"the attempt comes before the worker":                 {running, "TaskSucceeded id=2 worker=w2", "4 stale(attempt)"},
		"the claim comes before deferred":                     {append(running[:4:4], "TaskDeferred id=3"), "TaskFailed id=3 by=0 code=lost", "5 stale(claim)"},
		"a closed run comes before its tenant":                {begin, "CancelRequested run=2 tenant=other", "3 stale(closed)"},
		"the worker comes before a deferral that is there":    {append(running[:4:4], "TaskDeferred id=3"), "TaskDeferred id=3 worker=w2", "5 stale(attempt)"},
		"a release's worker comes before what is there":       {append(begin[:3:3], "PartitionReleased claim=1"), "PartitionReleased claim=1 worker=w2", "4 stale(claim)"},
		"a creation's partition comes before all else":        {append([]string{"LedgerOpened partitions=12"}, "CollectionCreated"), "CollectionCreated lane=shop as_of=99", "2 invalid(/collection_id: carries another partition than its keys)"},
		"a retry's partition comes before all else":           {append([]string{"LedgerOpened partitions=12"}, "CollectionCreated"), "RetryRequested lane=shop as_of=99", "2 invalid(/ordering_key: belongs to another partition)"},
		"what never was open has no attempt 0":                {begin, "TaskFailed id=0 by=1 code=timeout", "3 stale(attempt)"},
		"a queue that nobody claimed cannot be released":      {begin, "PartitionReleased queue=gpu claim=0", "3 stale(claim)"},
		"a claim that is yet to come cannot be released":      {begin, "PartitionReleased claim=3", "3 stale(claim)"},
		"a claim before the first one cannot be released":     {begin, "PartitionReleased claim=0", "3 accepted"},
		"by_claim is the claim of the task's queue":           {append(begin[:2:2], "PartitionClaimed queue=gpu worker=w1", "CollectionCreated queue=gpu", "TaskStarted claim=2"), "TaskFailed id=4 by=1 code=lost", "5 stale(claim)"},
		"an outcome of an ended run":                          {append(running[:4:4], "TaskFailed id=3"), "TaskSucceeded id=3", "5 stale(closed)"},
		"another run's task":                                  {running, "TaskSucceeded id=3 run=2", "4 stale(closed)"},
		"the outcome of the task before":                      {append(running[:4:4], "TaskSucceeded id=3", "TaskStarted t=1"), "TaskSucceeded id=5 t=0", "6 stale(attempt)"},
		"a cancel of the run before":                          {append(begin[:3:3], "CancelRequested", "RetryRequested"), "CancelRequested run=1", "5 stale(closed)"},
		"an accepted genesis, other words":                    {begin, "LedgerOpened window=11", "3 duplicate"},
		"a start under a claim of its worker that is no more": {append(begin[:3:3], "PartitionClaimed worker=w1 prev=1"), "TaskStarted claim=1", "4 stale(claim)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, told(t, tt.lines...).do(tt.line))
		})
	}
}

// Sixty-four queues have claims, and may change hands; there is no other.
func TestQueuesAreBounded(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened")
	for i := range ledger.MaxQueues {
		s.tell(fmt.Sprintf("PartitionClaimed queue=q%d", i))
	}
	require.Equal(t, "65 invalid(the partition has 64 queues already)", s.do("PartitionClaimed queue=another"))
	require.Equal(t, "66 invalid(the partition has 64 queues already)", s.do("PartitionClaimed queue=another prev=7"), "invalid comes before stale")
	s.tell("PartitionClaimed queue=q0 prev=1 worker=w2", "PartitionReleased queue=q63 claim=64")
	s.tell("PartitionClaimed queue=q63 prev=64 worker=w2")
	require.Equal(t, "70 invalid(the partition has 64 queues already)", s.do("PartitionClaimed queue=another"))
}

// A claim names the one it replaces, no earlier and no later one, also when that
// was released; then it holds.
func TestClaimsNameTheOneTheyReplace(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed worker=w1", "PartitionClaimed worker=w2 prev=1", "PartitionReleased claim=2 worker=w2", "CollectionCreated")
	for _, prev := range []int{-1, 0, 1, 3, 99} {
		require.Contains(t, s.do("PartitionClaimed worker=w3 prev="+strconv.Itoa(prev)), "stale(claim)", "%d", prev)
	}
	at := s.offset
	s.tell("PartitionClaimed worker=w3 prev=2")
	c, ok := s.p.Claim("default")
	require.True(t, ok)
	require.Equal(t, ledger.Claim{Offset: at, Worker: "w3"}, c)
	s.tell("TaskStarted worker=w3 claim=" + strconv.FormatInt(at, 10))
}

// Records come once, in order, and of one partition: a reader that feeds others
// stops before it has changed anything.
func TestApplyTakesRecordsInOrder(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened", "PartitionClaimed")
	before := s.p.StateHash()
	var halt *ledger.HaltError
	for name, r := range map[string]ledger.Record{
		"an earlier offset":          {Offset: 1},
		"a record of another fold's": {Partition: 1, Offset: 2},
		"an unknown type":            {Offset: 2, Headers: []ledger.Header{{Key: ledger.HeaderType, Value: []byte("keten.v1.TaskSkipped")}}},
	} {
		_, err := s.p.Apply(r)
		require.ErrorAs(t, err, &halt, name)
		require.Equal(t, before, s.p.StateHash(), name)
	}
}

// What a fold knows of its last record, and of the ledger.
func TestFoldKnowsWhereItStands(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened partitions=12 window=7")
	r := ledger.Record{Offset: 5, LeaderEpoch: 3, TimeMS: 77, Value: []byte("tick")}
	out, err := s.p.Apply(r)
	require.NoError(t, err)
	require.Equal(t, ledger.RecordHash(r), out.Hash)
	require.EqualValues(t, 5, out.Offset)
	require.EqualValues(t, 77, out.TimeMS)
	for _, p := range []*ledger.Partition{s.p, restored(t, s.p)} {
		require.EqualValues(t, 6, p.Position())
		require.EqualValues(t, 3, p.LeaderEpoch())
		require.Equal(t, ledger.RecordHash(r), p.LastHash())
		require.NotEqual(t, p.LastHash(), p.ChainHash())
		id, partitions, window, ok := p.Opened()
		require.True(t, ok)
		require.Equal(t, "018c0000-0000-4000-8000-000000000001", id.String())
		require.EqualValues(t, 12, partitions)
		require.EqualValues(t, 7, window)
	}
}

// Every earlier record is in the chain hash, not only the last.
func TestChainHashIsOverAllRecords(t *testing.T) {
	t.Parallel()
	fold := func(first string) [32]byte {
		p := ledger.NewPartition(0)
		for i, text := range []string{first, "second", "third"} {
			_, err := p.Apply(ledger.Record{Offset: int64(i), Value: []byte(text)})
			require.NoError(t, err)
		}
		return p.ChainHash()
	}
	require.NotEqual(t, fold("a"), fold("b"))
}
