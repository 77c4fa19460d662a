package eventlogtest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

func (s *suite) initCreatesTheTopic(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	require.Equal(t, int32(partitions), info.Partitions)
	require.Equal(t, int64(window), info.Window)

	admin := s.admin(t)
	topics, err := admin.ListTopics(t.Context(), topic(cfg))
	require.NoError(t, err)
	require.Len(t, topics[topic(cfg)].Partitions, partitions)
	require.Equal(t, uuid.UUID(topics[topic(cfg)].ID), info.LedgerID)
	require.Equal(t, info.SingleReplica, topics[topic(cfg)].Partitions.NumReplicas() < 3)

	configs, err := admin.DescribeTopicConfigs(t.Context(), topic(cfg))
	require.NoError(t, err)
	is := make(map[string]string)
	for _, c := range configs[0].Configs {
		is[c.Key] = c.MaybeValue()
	}
	for name, want := range map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime",
	} {
		require.Equal(t, want, is[name], name)
	}
	require.Equal(t, info, reopen(t, cfg).Info())
}

func (s *suite) initKeepsWhatIsThere(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	again, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	require.Equal(t, info, again)

	var refused *eventlog.PreflightError
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: partitions + 1})
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "partition count is 3, but must be 4")
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Window: window + 1})
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "window is 5000, but must be 5001")
	ends, err := reopen(t, cfg).Ends(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 1, 1: 1, 2: 1}, ends, "nothing was appended")
}

// Processes that start together may even disagree about what to create; one of
// them is first, and all go on with that.
func (s *suite) initAtTheSameTime(t *testing.T) {
	cfg := s.config(t)
	infos := make([]eventlog.Info, 4)
	errs := make([]error, len(infos))
	var wg sync.WaitGroup
	for i := range infos {
		wg.Go(func() {
			infos[i], errs[i] = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: partitions, Window: int64(1000 + i)})
		})
	}
	wg.Wait()
	l := reopen(t, cfg)
	for i, err := range errs {
		if err != nil { // its window is not the one of the first
			var refused *eventlog.PreflightError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "window", refused.Setting)
			continue
		}
		require.Equal(t, l.Info(), infos[i])
	}
	require.Positive(t, slices.Index(errs, nil)+1, "one of them is first")
}

// A process may die between two partitions, and a stranger may write before the
// genesis does.
func (s *suite) initCompletesHalfAGenesis(t *testing.T) {
	cfg := s.config(t)
	admin := s.admin(t)
	id := s.createTopic(t, admin, cfg, 2)
	s.produce(t, cfg,
		&kgo.Record{Partition: 0, Value: []byte("a stranger")},
		kafkaRecord(message(t, 0, 1)), // ours, but the partition is not opened yet
		kafkaRecord(encode(t, 0, ledger.LedgerOpened{LedgerID: id, Partitions: 2, Rules: ledger.Rules, Window: 77})),
		kafkaRecord(encode(t, 0, ledger.LedgerOpened{LedgerID: id, Partitions: 2, Rules: ledger.Rules, Window: 78})))

	_, err := eventlog.Open(t.Context(), cfg)
	require.ErrorIs(t, err, eventlog.ErrNotInitialized)
	require.ErrorContains(t, err, "1 of 2 partitions are not opened")
	info, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(t, err)
	require.Equal(t, int64(77), info.Window, "the first genesis counts")
	l := reopen(t, cfg)
	require.Equal(t, info, l.Info())
	ends, err := l.Ends(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 4, 1: 1}, ends)
}

func (s *suite) openNeedsInit(t *testing.T) {
	_, err := eventlog.Open(t.Context(), s.config(t))
	require.ErrorIs(t, err, eventlog.ErrNotInitialized)
}

func (s *suite) preflightRefusesSettings(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	admin := s.admin(t)
	for _, bad := range []struct{ setting, value, good string }{
		{"cleanup.policy", "compact", "delete"},
		{"cleanup.policy", "compact,delete", "delete"},
		{"retention.ms", "604800000", "-1"},
		{"retention.bytes", "1073741824", "-1"},
		{"message.timestamp.type", "CreateTime", "LogAppendTime"},
		{"max.message.bytes", "851967", "851968"},
	} {
		alter(t, admin, cfg, map[string]string{bad.setting: bad.value})
		_, err := eventlog.Open(t.Context(), cfg)
		var refused *eventlog.PreflightError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, bad.setting, refused.Setting)
		require.ErrorContains(t, err, bad.setting+" is "+bad.value+", but must be ")
		require.Contains(t, refused.Want, bad.good)
		alter(t, admin, cfg, map[string]string{bad.setting: bad.good})
		reopen(t, cfg)
	}
}

