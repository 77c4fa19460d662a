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

// topicState is a topic as the brokers describe it.
type topicState struct {
	name       string
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

// leader is the broker that serves a partition.
func (t *topicState) leader(partition int32) (int32, error) {
	for _, p := range t.partitions {
		switch {
		case p.Partition != partition:
		case p.Leader < 0:
			return 0, fmt.Errorf("partition %d: %w", partition, kerr.LeaderNotAvailable)
		default:
			return p.Leader, nil
		}
	}
	return 0, fmt.Errorf("partition %d: %w", partition, kerr.UnknownTopicOrPartition)
}

// describe asks the brokers for a topic.
func (l *Log) describe(ctx context.Context, topic string) (*topicState, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
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
	return &topicState{name: topic, id: answer.TopicID, partitions: answer.Partitions, brokers: len(resp.Brokers)}, nil
}

// awaitTopic describes a topic and waits until all of its partitions have a
// leader. A missing topic is ErrNotInitialized, unless it was created just now
// and not every broker may know.
//
//nolint:revive // created says whose topic is waited for; two functions would differ in one line
func (l *Log) awaitTopic(ctx context.Context, topic string, created bool) (*topicState, error) {
	var t *topicState
	err := l.retry(ctx, func() error {
		var err error
		t, err = l.describe(ctx, topic)
		if errors.Is(err, kerr.UnknownTopicOrPartition) && !created {
			return fmt.Errorf("%w: there is no topic %s", ErrNotInitialized, topic)
		}
		if err != nil {
			return err
		}
		return t.leaders()
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// awaitLedger is awaitTopic for the ledger's topic, and notes what it is.
func (l *Log) awaitLedger(ctx context.Context, created bool) (*topicState, error) {
	t, err := l.awaitTopic(ctx, l.topic, created)
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

// createTopic creates a topic with the settings that preflight asks for: those
// in configs, to which it adds what all topics have.
func (l *Log) createTopic(ctx context.Context, topic string, partitions int32, replicas int16, configs map[string]*string) error {
	if configs["retention.ms"] == nil {
		configs["retention.ms"] = new("-1")
	}
	configs["retention.bytes"] = new("-1")
	configs["message.timestamp.type"] = new("LogAppendTime")
	configs["min.insync.replicas"] = new(strconv.Itoa(max(1, min(int(replicas)-1, safeInSync))))
	if replicas > 1 {
		configs["unclean.leader.election.enable"] = new("false")
	}
	_, err := l.admin.CreateTopic(ctx, partitions, replicas, configs, topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another process was faster
	}
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// preflight checks all that could lose or change history. The error joins a
// *PreflightError for each finding.
func (l *Log) preflight(ctx context.Context, t *topicState) error {
	settings, err := l.settings(ctx, l.topic)
	if err != nil {
		return fmt.Errorf("read the topic's settings: %w", err)
	}
	starts, err := l.listOffsets(ctx, l.admin.ListStartOffsets, allPartitions(l.info.Partitions))
	if err != nil {
		return fmt.Errorf("ask for log starts: %w", err)
	}
	found := checkSettings(settings, ledgerSettings(), maxBatchBytes)
	unsafe := checkReplication(t, settings)
	if l.cfg.AllowSingleReplica {
		l.info.SingleReplica = len(unsafe) > 0
	} else {
		found = append(found, unsafe...)
	}
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

// settings returns a topic's settings that are in force.
func (l *Log) settings(ctx context.Context, topic string) (settings map[string]string, err error) {
	err = l.retry(ctx, func() (err error) { // not every broker knows a new topic at once
		settings, err = l.describeSettings(ctx, topic)
		return err
	})
	return settings, err
}

func (l *Log) describeSettings(ctx context.Context, topic string) (map[string]string, error) {
	resources, err := l.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(topic, nil)
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

// setting is one that must have one value.
type setting struct{ name, value string }

func ledgerSettings() []setting {
	return []setting{
		{"cleanup.policy", "delete"},
		{"retention.ms", "-1"},
		{"retention.bytes", "-1"},
		{"message.timestamp.type", "LogAppendTime"},
	}
}

// checkSettings judges the settings that do not depend on the replication.
func checkSettings(settings map[string]string, wanted []setting, batchBytes int) []error {
	var found []error
	for _, want := range wanted {
		if value := settings[want.name]; value != want.value {
			found = append(found, &PreflightError{want.name, orUnset(value), want.value})
		}
	}
	if n, err := strconv.Atoi(settings["max.message.bytes"]); err != nil || n < batchBytes {
		found = append(found, &PreflightError{
			"max.message.bytes", orUnset(settings["max.message.bytes"]), "at least " + strconv.Itoa(batchBytes),
		})
	}
	return found
}

// checkReplication judges whether an acknowledged record survives the loss of a
// broker.
func checkReplication(t *topicState, settings map[string]string) []error {
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
