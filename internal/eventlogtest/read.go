package eventlogtest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
)

func (s *suite) readerStartsWhereTold(t *testing.T) {
	l, _ := s.open(t)
	for i := range 5 {
		appendAll(t, l, message(t, 0, i), message(t, 1, i))
	}
	whole := read(t, reader(t, l, beginning(0, 1)), 12)
	epoch := whole[0][2].LeaderEpoch

	got := read(t, reader(t, l, map[int32]eventlog.Start{
		0: {Offset: 3, LeaderEpoch: epoch}, 1: {Offset: 5, LeaderEpoch: -1},
	}), 4)
	require.Equal(t, whole[0][3:], got[0])
	require.Equal(t, whole[1][5:], got[1])

	// At the end a reader waits for what comes, and only as long as it may.
	r := reader(t, l, map[int32]eventlog.Start{0: {Offset: 6, LeaderEpoch: epoch}})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := r.Poll(ctx, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	began := time.Now()
	appendAll(t, l, message(t, 0, 6))
	require.Equal(t, int64(6), read(t, r, 1)[0][0].Offset)
	require.Less(t, time.Since(began), 3*time.Second, "a fetch that waits is answered at once")

	fetched, err := reader(t, l, beginning(0)).Poll(within(t, patience), 2)
	require.NoError(t, err)
	require.Len(t, fetched[0].Records, 2, "a poll brings no more than asked for")
	require.Equal(t, int64(7), fetched[0].HighWatermark)

	_, err = l.NewReader(eventlog.ReaderConfig{From: beginning(partitions)})
	require.Error(t, err)
	r.Close()
	_, err = r.Poll(t.Context(), 1)
	require.ErrorIs(t, err, eventlog.ErrClosed)
}

// A position that the log cannot have is lost history; other partitions are
// read on.
func (s *suite) readerNoticesLostHistory(t *testing.T) {
	l, _ := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 1, 1), message(t, 2, 1))
	for _, bad := range []eventlog.Start{
		{Offset: 500, LeaderEpoch: -1}, {Offset: 500, LeaderEpoch: 0}, // beyond the end
		{Offset: 2, LeaderEpoch: 1000}, // an epoch that never was
	} {
		r := reader(t, l, map[int32]eventlog.Start{0: {LeaderEpoch: -1}, 1: bad})
		gone, records := pollUntilOver(t, r)
		require.Len(t, gone, 1)
		require.ErrorIs(t, gone[1], eventlog.ErrDataLoss)
		for records < 2 {
			fetched, err := r.Poll(within(t, patience), 10)
			require.NoError(t, err)
			for _, f := range fetched {
				require.NoError(t, f.Err, "a partition that is over is not mentioned again")
				require.Zero(t, f.Partition)
				records += len(f.Records)
			}
		}
	}
}

// pollUntilOver polls until partitions are over. records is how many came of
// others.
func pollUntilOver(t *testing.T, r *eventlog.Reader) (gone map[int32]error, records int) {
	t.Helper()
	ctx := within(t, patience)
	gone = make(map[int32]error)
	for len(gone) == 0 {
		fetched, err := r.Poll(ctx, 10)
		require.NoError(t, err)
		for _, f := range fetched {
			if f.Err != nil {
				gone[f.Partition] = f.Err
				require.Empty(t, f.Records)
			}
			records += len(f.Records)
		}
	}
	return gone, records
}

func (s *suite) readerNoticesADeletedBeginning(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 0, 2), message(t, 0, 3))
	s.deleteBefore(t, cfg, 0, 2)
	gone, _ := pollUntilOver(t, reader(t, l, beginning(0)))
	require.ErrorIs(t, gone[0], eventlog.ErrDataLoss)
}

// Nothing is skipped when what comes next is gone by the time it is fetched.
func (s *suite) readerNoticesADeletedMiddle(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated := cfg
	gated.Dialer = gate.Dial
	r := reader(t, reopen(t, gated), beginning(0))
	read(t, r, 1)
	gate.Shut()
	appendAll(t, reopen(t, cfg), message(t, 0, 1), message(t, 0, 2), message(t, 0, 3))
	s.deleteBefore(t, cfg, 0, 3)
	gate.Unshut()
	gone, records := pollUntilOver(t, r)
	require.ErrorIs(t, gone[0], eventlog.ErrDataLoss)
	require.Zero(t, records)
}

// A topic that was deleted and created again has other records at the same
// offsets.
func (s *suite) readerNoticesANewTopic(t *testing.T) {
	l, cfg := s.open(t)
	r := reader(t, l, beginning(0))
	read(t, r, 1)
	admin := s.admin(t)
	_, err := admin.DeleteTopic(t.Context(), topic(cfg))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := admin.CreateTopic(t.Context(), partitions, -1, map[string]*string{
			"message.timestamp.type": new("LogAppendTime"),
		}, topic(cfg))
		return err == nil
	}, patience, 100*time.Millisecond)
	began := time.Now()
	gone, records := pollUntilOver(t, r)
	require.ErrorIs(t, gone[0], eventlog.ErrDataLoss)
	require.Zero(t, records)
	require.Less(t, time.Since(began), 10*time.Second, "a new topic is not waited for like one that is gone")
	require.ErrorIs(t, l.Ready(within(t, patience)), eventlog.ErrDataLoss)
}

// A reader neither ends nor hurries while the brokers are away.
func (s *suite) readerWaitsForBrokers(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated := cfg
	gated.Dialer = gate.Dial
	lines := countLines(cfg.Logger)
	gated.Logger = slog.New(lines)
	l := reopen(t, gated)
	r := reader(t, l, beginning(0))
	outsider := reopen(t, cfg)
	// The first outage comes before the first fetch, the second during one.
	for outage := range 2 {
		gate.Shut()
		before := gate.Dials()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := r.Poll(ctx, 10)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, gate.Dials()-before, 100, "brokers that are away are asked with pauses")
		appendAll(t, outsider, message(t, 0, outage))
		gate.Unshut()
		read(t, r, []int{2, 1}[outage])
	}
	lines.most(t, 2)
}

// lineCounter counts the warnings and errors that are logged, by message and
// broker.
type lineCounter struct {
	slog.Handler
	mu       sync.Mutex
	warnings map[string]int
}

func countLines(logger *slog.Logger) *lineCounter {
	return &lineCounter{Handler: logger.Handler(), warnings: make(map[string]int)}
}

// most checks that outages were logged: each kind of trouble at least once, and
// not at every try.
func (c *lineCounter) most(t *testing.T, outages int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.NotEmpty(t, c.warnings)
	for line, n := range c.warnings {
		require.LessOrEqual(t, n, outages, "logged at every try: %s", line)
	}
}

func (c *lineCounter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		line := r.Message
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "broker" {
				line += " " + a.Value.String()
			}
			return true
		})
		c.mu.Lock()
		c.warnings[line]++
		c.mu.Unlock()
	}
	return c.Handler.Handle(ctx, r)
}