func (s *suite) preflightRefusesAllAtOnce(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	alter(t, s.admin(t), cfg, map[string]string{"cleanup.policy": "compact", "retention.ms": "1000000", "max.message.bytes": "1000"})
	_, err := eventlog.Open(t.Context(), cfg)
	for _, name := range []string{"cleanup.policy", "retention.ms", "max.message.bytes"} {
		require.ErrorContains(t, err, name+" is ")
	}
}

func (s *suite) preflightRefusesFewReplicas(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	cfg.AllowSingleReplica = false
	var refused *eventlog.PreflightError
	alter(t, s.admin(t), cfg, map[string]string{"min.insync.replicas": "1"})
	_, err := eventlog.Open(t.Context(), cfg)
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "min.insync.replicas is 1, but must be at least 2")
	if !info.SingleReplica {
		return // the rest is about clusters that are too small
	}
	require.ErrorContains(t, err, "replication factor is ")
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: s.replicated(t)})
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "replication factor", refused.Setting)
}

func (s *suite) replicated(t *testing.T) eventlog.Config {
	t.Helper()
	cfg := s.config(t)
	cfg.AllowSingleReplica = false
	return cfg
}

func (s *suite) preflightRefusesACutLog(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 1, 1), message(t, 1, 2))
	s.deleteBefore(t, cfg, 1, 2)
	_, err := eventlog.Open(t.Context(), cfg)
	var refused *eventlog.PreflightError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "log start offset of partition 1 is 2, but must be 0")
}

func (s *suite) preflightRefusesAddedPartitions(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	_, err := s.admin(t).UpdatePartitions(t.Context(), partitions+2, topic(cfg))
	require.NoError(t, err)
	var refused *eventlog.PreflightError
	require.Eventually(t, func() bool { // not every broker knows at once
		_, err = eventlog.Open(t.Context(), cfg)
		return errors.As(err, &refused)
	}, patience, 100*time.Millisecond)
	require.ErrorContains(t, err, "partition count is 5, but must be 3")
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.ErrorAs(t, err, &refused)
	ends, err := s.admin(t).ListEndOffsets(t.Context(), topic(cfg))
	require.NoError(t, err)
	for p := range int32(partitions + 2) {
		end, ok := ends.Lookup(topic(cfg), p)
		require.True(t, ok)
		require.Equal(t, p < partitions, end.Offset == 1, "what was added is not opened")
	}
}

// A topic may hold what no one Init wrote.
func (s *suite) preflightRefusesAMixture(t *testing.T) {
	cfg := s.config(t)
	id := s.createTopic(t, s.admin(t), cfg, 2)
	for p := range int32(2) {
		s.produce(t, cfg, kafkaRecord(encode(t, p, ledger.LedgerOpened{LedgerID: id, Partitions: 2, Rules: ledger.Rules, Window: 7 + int64(p)})))
	}
	_, err := eventlog.Open(t.Context(), cfg)
	var refused *eventlog.PreflightError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "genesis of partition 1", refused.Setting)
}

// A mirrored topic has an id of its own and the genesis of another.
func (s *suite) preflightRefusesACopyUnlessNamed(t *testing.T) {
	cfg := s.config(t)
	admin := s.admin(t)
	topicID, original := s.createTopic(t, admin, cfg, 1), uuid.New()
	s.produce(t, cfg, kafkaRecord(encode(t, 0, ledger.LedgerOpened{LedgerID: original, Partitions: 1, Rules: ledger.Rules, Window: 9})))

	var refused *eventlog.PreflightError
	_, err := eventlog.Open(t.Context(), cfg)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "ledger id", refused.Setting)
	require.ErrorContains(t, err, original.String())
	require.ErrorContains(t, err, topicID.String())

	cfg.LedgerID = uuid.New()
	_, err = eventlog.Open(t.Context(), cfg)
	require.ErrorAs(t, err, &refused)

	cfg.LedgerID = original
	require.Equal(t, original, reopen(t, cfg).Info().LedgerID)
}

