package eventlogtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// A log that lost its tail and was filled again must not be taken for the one
// that a snapshot was made of, also when an older snapshot would fit.
func (s *suite) snapshotsOfOtherHistoriesAreRefused(t *testing.T) {
	for name, other := range map[string]func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, folds []*ledger.Partition) []*kgo.Record{
		"other records": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 4)), 2)
		},
		"another leader": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			fold := ledger.NewPartition(0)
			all := records(t, l, 0)
			all[3].LeaderEpoch++
			apply(t, fold, all[:4])
			return s.chunks(t, l, cfg, snapshot(fold), 2)
		},
		"more records": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 20)), 2)
		},
		"more records, torn": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 20)), 2)[1:]
		},
		"one more record, torn": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 7)), 2)[1:]
		},
		"one more record": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 7)), 2)
		},
		"more records, unknown codec": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			return s.chunks(t, l, cfg, eventlog.Snapshot{Position: 20, State: []byte("another codec")}, 2)
		},
		"both at one offset": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, folds []*ledger.Partition) []*kgo.Record {
			return append(s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 4)), 2), s.chunks(t, l, cfg, snapshot(folds[4]), 2)...)
		},
		"both at one offset, behind one record": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, folds []*ledger.Partition) []*kgo.Record {
			all := records(t, l, 0)
			fold := ledger.NewPartition(0)
			apply(t, fold, []ledger.Record{all[0], replaced(t, all[0], 1), all[2], all[3]})
			require.Equal(t, folds[4].LastHash(), fold.LastHash())
			return append(s.chunks(t, l, cfg, snapshot(fold), 2), s.chunks(t, l, cfg, snapshot(folds[4]), 2)...)
		},
		"another window": func(t *testing.T, l *eventlog.Log, cfg eventlog.Config, _ []*ledger.Partition) []*kgo.Record {
			all := records(t, l, 0)
			fold := ledger.NewPartition(0)
			apply(t, fold, append([]ledger.Record{recordOf(encode(t, 0, ledger.LedgerOpened{
				LedgerID: l.Info().LedgerID, Partitions: partitions, Rules: ledger.Rules, Window: window + 1,
			}))}, all[1:4]...))
			return s.chunks(t, l, cfg, snapshot(fold), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, cfg := s.open(t)
			for i := range 5 {
				appendAll(t, l, message(t, 0, i), message(t, 1, i))
			}
			folds := foldEach(t, l, 0)
			write(t, l, snapshot(folds[3]))
			s.produceChunks(t, other(t, l, cfg, folds)...)
			requireLoss(t, l)
			_, _, err := l.Resume(within(t, patience), 1)
			require.NoError(t, err, "the other partitions go on")
		})
	}
}

// A writer that is shorter than a snapshot that is there does not cover it up.
func (s *suite) writersNoticeLostHistory(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 0, 2), message(t, 0, 3))
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[1]))
	write(t, l, snapshot(folds[2]))
	witness := s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 20)), 2)[1]
	s.produceChunks(t, witness)
	_, written, err := l.WriteSnapshot(within(t, patience), snapshot(folds[4]))
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	require.ErrorContains(t, err, "has a snapshot at offset 20, but the log ends at offset 4")
	require.False(t, written)
	require.Equal(t, map[int64]int{1: 1, 2: 1, 20: 1}, s.chunkCounts(t, cfg))
	// Who knows better may delete the witness.
	requireLoss(t, l)
	s.produceChunks(t, &kgo.Record{Topic: witness.Topic, Key: witness.Key})
	requireNewest(t, l, folds[2])
}

// A log that was cut and has grown again is long enough for the newest snapshot,
// and not the one it was taken of. A writer that covered it up with a newer one
// would take the only witness away.
func (s *suite) writersNoticeAnotherHistory(t *testing.T) {
	l, cfg := s.open(t)
	for i := range 8 {
		appendAll(t, l, message(t, 0, i))
	}
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[2]))
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 5)), 1)...)
	requireLoss(t, l)
	_, written, err := l.WriteSnapshot(within(t, patience), snapshot(folds[len(folds)-1]))
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	require.False(t, written)
	requireLoss(t, l)
}

// Two builds that judge the same records differently leave two snapshots of one
// position. Which of them was written last must not decide who is right.
func (s *suite) snapshotsThatDisagreeStop(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, collections(t, 0, 3)...)
	all := records(t, l, 0)
	one, two := ledger.NewPartition(0), ledger.NewPartition(0)
	apply(t, one, all)
	for i := range all {
		all[i].TimeMS++ // stands for a build that folds differently
	}
	apply(t, two, all)
	require.Equal(t, one.ChainHash(), two.ChainHash())
	require.NotEqual(t, one.StateHash(), two.StateHash())
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(one), 1)...)
	requireNewest(t, l, one)
	s.produceChunks(t, s.chunks(t, l, cfg, snapshot(two), 1)...)
	requireLoss(t, l)
}

func recordOf(msg ledger.Message) ledger.Record {
	return ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value, Headers: msg.Headers}
}

// requireLoss checks that partition 0 cannot be resumed.
func requireLoss(t *testing.T, l *eventlog.Log) {
	t.Helper()
	_, found, err := l.ReadSnapshot(within(t, patience), 0)
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	require.False(t, found)
	fold, _, err := l.Resume(within(t, patience), 0)
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	require.Nil(t, fold)
}

