package ledger_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// told replays lines of a transcript, each of which is accepted.
func told(t *testing.T, lines ...string) *stream {
	t.Helper()
	s := &stream{t: t, p: ledger.NewPartition(0), names: map[uuid.UUID]string{}}
	s.tell(lines...)
	return s
}

func (s *stream) tell(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		want := " accepted"
		if strings.HasPrefix(line, "at ") {
			want = "ok"
		}
		require.Contains(s.t, s.do(line), want, line)
	}
}

// pass folds foreign records up to an offset, so that every one of them has
// moved the window.
func (s *stream) pass(offset int64) {
	for s.offset < offset {
		s.do("LedgerOpened foreign=1")
	}
}

// The window's edges, every one around one end: at offset o an as_of from o−W to
// o will do, and an end at o−W or later speaks against a creation, and against a
// retry with an as_of that is no later than it. Honest authors never come near
// the edges: no simulation finds a slip here.
func TestWindowEdges(t *testing.T) {
	t.Parallel()
	const window, ended = 5, 2
	want := func(command string, o, asOf int64) string {
		remembered := ended >= o-window
		switch {
		case command == "CollectionCreated" && remembered:
			return "duplicate"
		case command == "RetryRequested" && asOf > o:
			return "stale(ahead)"
		case command == "RetryRequested" && remembered && ended >= asOf:
			return "stale(changed)"
		case asOf > o:
			return "stale(ahead)"
		case asOf < o-window:
			return "stale(window)"
		}
		return "accepted A run" + map[string]string{"CollectionCreated": "1", "RetryRequested": "2"}[command] + " pending"
	}
	for _, command := range []string{"CollectionCreated", "RetryRequested"} {
		for o := int64(ended + 1); o <= ended+2*window; o++ {
			asOfs := []int64{1<<62 - 1, 1<<62 + 1, 1<<63 - 1}
			for asOf := int64(0); asOf <= o+2; asOf++ {
				asOfs = append(asOfs, asOf)
			}
			for _, asOf := range asOfs {
				for _, snapshot := range []bool{false, true} {
					s := told(t, fmt.Sprintf("LedgerOpened window=%d", window), "CollectionCreated", "CancelRequested")
					s.pass(o)
					if snapshot {
						s.p = restored(t, s.p)
					}
					line := fmt.Sprintf("%s as_of=%d", command, asOf)
					require.Equal(t, fmt.Sprintf("%d %s", o, want(command, o, asOf)), s.do(line), line)
				}
			}
		}
	}
}

// A collection that has ended again is remembered by its later end, also when
// the earlier one leaves the window.
func TestWindowKeepsTheLaterEnd(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened window=5", "CollectionCreated", "CancelRequested", "RetryRequested as_of=3", "CancelRequested run=2")
	s.pass(9) // 9−5 = 4: the end at 2 is forgotten, that at 4 is not
	require.Equal(t, "9 stale(changed)", s.do("RetryRequested run=3 as_of=4"))
	require.Equal(t, "10 stale(window)", s.do("RetryRequested run=3 as_of=4"))
}

// Many ends: the window forgets exactly what is too old, and makes room.
func TestWindowOfManyEnds(t *testing.T) {
	t.Parallel()
	const window = 300
	s := told(t, "LedgerOpened window="+strconv.Itoa(window))
	end := map[string]int64{}
	for i := range 500 {
		key := "k" + strconv.Itoa(i)
		s.tell("CollectionCreated key="+key, "CancelRequested key="+key)
		end[key] = s.offset - 1
	}
	require.LessOrEqual(t, s.p.RememberedEnds(), window+64)
	// Those that have left the window may be created again, as far as it knows.
	for i := range 500 {
		key := "k" + strconv.Itoa(i)
		want := "duplicate"
		if end[key] < s.offset-window {
			want = "accepted A run1 pending"
		}
		at := s.offset
		require.Equal(t, fmt.Sprintf("%d %s", at, want), s.do("CollectionCreated key="+key), "ended at %d", end[key])
	}
}

// Lanes that are empty are forgotten.
func TestEmptyLanesAreForgotten(t *testing.T) {
	t.Parallel()
	s := told(t, "LedgerOpened")
	for i := range 100 {
		s.tell(fmt.Sprintf("CollectionCreated lane=l%d key=k%d", i, i), fmt.Sprintf("CancelRequested lane=l%d key=k%d", i, i))
	}
	require.Zero(t, s.p.Lanes())
}