func (s *suite) otherRulesAreNamed(t *testing.T) {
	admin := s.admin(t)
	for rules, says := range map[int]string{
		0:                "under draft rules 0, which this build (rules " + strconv.Itoa(ledger.Rules) + ") cannot read: start a new ledger",
		ledger.Rules + 1: "rules version " + strconv.Itoa(ledger.Rules+1),
	} {
		cfg := s.config(t)
		id := s.createTopic(t, admin, cfg, 1)
		s.produce(t, cfg, kafkaRecord(encode(t, 0, ledger.LedgerOpened{LedgerID: id, Partitions: 1, Rules: rules, Window: 9})))
		var halt *ledger.HaltError
		_, err := eventlog.Open(t.Context(), cfg)
		require.ErrorAs(t, err, &halt)
		require.ErrorContains(t, err, says)
		_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
		require.ErrorAs(t, err, &halt)
		require.ErrorContains(t, err, says)
	}
}

func (s *suite) unreachableIsSaidInTime(t *testing.T) {
	cfg := s.config(t)
	gate := NewGate()
	cfg.Dialer = gate.Dial
	s.init(t, cfg)

	gate.Shut()
	_, err := eventlog.Open(t.Context(), cfg)
	require.ErrorIs(t, err, eventlog.ErrUnreachable)
	require.ErrorContains(t, err, s.brokers[0])
	_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
	require.ErrorIs(t, err, eventlog.ErrUnreachable)

	gate.Unshut()
	gate.Hold()
	defer gate.Release()
	began := time.Now()
	_, err = eventlog.Open(within(t, 500*time.Millisecond), cfg)
	require.ErrorIs(t, err, eventlog.ErrUnreachable)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	_, err = eventlog.Open(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 4*time.Second, "nothing but ctx bounds the wait for a silent broker")
}

// A process must be able to end while its brokers are silent.
func (s *suite) closesDespiteSilence(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	cfg.Dialer = gate.Dial
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	group, err := l.NewGroupReader(eventlog.GroupConfig{
		Group: cfg.Prefix + ".group", From: fromBeginning,
	})
	require.NoError(t, err)
	read(t, group, partitions)

	gate.Hold()
	defer gate.Release()
	results := make(chan error, 1)
	l.Append(message(t, 0, 1), func(_ int64, err error) { results <- err })
	began := time.Now()
	group.Close()
	l.Close()
	require.Less(t, time.Since(began), 15*time.Second)
	require.ErrorIs(t, <-results, eventlog.ErrOutcomeUnknown)
}

// createTopic creates a ledger's topic without opening its partitions.
func (s *suite) createTopic(t *testing.T, admin *kadm.Client, cfg eventlog.Config, n int32) uuid.UUID {
	t.Helper()
	created, err := admin.CreateTopic(t.Context(), n, -1, map[string]*string{
		"cleanup.policy": new("delete"), "retention.ms": new("-1"), "retention.bytes": new("-1"),
		"message.timestamp.type": new("LogAppendTime"),
	}, topic(cfg))
	require.NoError(t, err)
	return uuid.UUID(created.ID)
}

// produce writes records as a stranger would.
func (s *suite) produce(t *testing.T, cfg eventlog.Config, records ...*kgo.Record) {
	t.Helper()
	client := s.client(t)
	for _, r := range records {
		r.Topic = topic(cfg)
		require.NoError(t, client.ProduceSync(within(t, patience), r).FirstErr())
	}
}

func kafkaRecord(msg ledger.Message) *kgo.Record {
	r := &kgo.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value}
	for _, h := range msg.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader(h))
	}
	return r
}

// alter changes settings of a ledger's topic and waits until they are in force.
func alter(t *testing.T, admin *kadm.Client, cfg eventlog.Config, settings map[string]string) {
	t.Helper()
	alterTopic(t, admin, topic(cfg), settings)
}

func alterTopic(t *testing.T, admin *kadm.Client, topic string, settings map[string]string) {
	t.Helper()
	var changes []kadm.AlterConfig
	for name, value := range settings {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: new(value)})
	}
	responses, err := admin.AlterTopicConfigs(t.Context(), changes, topic)
	require.NoError(t, err)
	require.NoError(t, responses[0].Err)
	require.Eventually(t, func() bool {
		configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
		if err != nil {
			return false
		}
		found := 0
		for _, c := range configs[0].Configs {
			if want, ok := settings[c.Key]; ok && c.MaybeValue() == want {
				found++
			}
		}
		return found == len(settings)
	}, patience, 20*time.Millisecond)
}

// deleteBefore deletes the beginning of a partition.
func (s *suite) deleteBefore(t *testing.T, cfg eventlog.Config, partition int32, offset int64) {
	t.Helper()
	var before kadm.Offsets
	before.AddOffset(topic(cfg), partition, offset, -1)
	_, err := s.admin(t).DeleteRecords(t.Context(), before)
	require.NoError(t, err)
}
