package projector_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/projector"
)

func troubled(seed uint64, chains int) history.Options {
	return history.Options{Seed: seed, Chains: chains, Tasks: 5, Concurrent: 6, Trouble: true}
}

func TestRunProjectsTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	w.append(t, w.history(t, troubled(1, 60)))
	r := w.start(t, s, nil)
	w.awaitEnd(t, s)
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
	equalDumps(t, w.want(t), dump(t, s))

	records := 0
	for _, l := range w.read(t) {
		records += len(l)
	}
	require.InDelta(t, records, r.metric(t, "keten_records_total"), 0)
	require.InDelta(t, 60, r.metric(t, "keten_records_total", "type", "CollectionCreated", "verdict", "accepted"), 0)
	require.Positive(t, r.metric(t, "keten_records_total", "verdict", "foreign"))
	require.InDelta(t, 0, r.metric(t, "keten_projector_lag_records"), 0)
	require.InDelta(t, 0, r.metric(t, "keten_projector_lag_seconds"), 0)
	require.Positive(t, r.metric(t, "keten_projector_batch_duration_seconds"))
}

// A projector that is killed again and again, and always another one, leaves
// the rows of one that never was.
func TestRunGoesOnWhereAnotherWasKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	logs := w.history(t, troubled(2, 90))
	rng := rand.New(rand.NewPCG(2, 2))
	for len(logs[0])+len(logs[1])+len(logs[2]) > 0 {
		r := w.start(t, s, func(c *projector.Config) { c.MaxBatch = 1 + rng.IntN(40) })
		var now [][]ledger.Record
		for i := range logs {
			n := min(len(logs[i]), rng.IntN(60))
			now, logs[i] = append(now, logs[i][:n]), logs[i][n:]
		}
		w.append(t, now)
		if at := time.Duration(rng.IntN(60)) * time.Millisecond; at > 10*time.Millisecond {
			ctx, cancel := context.WithTimeout(t.Context(), at)
			<-ctx.Done() // the kill comes at any moment of whatever the projector does
			cancel()
		}
		r.stop(t)
	}
	w.start(t, s, nil)
	w.awaitEnd(t, s)
	equalDumps(t, w.want(t), dump(t, s))
}

func TestRunTwoProjectors(t *testing.T) {
	t.Parallel()
	runTwoProjectors(t, newWorld(t))
}

func TestRunTwoProjectorsOnApacheKafka(t *testing.T) {
	t.Parallel()
	runTwoProjectors(t, newWorldOn(t, kafkatest.Brokers(t)))
}

// Two projectors side by side do no harm: one writes, the other follows, and
// when the writing one ends the other takes over.
func runTwoProjectors(t *testing.T, w *world) {
	t.Helper()
	s := w.open(t, w.url, "")
	logs := w.history(t, troubled(3, 150))
	both := []*running{w.start(t, s, nil), w.start(t, w.open(t, w.url, ""), nil)}
	rng := rand.New(rand.NewPCG(3, 3))
	for len(logs[0])+len(logs[1])+len(logs[2]) > 0 {
		var now [][]ledger.Record
		for i := range logs {
			n := min(len(logs[i]), rng.IntN(15))
			now, logs[i] = append(now, logs[i][:n]), logs[i][n:]
		}
		w.append(t, now)
		if rng.IntN(20) == 0 {
			i := rng.IntN(2)
			both[i].stop(t)
			both[i] = w.start(t, s, nil)
		}
	}
	w.awaitEnd(t, s)
	equalDumps(t, w.want(t), dump(t, s))
	for _, r := range both {
		require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
	}
}

