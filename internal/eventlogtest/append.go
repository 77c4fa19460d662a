package eventlogtest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// What is appended without waiting lands in the order of the calls, partition
// by partition, and is acknowledged once, with the offset it has.
func (s *suite) appendsKeepTheirOrder(t *testing.T) {
	l, _ := s.open(t)
	const n = 2000
	sent := make(map[int32][]ledger.Message)
	acked := make(map[int32][]int64)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		p := int32(i % partitions)
		msg := message(t, p, i)
		sent[p] = append(sent[p], msg)
		wg.Add(1)
		l.Append(msg, func(offset int64, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				acked[p] = append(acked[p], offset)
			}
		})
	}
	wg.Wait()
	got := read(t, reader(t, l, beginning(0, 1, 2)), n+partitions)
	for p := range int32(partitions) {
		records := got[p][1:] // behind the genesis
		require.Len(t, records, len(sent[p]))
		require.Len(t, acked[p], len(sent[p]))
		for i, r := range records {
			require.Equal(t, int64(i+1), r.Offset)
			require.Equal(t, r.Offset, acked[p][i])
			require.Equal(t, sent[p][i].Value, r.Value)
		}
	}
}

func (s *suite) recordsComeBackAsTheyWere(t *testing.T) {
	l, _ := s.open(t)
	before := time.Now().Add(-time.Minute).UnixMilli()
	msg := message(t, 2, 1)
	msg.Headers = append(msg.Headers, ledger.Header{Key: ledger.HeaderTraceparent, Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")})
	large := message(t, 2, 2)
	large.Value = make([]byte, ledger.MaxEventBytes)
	appendAll(t, l, msg, large)

	records := read(t, reader(t, l, beginning(2)), 3)[2]
	opened, err := ledger.Decode(records[0])
	require.NoError(t, err)
	require.Equal(t, ledger.LedgerOpened{
		LedgerID: l.Info().LedgerID, Partitions: partitions, Rules: ledger.Rules, Window: window,
	}, opened.Event)
	r := records[1]
	require.Equal(t, int32(2), r.Partition)
	require.Equal(t, int64(1), r.Offset)
	require.GreaterOrEqual(t, r.LeaderEpoch, int32(0))
	require.Equal(t, msg.Key, r.Key)
	require.Equal(t, msg.Value, r.Value)
	require.Equal(t, msg.Headers, r.Headers)
	require.Greater(t, r.TimeMS, before)
	env, err := ledger.Decode(r)
	require.NoError(t, err)
	require.Equal(t, msg.EventID, env.EventID)
	require.Equal(t, large.Value, records[2].Value)
}

// The broker must not be clever about equal records: the fold decides.
func (s *suite) repeatedAppendsAreTwoRecords(t *testing.T) {
	l, _ := s.open(t)
	msg := message(t, 0, 1)
	appendAll(t, l, msg, msg)
	records := read(t, reader(t, l, beginning(0)), 3)[0]
	require.Equal(t, records[1].Value, records[2].Value)
	require.Equal(t, records[1].Headers, records[2].Headers)
}

// A deadline ends the waiting, not the record.
func (s *suite) outcomeUnknownMayLand(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated := cfg
	gated.Dialer = gate.Dial
	l := reopen(t, gated)
	appendAll(t, l, message(t, 0, 1)) // connections and leaders are known now

	gate.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := l.AppendWait(ctx, message(t, 0, 2))
	require.Less(t, time.Since(began), 2*time.Second, "the deadline is kept")
	require.ErrorIs(t, err, eventlog.ErrOutcomeUnknown)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var unknown interface{ OutcomeUnknown() bool }
	require.ErrorAs(t, err, &unknown)
	require.True(t, unknown.OutcomeUnknown())

	// It has landed already, or will: the other Log sees it.
	read(t, reader(t, reopen(t, cfg), beginning(0)), 3)
	gate.Release()
	appendAll(t, l, message(t, 0, 3))
	records := read(t, reader(t, l, beginning(0)), 4)[0]
	require.Len(t, records, 4, "it landed once")
}

// Beyond the buffer's bound an append is refused at once and for good; what was
// taken before is kept.
func (s *suite) overloadRefuses(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated := cfg
	gated.Dialer = gate.Dial
	l := reopen(t, gated)
	appendAll(t, l, message(t, 0, 0))

	gate.Hold()
	msg := message(t, 0, 1)
	msg.Value = make([]byte, ledger.MaxEventBytes) // fills the buffer soon
	var taken, refused atomic.Int64
	var wrong atomic.Pointer[error]
	var wg sync.WaitGroup
	for refused.Load() == 0 {
		wg.Add(1)
		l.Append(msg, func(_ int64, err error) {
			defer wg.Done()
			var overloaded interface{ Overloaded() bool }
			switch {
			case err == nil:
				taken.Add(1)
			case errors.Is(err, eventlog.ErrOverloaded) && errors.As(err, &overloaded) && overloaded.Overloaded():
				refused.Add(1)
			default:
				wrong.Store(&err)
			}
		})
	}
	gate.Release()
	wg.Wait()
	require.Nil(t, wrong.Load())
	require.Positive(t, taken.Load())
	require.Less(t, taken.Load(), int64(1000), "bytes count, not only records")
	end, err := reopen(t, cfg).Ends(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2+taken.Load(), end[0], "what was refused did not land")
}

// While the brokers are away appends wait; nobody gives them up.
func (s *suite) recordsOutliveAnOutage(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	cfg.Dialer = gate.Dial
	lines := countLines(cfg.Logger)
	cfg.Logger = slog.New(lines)
	l := reopen(t, cfg)
	// The first outage comes before the producer knows a leader.
	outages := []func(){gate.HangUp, gate.Shut, gate.HangUp}
	for _, begin := range outages {
		before := gate.Dials()
		begin()
		require.Error(t, l.Ready(within(t, 200*time.Millisecond)))
		results := make(chan error, 10)
		for i := range cap(results) {
			l.Append(message(t, int32(i%partitions), i), func(_ int64, err error) { results <- err })
		}
		select {
		case err := <-results:
			require.Fail(t, "an append ended during the outage", "%v", err)
		case <-time.After(2500 * time.Millisecond):
		}
		dials := gate.Dials() - before
		gate.Unshut()
		for range cap(results) {
			require.NoError(t, <-results)
		}
		require.Less(t, dials, 500, "brokers that are away are asked with pauses; without, thousands of times")
	}
	require.NoError(t, l.Ready(within(t, patience)))
	lines.most(t, len(outages))
	read(t, reader(t, l, beginning(0, 1, 2)), 10*len(outages)+partitions)
}

func (s *suite) endsAreLearnt(t *testing.T) {
	l, cfg := s.open(t)
	end, err := l.End(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, int64(1), end)
	for i := range 3 {
		appendAll(t, l, message(t, 1, i))
		end, err = l.End(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, int64(i+2), end, "an acknowledgment is news")
	}
	// What others append is known a second later at the latest.
	appendAll(t, reopen(t, cfg), message(t, 1, 9))
	require.Eventually(t, func() bool {
		end, err = l.End(t.Context(), 1)
		return err == nil && end == 5
	}, patience, 50*time.Millisecond)
	_, err = l.End(t.Context(), partitions)
	require.Error(t, err)
}
