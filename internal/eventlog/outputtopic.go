package eventlog

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// OutputRetention is how long what tasks said while they ran is kept, in
	// the topic and in tables made of it.
	OutputRetention = 45 * 24 * time.Hour
	// outputSegmentBytes bounds what a partition of the output topic keeps
	// beyond its retention: brokers delete whole segments.
	outputSegmentBytes = 64 << 20
	// outputMessageBytes is what a new output topic takes.
	outputMessageBytes = 1 << 20
)

// preflightOutput checks the topic of the tasks' output and makes it when it is
// missing, as preflightSnapshots does. Its replication is the operator's affair:
// output may be lost. The error joins a *PreflightError for each finding.
func (l *Log) preflightOutput(ctx context.Context, ledgerTopic *topicState) error {
	t, err := l.ensureOutput(ctx, ledgerTopic)
	if err != nil {
		return err
	}
	settings, err := l.settings(ctx, t.name)
	if err != nil {
		return fmt.Errorf("read the settings of topic %s: %w", t.name, err)
	}
	found := checkSettings(settings, []setting{
		{"cleanup.policy", "delete"},
		{"message.timestamp.type", "LogAppendTime"}, // retention goes by the brokers' clock, not by each worker's
	}, maxOutputBatchBytes)
	most := OutputRetention.Milliseconds()
	if ms, err := strconv.ParseInt(settings["retention.ms"], 10, 64); err != nil || ms <= 0 || ms > most {
		found = append(found, &PreflightError{
			"retention.ms", orUnset(settings["retention.ms"]), "1 to " + strconv.FormatInt(most, 10) + ", which is 45 days",
		})
	}
	return ofTopic(t.name, found)
}

// ensureOutput describes the topic of the output, created before when it was
// missing.
func (l *Log) ensureOutput(ctx context.Context, ledgerTopic *topicState) (*topicState, error) {
	return l.ensureBeside(ctx, ledgerTopic, l.outputTopic, map[string]*string{
		"cleanup.policy":    new("delete"),
		"retention.ms":      new(strconv.FormatInt(OutputRetention.Milliseconds(), 10)),
		"segment.bytes":     new(strconv.Itoa(outputSegmentBytes)),
		"max.message.bytes": new(strconv.Itoa(outputMessageBytes)),
	})
}
