package eventlogtest

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
)

func snapshotsTopic(cfg eventlog.Config) string { return cfg.Prefix + ".snapshots" }

func (s *suite) snapshotsTopicIsCreated(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	admin := s.admin(t)
	topics, err := admin.ListTopics(t.Context(), topic(cfg), snapshotsTopic(cfg))
	require.NoError(t, err)
	require.Len(t, topics[snapshotsTopic(cfg)].Partitions, partitions)
	require.Equal(t, topics[topic(cfg)].Partitions.NumReplicas(), topics[snapshotsTopic(cfg)].Partitions.NumReplicas())
	configs, err := admin.DescribeTopicConfigs(t.Context(), snapshotsTopic(cfg))
	require.NoError(t, err)
	is := make(map[string]string)
	for _, c := range configs[0].Configs {
		is[c.Key] = c.MaybeValue()
	}
	for name, want := range map[string]string{
		"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "segment.bytes": "16777216", "max.message.bytes": "1048576",
	} {
		require.Equal(t, want, is[name], name)
	}

	// A ledger of an earlier build has none, and who deletes it loses nothing.
	s.deleteTopic(t, snapshotsTopic(cfg))
	require.Equal(t, info, reopen(t, cfg).Info())
	topics, err = admin.ListTopics(t.Context(), snapshotsTopic(cfg))
	require.NoError(t, err)
	require.NoError(t, topics[snapshotsTopic(cfg)].Err)
	s.deleteTopic(t, snapshotsTopic(cfg))
	require.Equal(t, info, s.init(t, cfg))
	require.NoError(t, reopen(t, cfg).Ready(within(t, patience)))
}

// An operator may delete the snapshots of a ledger that is open.
func (s *suite) snapshotsTopicIsMadeAgain(t *testing.T) {
	l, cfg := s.open(t)
	appendAll(t, l, message(t, 0, 1), message(t, 0, 2), message(t, 0, 3))
	folds := foldEach(t, l, 0)
	write(t, l, snapshot(folds[2]))
	s.deleteTopic(t, snapshotsTopic(cfg))
	_, found, err := l.ReadSnapshot(within(t, patience), 0)
	require.NoError(t, err)
	require.False(t, found)
	write(t, l, snapshot(folds[3]))
	requireNewest(t, l, folds[3])
	s.deleteTopic(t, snapshotsTopic(cfg))
	write(t, l, snapshot(folds[4]))
	requireNewest(t, l, folds[4])
}

func (s *suite) preflightChecksTheSnapshotsTopic(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	admin := s.admin(t)
	var refused *eventlog.PreflightError
	for _, bad := range []struct{ setting, value, good, says string }{
		{"cleanup.policy", "delete", "compact", "delete, but must be compact"},
		{"cleanup.policy", "compact,delete", "compact", "compact,delete, but must be compact"},
		{"message.timestamp.type", "CreateTime", "LogAppendTime", "CreateTime, but must be LogAppendTime"},
		{"max.message.bytes", "500000", "1048576", "500000, but must be at least 589824"},
	} {
		alterTopic(t, admin, snapshotsTopic(cfg), map[string]string{bad.setting: bad.value})
		_, err := eventlog.Open(t.Context(), cfg)
		require.ErrorAs(t, err, &refused, bad.setting)
		require.ErrorContains(t, err, bad.setting+" of topic "+snapshotsTopic(cfg)+" is "+bad.says)
		_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
		require.ErrorAs(t, err, &refused, bad.setting)
		alterTopic(t, admin, snapshotsTopic(cfg), map[string]string{bad.setting: bad.good})
		reopen(t, cfg)
	}
	if !info.SingleReplica {
		alterTopic(t, admin, snapshotsTopic(cfg), map[string]string{"min.insync.replicas": "1"})
		careful := cfg
		careful.AllowSingleReplica = false
		_, err := eventlog.Open(t.Context(), careful)
		require.ErrorContains(t, err, "min.insync.replicas of topic "+snapshotsTopic(cfg)+" is 1, but must be at least 2")
	}
	_, err := admin.UpdatePartitions(t.Context(), partitions+1, snapshotsTopic(cfg))
	require.NoError(t, err)
	require.Eventually(t, func() bool { // not every broker knows at once
		_, err = eventlog.Open(t.Context(), cfg)
		return errors.As(err, &refused)
	}, patience, 100*time.Millisecond)
	require.ErrorContains(t, err, "partition count of topic "+snapshotsTopic(cfg)+" is 4, but must be 3")
}

func (s *suite) deleteTopic(t *testing.T, name string) {
	t.Helper()
	_, err := s.admin(t).DeleteTopic(within(t, patience), name)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		topics, err := s.admin(t).ListTopics(t.Context(), name)
		return err == nil && topics[name].Err != nil
	}, patience, 50*time.Millisecond)
}