// Where one projector writes, another meets it once and then only follows;
// when the first has ended it takes over.
func TestRunStandsBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	logs := w.history(t, troubled(4, 100))
	slow := func(c *projector.Config) { c.Takeover = 5 * time.Second }
	both := []*running{w.start(t, s, slow), w.start(t, w.open(t, w.url, ""), slow)}
	sum := func(name string) float64 { return both[0].metric(t, name) + both[1].metric(t, name) }
	for _, r := range both {
		require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
	}
	for i := range 60 {
		w.append(t, cutAt(logs, 3*i, 3*i+3))
	}
	w.awaitEnd(t, s)
	require.Eventually(t, func() bool { return sum("keten_projector_standby_partitions") == partitions }, patience, pollEvery,
		"each partition is written by one and followed by the other")
	require.LessOrEqual(t, sum("keten_projector_conflicts_total"), float64(partitions), "the loser came back to fight")
	records := 0
	for _, l := range w.read(t) {
		records += len(l)
	}
	require.InDelta(t, records, sum("keten_records_total"), 0, "each record is written once")

	writer, follower := both[0], both[1]
	if follower.metric(t, "keten_projector_standby_partitions") == 0 {
		writer, follower = follower, writer
	}
	writer.stop(t)
	w.append(t, cutAt(logs, 180, 1<<20))
	w.awaitEnd(t, s)
	equalDumps(t, w.want(t), dump(t, s))
	require.Zero(t, follower.metric(t, "keten_projector_standby_partitions"))
	require.NotContains(t, follower.log.String(), "folding the ledger again")
}

// A projector that follows one that is far behind keeps only so much of what it
// reads, and goes on all the same when it has to write it.
func TestRunFollowsWithLittleRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	logs := w.history(t, troubled(10, 90))
	var both [2]*running
	var lines [2]*proxy
	for i := range both {
		p, url := startProxy(t, w.url)
		lines[i] = p
		both[i] = w.start(t, w.open(t, url, ""), func(c *projector.Config) { c.MaxBatch, c.Takeover = 20, time.Second })
		require.Eventually(t, func() bool { return both[i].Ready() == nil }, patience, pollEvery)
	}
	waits := func(i int) float64 { return both[i].metric(t, "keten_projector_standby_partitions") }
	w.append(t, cutAt(logs, 0, 5))
	w.awaitEnd(t, s)
	require.Eventually(t, func() bool { return waits(0)+waits(1) == partitions }, patience, pollEvery)

	follower := 0
	if waits(1) > 0 {
		follower = 1
	}
	lines[1-follower].setCut(true)
	w.append(t, cutAt(logs, 5, 1<<20))
	w.awaitEnd(t, s)
	equalDumps(t, w.want(t), dump(t, s))
	require.Contains(t, both[follower].log.String(), "folding the ledger again")
}

// Records that were projected and are no longer in the log stop their
// partition; the others go on.
func TestRunStopsWhereHistoryWasReplaced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, sql, says string }{
		{"shorter", `update checkpoints set next_offset = 1000000 where partition = 1`, "it ends at offset"},
		{"other records", `update checkpoints set chain_hash = decode(repeat('ab', 32), 'hex') where partition = 1`, "the hash of the records"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.open(t, w.url, "")
			logs := w.history(t, troubled(5, 60))
			rest := make([][]ledger.Record, len(logs))
			for i := range logs {
				logs[i], rest[i] = logs[i][:20], logs[i][20:]
			}
			w.append(t, logs)
			r := w.start(t, s, nil)
			w.awaitEnd(t, s)
			r.stop(t)
			w.exec(t, c.sql)
			before := w.rows(t, 1)

			w.append(t, rest)
			r = w.start(t, s, nil)
			ends, err := w.log.Ends(t.Context())
			require.NoError(t, err)
			delete(ends, 1)
			require.Eventually(t, func() bool {
				return position(t, s, 0) == ends[0] && position(t, s, 2) == ends[2]
			}, patience, pollEvery)
			require.Eventually(t, func() bool { return r.metric(t, "keten_projector_stopped_partitions") == 1 }, patience, pollEvery)
			require.ErrorContains(t, r.Ready(), "partition 1")
			require.ErrorContains(t, r.Ready(), c.says)
			require.Contains(t, r.log.String(), "level=ERROR")
			require.Equal(t, before, w.rows(t, 1), "rows were written over another history")
		})
	}
}

