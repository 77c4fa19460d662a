package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
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
// at any time. It comes last, when the ledger is known to be what it must be.
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
	for _, err := range found {
		if bad, ok := errors.AsType[*PreflightError](err); ok {
			bad.Setting += " of topic " + t.name
		}
	}
	return errors.Join(found...)
}

// ensureSnapshots describes the topic of the snapshots, created before when it
// was missing, like the ledger's topic in partitions and replicas.
func (l *Log) ensureSnapshots(ctx context.Context, ledgerTopic *topicState) (*topicState, error) {
	t, err := l.awaitTopic(ctx, l.snapshotsTopic, false)
	if errors.Is(err, ErrNotInitialized) {
		if err := l.createSnapshots(ctx, ledgerTopic); err != nil {
			return nil, err
		}
		t, err = l.awaitTopic(ctx, l.snapshotsTopic, true)
	}
	if err != nil {
		return nil, fmt.Errorf("find topic %s: %w", l.snapshotsTopic, err)
	}
	if t.count() != ledgerTopic.count() {
		return nil, &PreflightError{
			"partition count of topic " + t.name, strconv.Itoa(int(t.count())),
			strconv.Itoa(int(ledgerTopic.count())) + " as the ledger's; delete the topic, and it is made again",
		}
	}
	return t, nil
}

func (l *Log) createSnapshots(ctx context.Context, ledgerTopic *topicState) error {
	err := l.retry(ctx, func() error {
		return l.createTopic(ctx, l.snapshotsTopic, ledgerTopic.count(), int16(ledgerTopic.replicas()), map[string]*string{ //nolint:gosec // far fewer replicas
			"cleanup.policy":    new("compact"),
			"segment.bytes":     new(strconv.Itoa(snapshotSegmentBytes)),
			"max.message.bytes": new(strconv.Itoa(snapshotMessageBytes)),
		})
	})
	if refused, ok := errors.AsType[*kerr.Error](err); ok && !refused.Retriable {
		return &PreflightError{"topic " + l.snapshotsTopic, "missing", "there; creating it failed: " + err.Error()}
	}
	return err
}

// remakeSnapshots makes the topic of the snapshots again when somebody deleted
// it while the ledger is open.
func (l *Log) remakeSnapshots(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	t, err := l.describe(ctx, l.topic)
	if err != nil {
		return err
	}
	_, err = l.ensureSnapshots(ctx, t)
	return err
}
