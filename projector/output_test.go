package projector_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/projector"
)

// An attempt says things in one partition.
type attempt struct {
	w         *world
	partition int32
	id        int64
	seq       int64
}

func (a *attempt) record(entries ...eventlog.OutputEntry) eventlog.OutputRecord {
	collection := ledger.NewCollectionID(a.partition, time.Now(), [8]byte{1})
	for i := range entries {
		entries[i].Seq, entries[i].At = a.seq, time.Now()
		a.seq++
	}
	return eventlog.OutputRecord{
		CollectionID: collection, TaskID: ledger.TaskID(collection, ledger.KindTask, 0), Run: 1, AttemptID: a.id, Entries: entries,
	}
}

func (a *attempt) say(t *testing.T, entries ...eventlog.OutputEntry) {
	t.Helper()
	value, err := eventlog.EncodeOutput(a.record(entries...))
	require.NoError(t, err)
	a.w.log.AppendOutput(a.partition, nil, value)
}

// lines says n lines, then a progress by which a test knows that all are there.
func (a *attempt) lines(t *testing.T, n, percent int) {
	t.Helper()
	for i := range n {
		a.say(t, eventlog.OutputEntry{Kind: eventlog.OutputLine, Text: fmt.Sprint("line ", i)})
	}
	a.say(t, eventlog.OutputEntry{Kind: eventlog.OutputProgress, Percent: percent, Text: "said"})
}

func (a *attempt) awaitProgress(t *testing.T, s *readmodel.Store, percent int) {
	t.Helper()
	require.Eventually(t, func() bool {
		p, err := s.Progress(t.Context(), a.partition, []int64{a.id})
		return err == nil && p[a.id].Percent == percent
	}, patience, pollEvery)
}

// kept counts the lines in the tables.
func (w *world) kept(t *testing.T, partition int32, attempt int64) (n int) {
	t.Helper()
	w.sql(t, func(c *pgx.Conn) error {
		return c.QueryRow(t.Context(), `select count(*) from keten_output.lines where partition = $1 and attempt_id = $2`, partition, attempt).Scan(&n)
	})
	return n
}

func (w *world) sql(t *testing.T, do func(*pgx.Conn) error) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), w.url)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(t.Context())) }()
	require.NoError(t, do(c))
}

// What tasks say comes into the tables, of all partitions, whatever stands
// between; a projector goes on where the one before was ended.
func TestOutputIsProjected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	r := w.start(t, s, nil)
	a, b := &attempt{w: w, partition: 0, id: 5}, &attempt{w: w, partition: 2, id: 5}
	a.lines(t, 20, 10)
	a.w.log.AppendOutput(0, nil, []byte("garbage"))
	value, err := eventlog.EncodeOutput(b.record(eventlog.OutputEntry{Kind: eventlog.OutputLine, Text: "astray"}))
	require.NoError(t, err)
	w.log.AppendOutput(1, nil, value)
	b.lines(t, 3, 20)
	a.awaitProgress(t, s, 10)
	b.awaitProgress(t, s, 20)
	require.Eventually(t, func() bool {
		return r.metric(t, "keten_projector_output_records_total", "result", "unreadable") == 2
	}, patience, pollEvery)
	require.InDelta(t, 25, r.metric(t, "keten_projector_output_records_total", "result", "stored"), 0)
	require.Zero(t, w.kept(t, 1, 5))
	r.stop(t)

	a.lines(t, 1_100, 30)
	r = w.start(t, s, nil)
	a.awaitProgress(t, s, 30)
	require.Equal(t, eventlog.MaxOutputLines, w.kept(t, 0, 5), "what is too much is cut")
	require.Equal(t, 3, w.kept(t, 2, 5))
	require.NotContains(t, r.log.String(), "output")
}

// A record whose run no column can hold is passed over, and the output of others
// goes on.
func TestOutputOutOfRangeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	r := w.start(t, s, nil)
	a, b := &attempt{w: w, partition: 0, id: 5}, &attempt{w: w, partition: 2, id: 5}
	record := a.record(eventlog.OutputEntry{Kind: eventlog.OutputLine, Text: "x"})
	record.Run = 1 << 40
	value, err := eventlog.EncodeOutput(record)
	require.NoError(t, err)
	w.log.AppendOutput(0, nil, value)
	a.lines(t, 1, 10)
	b.lines(t, 3, 20)
	a.awaitProgress(t, s, 10)
	b.awaitProgress(t, s, 20)
	require.Eventually(t, func() bool {
		return r.metric(t, "keten_projector_output_records_total", "result", "unreadable") == 1
	}, patience, pollEvery)
}

// Of a batch that PostgreSQL refuses only the records go that it refuses.
func TestOutputThatIsRefusedCostsOthersNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	w.sql(t, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `alter table keten_output.lines add check (text <> 'line 7')`)
		return err
	})
	a, b := &attempt{w: w, partition: 0, id: 5}, &attempt{w: w, partition: 2, id: 6}
	a.lines(t, 20, 10)
	b.lines(t, 5, 20)
	a.lines(t, 20, 30)
	r := w.start(t, s, nil) // all of it is there, so that it is read at once
	a.awaitProgress(t, s, 30)
	b.awaitProgress(t, s, 20)
	require.Equal(t, 38, w.kept(t, 0, 5))
	require.Equal(t, 5, w.kept(t, 2, 6))
	b.lines(t, 1, 40)
	b.awaitProgress(t, s, 40)
	require.InDelta(t, 2, r.metric(t, "keten_projector_output_records_total", "result", "refused"), 0)
	require.Eventually(t, func() bool {
		return r.metric(t, "keten_projector_output_records_total", "result", "stored") == 48
	}, patience, pollEvery)
	require.Contains(t, r.log.String(), "output of tasks was refused and is left out")
	require.NotContains(t, r.log.String(), "output of tasks is not shown")
}

