package eventlog

import (
	"context"
	"fmt"
	"strconv"
)

const (
	// snapshotSegmentBytes bounds what a partition of the snapshots topic has
	// beyond the snapshots that count: brokers compact all but the last segment,
	// and readers read everything.
	snapshotSegmentBytes = 16 << 20
	// snapshotMessageBytes is what a new snapshots topic takes: more than a
	// chunk needs today, and what brokers take by default.
	snapshotMessageBytes = 1 << 20
)

func snapshotSettings() []setting {
	return []setting{
		{"cleanup.policy", "compact"},
		{"message.timestamp.type", "LogAppendTime"},
	}
}

// preflightSnapshots checks the topic of the snapshots and makes it when it is
// missing: a ledger of an earlier build has none, and an operator may delete it
// at any time.
// The error joins a *PreflightError for each finding.
func (l *Log) preflightSnapshots(ctx context.Context, ledgerTopic *topicState) error {
	t, err := l.ensureSnapshots(ctx, ledgerTopic)
	if err != nil {
		return err
	}
	settings, err := l.settings(ctx, t.name)
	if err != nil {
		return fmt.Errorf("read the settings of topic %s: %w", t.name, err)
	}
	found := checkSettings(settings, snapshotSettings(), maxChunkBatchBytes)
	if !l.cfg.AllowSingleReplica {
		found = append(found, checkReplication(t, settings)...)
	}
	return ofTopic(t.name, found)
}

// ensureSnapshots describes the topic of the snapshots, created before when it
// was missing.
func (l *Log) ensureSnapshots(ctx context.Context, ledgerTopic *topicState) (*topicState, error) {
	return l.ensureBeside(ctx, ledgerTopic, l.snapshotsTopic, map[string]*string{
		"cleanup.policy":    new("compact"),
		"segment.bytes":     new(strconv.Itoa(snapshotSegmentBytes)),
		"max.message.bytes": new(strconv.Itoa(snapshotMessageBytes)),
	})
}

// remakeSnapshots makes the topic of the snapshots again when somebody deleted
// it while the ledger is open.
func (l *Log) remakeSnapshots(ctx context.Context) error {
	return l.remake(ctx, l.ensureSnapshots)
}
