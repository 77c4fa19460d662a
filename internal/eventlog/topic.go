package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/keten-ledger/keten/ledger"
)

const (
	// safeReplicas and safeInSync are what production asks of a topic: one
	// broker may be lost without losing or refusing records.
	safeReplicas = 3
	safeInSync   = 2
)

// errNoAnswer reports a partition or topic that is missing in a broker's
// answer.
var errNoAnswer = errors.New("the broker's answer is incomplete")

// topicState is the topic as the brokers describe it.
type topicState struct {
	id         uuid.UUID
	partitions []kmsg.MetadataResponseTopicPartition
	brokers    int
}

func (t *topicState) count() int32 { return int32(len(t.partitions)) } //nolint:gosec // a topic has far fewer partitions

// replicas is the smallest number of copies that a partition has.
func (t *topicState) replicas() int {
	least := len(t.partitions[0].Replicas)
	for _, p := range t.partitions {
		least = min(least, len(p.Replicas))
	}
	return least
}

// leaders returns an error unless every partition has a leader.
func (t *topicState) leaders() error {
	for _, p := range t.partitions {
		if p.Leader < 0 {
			return fmt.Errorf("partition %d: %w", p.Partition, kerr.LeaderNotAvailable)
		}
	}
	return nil
}

// describe asks the brokers for the topic.
func (l *Log) describe(ctx context.Context) (*topicState, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(l.topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 {
		return nil, errNoAnswer
	}
	answer := resp.Topics[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	if len(answer.Partitions) == 0 {
		return nil, errNoAnswer
	}
	return &topicState{id: answer.TopicID, partitions: answer.Partitions, brokers: len(resp.Brokers)}, nil
}

// awaitTopic describes the topic and waits until all of its partitions have a
// leader. A missing topic is ErrNotInitialized, unless it was created just now
// and not every broker may know.
//
//nolint:revive // created says whose topic is waited for; two functions would differ in one line
func (l *Log) awaitTopic(ctx context.Context, created bool) (*topicState, error) {
	var t *topicState
	err := l.retry(ctx, func() error {
		var err error
		t, err = l.describe(ctx)
		if errors.Is(err, kerr.UnknownTopicOrPartition) && !created {
			return fmt.Errorf("%w: there is no topic %s", ErrNotInitialized, l.topic)
		}
		if err != nil {
			return err
		}
		return t.leaders()
	})
	if err != nil {
		return nil, err
	}
	l.topicID = t.id
	l.info.Partitions = t.count()
	return t, nil
}

// retry calls f again, with growing pauses, while it returns an error that time
// may heal. When ctx ends it returns f's last error.
func (l *Log) retry(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil || (!kerr.IsRetriable(err) && !errors.Is(err, errNoAnswer)) {
			return err
		}
		if sleep(ctx, backoff(n)) != nil {
			return err
		}
	}
}

// createTopic creates the topic with the settings that preflight asks for.
func (l *Log) createTopic(ctx context.Context, partitions int32, replicas int16) error {
	configs := map[string]*string{
		"cleanup.policy":         new("delete"),
		"retention.ms":           new("-1"),
		"retention.bytes":        new("-1"),
		"message.timestamp.type": new("LogAppendTime"),
		"min.insync.replicas":    new(strconv.Itoa(max(1, min(int(replicas)-1, safeInSync)))),
	}
	if replicas > 1 {
		configs["unclean.leader.election.enable"] = new("false")
	}
	_, err := l.admin.CreateTopic(ctx, partitions, replicas, configs, l.topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another process was faster
	}
	if err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	return nil
}

// preflight checks all that could lose or change history. The error joins a
// *PreflightError for each finding.
func (l *Log) preflight(ctx context.Context, t *topicState) error {
	settings, err := l.settings(ctx)
	if err != nil {
		return fmt.Errorf("read the topic's settings: %w", err)
	}
	starts, err := l.listOffsets(ctx, l.admin.ListStartOffsets)
	if err != nil {
		return fmt.Errorf("ask for log starts: %w", err)
	}
	found := checkSettings(settings)
	found = append(found, l.checkReplication(t, settings)...)
	if n := t.count(); n > ledger.MaxPartitions {
		found = append(found, &PreflightError{"partition count", strconv.Itoa(int(n)), "at most " + strconv.Itoa(ledger.MaxPartitions)})
	}
	for partition := range t.count() {
		if start := starts[partition]; start != 0 {
			found = append(found, &PreflightError{
				fmt.Sprintf("log start offset of partition %d", partition), strconv.FormatInt(start, 10),
				"0: the beginning of the ledger was deleted",
			})
		}
	}
	return errors.Join(found...)
}

// settings returns the topic's settings that are in force.
func (l *Log) settings(ctx context.Context) (map[string]string, error) {
	resources, err := l.admin.DescribeTopicConfigs(ctx, l.topic)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(l.topic, nil)
	if err != nil {
		return nil, err
	}
	if resource.Err != nil {
		return nil, resource.Err
	}
	settings := make(map[string]string, len(resource.Configs))
	for _, c := range resource.Configs {
		settings[c.Key] = c.MaybeValue()
	}
	return settings, nil
}

// checkSettings judges the settings that do not depend on the replication.
func checkSettings(settings map[string]string) []error {
	var found []error
	for _, want := range [...]struct{ name, value string }{
		{"cleanup.policy", "delete"},
		{"retention.ms", "-1"},
		{"retention.bytes", "-1"},
		{"message.timestamp.type", "LogAppendTime"},
	} {
		if value := settings[want.name]; value != want.value {
			found = append(found, &PreflightError{want.name, orUnset(value), want.value})
		}
	}
	if n, err := strconv.Atoi(settings["max.message.bytes"]); err != nil || n < maxBatchBytes {
		found = append(found, &PreflightError{
			"max.message.bytes", orUnset(settings["max.message.bytes"]), "at least " + strconv.Itoa(maxBatchBytes),
		})
	}
	return found
}

// checkReplication judges whether an acknowledged record survives the loss of a
// broker, and notes it in info when it is allowed not to.
func (l *Log) checkReplication(t *topicState, settings map[string]string) []error {
	var found []error
	const alone = ", or a single replica must be allowed"
	inSync, _ := strconv.Atoi(settings["min.insync.replicas"]) // not a number: 0, which is too few
	if n := t.replicas(); n < safeReplicas {
		found = append(found, &PreflightError{"replication factor", strconv.Itoa(n), "at least " + strconv.Itoa(safeReplicas) + alone})
	}
	if inSync < safeInSync {
		found = append(found, &PreflightError{
			"min.insync.replicas", orUnset(settings["min.insync.replicas"]), "at least " + strconv.Itoa(safeInSync) + alone,
		})
	}
	// Brokers that have no unclean elections don't name the setting.
	if value, ok := settings["unclean.leader.election.enable"]; ok && value != "false" {
		found = append(found, &PreflightError{"unclean.leader.election.enable", orUnset(value), "false" + alone})
	}
	if l.cfg.AllowSingleReplica {
		l.info.SingleReplica = len(found) > 0
		return nil
	}
	return found
}

func orUnset(value string) string {
	if value == "" {
		return "not set"
	}
	return value
}

func partitionsError(is, want int32) error {
	return &PreflightError{
		"partition count", strconv.Itoa(int(is)),
		strconv.Itoa(int(want)) + ": the count of a ledger never changes",
	}
}