// The tables may be dropped as the reference says: who starts makes them again,
// and what the topic has comes back.
func TestOutputTablesAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	r := w.start(t, s, nil)
	a := &attempt{w: w, id: 9}
	a.lines(t, 10, 1)
	a.awaitProgress(t, s, 1)
	r.stop(t)
	w.sql(t, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `drop schema keten_output cascade`)
		return err
	})
	require.ErrorIs(t, s.Ready(t.Context()), readmodel.ErrNotMigrated)
	s = w.open(t, w.url, "") // a new process
	require.NoError(t, s.Ready(t.Context()))
	w.start(t, s, nil)
	a.awaitProgress(t, s, 1)
	require.Equal(t, 10, w.kept(t, 0, 9))
}

// Of two projectors either writes, and when one ends the other goes on.
func TestOutputOfTwoProjectors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	first, second := w.start(t, s, nil), w.start(t, w.open(t, w.url, ""), nil)
	attempts := make([]*attempt, partitions)
	for p := range attempts {
		attempts[p] = &attempt{w: w, partition: int32(p), id: 7}
	}
	for round := range 8 {
		for _, a := range attempts {
			a.lines(t, 10, round+1)
		}
		if round == 4 {
			first.stop(t)
		}
		for _, a := range attempts {
			a.awaitProgress(t, s, round+1)
		}
	}
	for _, a := range attempts {
		require.Equal(t, 80, w.kept(t, a.partition, a.id))
	}
	require.NotContains(t, second.log.String(), "output of tasks")
}

// Whatever befalls the output, the ledger is projected and the projector ready;
// the trouble is logged once, and when it is over output is shown again.
func TestOutputHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	r := w.start(t, s, nil)
	a := &attempt{w: w, id: 9}
	a.lines(t, 1, 1)
	a.awaitProgress(t, s, 1)
	w.sql(t, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `alter table keten_output.lines rename to elsewhere`)
		return err
	})
	a.lines(t, 1, 2)
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), "output of tasks is not shown for now") }, patience, pollEvery)
	w.append(t, w.history(t, history.Options{Seed: 1, Chains: 20, Tasks: 3}))
	w.awaitEnd(t, s)
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
	w.sql(t, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `alter table keten_output.elsewhere rename to lines`)
		return err
	})
	a.awaitProgress(t, s, 2)
	require.Equal(t, 2, w.kept(t, 0, 9))
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), "output of tasks is shown again") }, patience, pollEvery)
	require.Equal(t, 1, strings.Count(r.log.String(), "output of tasks is not shown for now"))
	equalDumps(t, w.want(t), dump(t, s))
}

// The topic may be deleted at any time: what was said before is kept, what is
// said later is shown.
func TestOutputTopicIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	r := w.start(t, s, nil)
	a := &attempt{w: w, id: 9}
	a.lines(t, 10, 1)
	a.awaitProgress(t, s, 1)
	r.stop(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...))
	require.NoError(t, err)
	defer client.Close()
	_, err = kadm.NewClient(client).DeleteTopic(t.Context(), w.config.Prefix+".output")
	require.NoError(t, err)
	w.log.Close() // a new process
	w.log, err = eventlog.Open(t.Context(), w.config)
	require.NoError(t, err)
	t.Cleanup(w.log.Close)
	r = w.start(t, s, nil)
	a.lines(t, 2, 3)
	a.awaitProgress(t, s, 3)
	require.Equal(t, 12, w.kept(t, 0, 9))
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
}

// Output goes after 45 days.
func TestOldOutputIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	_, err := s.OutputPositions(t.Context(), w.log.Info().LedgerID, partitions)
	require.NoError(t, err)
	var entries []readmodel.OutputEntry
	for i := range 250 {
		age := 44 * 24 * time.Hour
		if i > 0 {
			age = 46 * 24 * time.Hour
		}
		entries = append(entries, readmodel.OutputEntry{
			Partition: 1, AttemptID: int64(i), CollectionID: uuid.New(), TaskID: uuid.New(), Run: 1,
			Kind: readmodel.OutputLine, Text: "x", At: time.Now(), RecordedAt: time.Now().Add(-age),
		})
	}
	require.NoError(t, s.WriteOutput(t.Context(), []readmodel.OutputMove{{Partition: 1, From: 0, Next: 0}}, entries,
		readmodel.OutputCaps{Lines: 10, Bytes: 1000}))
	w.start(t, s, func(cfg *projector.Config) { cfg.RetentionEvery = 20 * time.Millisecond })
	require.Eventually(t, func() bool { return w.kept(t, 1, 249) == 0 && w.kept(t, 1, 1) == 0 }, patience, pollEvery)
	require.Equal(t, 1, w.kept(t, 1, 0))
}