// A record that only a newer build can judge stops its partition behind what
// came before it; the others go on.
func TestRunStopsAtWhatItCannotJudge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	logs := w.history(t, history.Options{Seed: 6, Chains: 9, Tasks: 2})
	at := int64(10)
	newer := ledger.Message{Partition: 1, Value: []byte(`{}`), Headers: []ledger.Header{
		{Key: ledger.HeaderType, Value: []byte("keten.v9.Wonder")}, {Key: ledger.HeaderID, Value: []byte(uuid.Must(uuid.NewV7()).String())},
	}}
	w.append(t, [][]ledger.Record{logs[0], logs[1][:at-1], logs[2]})
	offset, err := w.log.AppendWait(t.Context(), newer)
	require.NoError(t, err)
	require.Equal(t, at, offset)
	behind := make([]ledger.Record, 1500) // several polls
	for i := range behind {
		behind[i] = ledger.Record{Partition: 1, Offset: at + 1 + int64(i), Value: []byte("of somebody else")}
	}
	w.append(t, [][]ledger.Record{behind})
	r := w.start(t, s, nil)
	require.Eventually(t, func() bool {
		return position(t, s, 0) == int64(len(logs[0]))+1 && position(t, s, 2) == int64(len(logs[2]))+1 && position(t, s, 1) == at
	}, patience, pollEvery)
	require.Eventually(t, func() bool { return r.Ready() != nil }, patience, pollEvery)
	require.ErrorContains(t, r.Ready(), "keten.v9.Wonder")
	var halt *ledger.HaltError
	require.ErrorAs(t, r.Ready(), &halt)
	require.Equal(t, at, halt.Offset)
	require.Equal(t, at, position(t, s, 1))
}

// Rows that PostgreSQL refuses stop their partition only, and the reason says
// which rows they are.
func TestRunStopsARefusedPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	// Stands for any value that PostgreSQL will not take although the gate did.
	w.exec(t, `alter table events add constraint poison check (partition <> 1 or log_offset < 7)`)
	logs := w.history(t, history.Options{Seed: 7, Chains: 9, Tasks: 2})
	w.append(t, logs)
	r := w.start(t, s, nil)
	require.Eventually(t, func() bool {
		return position(t, s, 0) == int64(len(logs[0]))+1 && position(t, s, 2) == int64(len(logs[2]))+1
	}, patience, pollEvery)
	require.Eventually(t, func() bool { return r.Ready() != nil && r.metric(t, "keten_projector_stopped_partitions") == 1 }, patience, pollEvery)
	var refused *readmodel.RefusedError
	require.ErrorAs(t, r.Ready(), &refused)
	require.Equal(t, "23514", refused.Code)
	require.Equal(t, "insert events", refused.Statement)
	require.ErrorContains(t, r.Ready(), "partition 1")
}

func TestRunRefusesTheTablesOfAnotherLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t, w.url, "")
	_, err := s.Checkpoints(t.Context(), uuid.Must(uuid.NewV7()), partitions)
	require.NoError(t, err)
	p, err := projector.New(projector.Config{Log: w.log, Store: s, Logger: quiet()})
	require.NoError(t, err)
	require.ErrorIs(t, p.Run(t.Context()), readmodel.ErrOtherLedger)
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	_, err := projector.New(projector.Config{})
	require.ErrorContains(t, err, "required")
}

// exec changes the database behind everyone's back.
func (w *world) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), `set search_path = keten`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// rows counts a partition's events.
func (w *world) rows(t *testing.T, partition int) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from keten.events where partition = $1`, partition).Scan(&n))
	return strconv.Itoa(n)
}

func position(t *testing.T, s *readmodel.Store, partition int32) int64 {
	t.Helper()
	positions, err := s.Positions(t.Context())
	require.NoError(t, err)
	for _, p := range positions {
		if p.Partition == partition {
			return p.Offset
		}
	}
	return -1
}