// Whoever deletes the ledger's topic and creates it again finds out from the
// snapshots that are left.
func (s *suite) snapshotsOfADeletedLedgerAreRefused(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 0, 2), message(t, 0, 3))
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[1]))
	write(t, l, snapshot(folds[2]))
	s.deleteTopic(t, topic(cfg))

	fresh := s.initAgain(t, cfg)
	requireLoss(t, fresh)
	appendAll(t, fresh, message(t, 0, 4), message(t, 0, 5), message(t, 0, 6), message(t, 0, 7))
	requireLoss(t, fresh)
	before := s.chunkKeys(t, cfg, 0)
	_, _, err := fresh.WriteSnapshot(within(t, patience), snapshot(foldAll(t, fresh, 0)))
	require.ErrorIs(t, err, eventlog.ErrDataLoss)
	require.ErrorContains(t, err, "delete topic "+snapshotsTopic(cfg))
	require.Equal(t, before, s.chunkKeys(t, cfg, 0), "the witness is kept")

	// The process that was there before notices, too.
	requireLoss(t, l)

	s.deleteTopic(t, snapshotsTopic(cfg))
	_, found, err := fresh.ReadSnapshot(within(t, patience), 0)
	require.NoError(t, err)
	require.False(t, found)
	fold := foldAll(t, fresh, 0)
	write(t, fresh, snapshot(fold))
	requireNewest(t, fresh, fold)
}

// A ledger's topic that is filled again with the very same records, as from a
// backup, is another one: what was read of the first may not all be there. To
// its new owners, who name the original, the snapshots are those of a copy.
func (s *suite) snapshotsOfARefilledTopicArePassedOver(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 0, 2))
	fold := foldAll(t, l, 0)
	write(t, l, snapshot(fold))
	var backup []*kgo.Record
	for p := range int32(partitions) {
		for _, r := range records(t, l, p) {
			backup = append(backup, kafkaRecord(ledger.Message{Partition: p, Key: r.Key, Value: r.Value, Headers: r.Headers}))
		}
	}
	s.deleteTopic(t, topic(cfg))
	s.createTopic(t, s.admin(t), cfg, partitions)
	s.produce(t, cfg, backup...)

	requireLoss(t, l)
	cfg.LedgerID = l.Info().LedgerID
	fresh := reopen(t, cfg)
	_, found, err := fresh.ReadSnapshot(within(t, patience), 0)
	require.NoError(t, err)
	require.False(t, found)
	write(t, fresh, snapshot(fold))
	requireNewest(t, fresh, fold)
}

// initAgain creates the ledger anew when the brokers have forgotten the one that
// was deleted.
func (s *suite) initAgain(t *testing.T, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: partitions, Window: window})
		return err == nil
	}, patience, 100*time.Millisecond)
	return reopen(t, cfg)
}

// A ledger that was copied to another cluster may have its snapshots with it.
// They are of another topic, and of the same ledger.
func (s *suite) snapshotsOfTheOriginalArePassedOver(t *testing.T) {
	l, cfg := s.open(t)
	for i := range 6 {
		appendAll(t, l, message(t, 0, i))
	}
	folds := foldEach(t, l, 0)
	for _, position := range []int{2, 6} {
		brought := s.chunks(t, l, cfg, snapshot(folds[position]), 2)
		for _, r := range brought {
			r.Headers[1].Value = []byte(uuid.NewString())
		}
		s.produceChunks(t, brought...)
	}
	beyond := s.chunks(t, l, cfg, snapshot(anotherHistory(t, l, 0, 50)), 1)
	beyond[0].Headers[1].Value = []byte(uuid.NewString())
	s.produceChunks(t, beyond...)
	_, found, err := l.ReadSnapshot(within(t, patience), 0)
	require.NoError(t, err)
	require.False(t, found)
	write(t, l, snapshot(folds[4]))
	requireNewest(t, l, folds[4])
	// A snapshot that was brought along is no chunk of ours, even under one key.
	mixed := s.chunks(t, l, cfg, snapshot(folds[5]), 2)
	mixed[0].Headers[1].Value = []byte(uuid.NewString())
	s.produceChunks(t, mixed...)
	requireNewest(t, l, folds[4])
	write(t, l, snapshot(folds[6]))
	requireNewest(t, l, folds[6])
	require.Equal(t, map[int64]int{4: 1, 5: 2, 6: 3, 50: 1}, s.chunkCounts(t, cfg), "what is old goes")
}

// Snapshots wait for brokers as long as they may, and not longer.
func (s *suite) snapshotsWaitForBrokers(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated := cfg
	gated.Dialer = gate.Dial
	l := reopen(t, gated)
	appendAll(t, l, message(t, 0, 1))
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[1]))
	for name, away := range map[string]struct{ begin, end func() }{
		"gone": {gate.Shut, gate.Unshut}, "silent": {gate.Hold, gate.Release},
	} {
		away.begin()
		// The library begins a connection with a question that no context bounds,
		// and waits 5 s for the answer.
		const late = 7 * time.Second
		began := time.Now()
		_, _, err := l.ReadSnapshot(within(t, 500*time.Millisecond), 0)
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		require.Less(t, time.Since(began), late, name)
		began = time.Now()
		_, written, err := l.WriteSnapshot(within(t, 500*time.Millisecond), snapshot(folds[2]))
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		require.Less(t, time.Since(began), late, name)
		require.False(t, written)
		time.AfterFunc(300*time.Millisecond, away.end)
		requireNewest(t, l, folds[1])
	}
	write(t, l, snapshot(folds[2]))
	l.Close()
	_, _, err := l.ReadSnapshot(within(t, patience), 0)
	require.ErrorIs(t, err, eventlog.ErrClosed)
	_, _, err = l.WriteSnapshot(within(t, patience), snapshot(folds[2]))
	require.ErrorIs(t, err, eventlog.ErrClosed)
}
