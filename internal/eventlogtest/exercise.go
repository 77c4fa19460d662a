package eventlogtest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// patience bounds every wait for a broker. It is generous: a young JVM on a
	// busy machine takes seconds over what takes milliseconds later.
	patience = 60 * time.Second
	// partitions of the ledgers in this suite, unless a test wants others.
	partitions = 3
	// window is the W of those ledgers, no default on purpose.
	window = 5_000
)

// Exercise runs the suite against a cluster. Every test makes a ledger of its
// own, so that a shared cluster will do; its topics are deleted afterwards.
func Exercise(t *testing.T, brokers []string) {
	t.Helper()
	s := &suite{brokers: brokers}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"InitCreatesTheTopic", s.initCreatesTheTopic},
		{"InitKeepsWhatIsThere", s.initKeepsWhatIsThere},
		{"InitAtTheSameTime", s.initAtTheSameTime},
		{"InitCompletesHalfAGenesis", s.initCompletesHalfAGenesis},
		{"OpenNeedsInit", s.openNeedsInit},
		{"PreflightRefusesSettings", s.preflightRefusesSettings},
		{"PreflightRefusesAllAtOnce", s.preflightRefusesAllAtOnce},
		{"PreflightRefusesFewReplicas", s.preflightRefusesFewReplicas},
		{"PreflightRefusesACutLog", s.preflightRefusesACutLog},
		{"PreflightRefusesAddedPartitions", s.preflightRefusesAddedPartitions},
		{"PreflightRefusesACopyUnlessNamed", s.preflightRefusesACopyUnlessNamed},
		{"PreflightRefusesAMixture", s.preflightRefusesAMixture},
		{"OtherRulesAreNamed", s.otherRulesAreNamed},
		{"UnreachableIsSaidInTime", s.unreachableIsSaidInTime},
		{"ClosesDespiteSilence", s.closesDespiteSilence},
		{"AppendsKeepTheirOrder", s.appendsKeepTheirOrder},
		{"RecordsComeBackAsTheyWere", s.recordsComeBackAsTheyWere},
		{"RepeatedAppendsAreTwoRecords", s.repeatedAppendsAreTwoRecords},
		{"OutcomeUnknownMayLand", s.outcomeUnknownMayLand},
		{"OverloadRefuses", s.overloadRefuses},
		{"RecordsOutliveAnOutage", s.recordsOutliveAnOutage},
		{"EndsAreLearnt", s.endsAreLearnt},
		{"ReaderStartsWhereTold", s.readerStartsWhereTold},
		{"ReaderNoticesLostHistory", s.readerNoticesLostHistory},
		{"ReaderNoticesADeletedBeginning", s.readerNoticesADeletedBeginning},
		{"ReaderNoticesADeletedMiddle", s.readerNoticesADeletedMiddle},
		{"ReaderNoticesANewTopic", s.readerNoticesANewTopic},
		{"ReaderWaitsForBrokers", s.readerWaitsForBrokers},
		{"GroupSharesPartitions", s.groupSharesPartitions},
		{"GroupNoticesLostHistory", s.groupNoticesLostHistory},
		{"SnapshotsTopicIsCreated", s.snapshotsTopicIsCreated},
		{"SnapshotsTopicIsMadeAgain", s.snapshotsTopicIsMadeAgain},
		{"PreflightChecksTheSnapshotsTopic", s.preflightChecksTheSnapshotsTopic},
		{"OutputTopicIsCreated", s.outputTopicIsCreated},
		{"PreflightChecksTheOutputTopic", s.preflightChecksTheOutputTopic},
		{"OutputComesBack", s.outputComesBack},
		{"OutputIsReadFromWhereThereIsSome", s.outputIsReadFromWhereThereIsSome},
		{"OutputOutlivesItsTopic", s.outputOutlivesItsTopic},
		{"OutputIsDroppedBeyondItsBounds", s.outputIsDroppedBeyondItsBounds},
		{"SnapshotComesBack", s.snapshotComesBack},
		{"ManyResumeAtOnce", s.manyResumeAtOnce},
		{"SnapshotIsSkippedWhenRecent", s.snapshotIsSkippedWhenRecent},
		{"TornSnapshotsAreNotUsed", s.tornSnapshotsAreNotUsed},
		{"ChunksOfTwoWritersDoNotMix", s.chunksOfTwoWritersDoNotMix},
		{"UnusableSnapshotsArePassedOver", s.unusableSnapshotsArePassedOver},
		{"OldSnapshotsAreDeleted", s.oldSnapshotsAreDeleted},
		{"SnapshotsOfOtherHistoriesAreRefused", s.snapshotsOfOtherHistoriesAreRefused},
		{"WritersNoticeLostHistory", s.writersNoticeLostHistory},
		{"WritersNoticeAnotherHistory", s.writersNoticeAnotherHistory},
		{"SnapshotsThatDisagreeStop", s.snapshotsThatDisagreeStop},
		{"SnapshotsOfADeletedLedgerAreRefused", s.snapshotsOfADeletedLedgerAreRefused},
		{"SnapshotsOfARefilledTopicArePassedOver", s.snapshotsOfARefilledTopicArePassedOver},
		{"SnapshotsOfTheOriginalArePassedOver", s.snapshotsOfTheOriginalArePassedOver},
		{"SnapshotsWaitForBrokers", s.snapshotsWaitForBrokers},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t)
		})
	}
}

type suite struct{ brokers []string }

// config is that of a ledger that does not exist yet.
func (s *suite) config(t *testing.T) eventlog.Config {
	t.Helper()
	cfg := eventlog.Config{
		Brokers: s.brokers, Prefix: "test-" + uuid.NewString()[:13], AllowSingleReplica: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...))
		require.NoError(t, err)
		defer client.Close()
		// What remains after a failed deletion are unused topics.
		_, _ = kadm.NewClient(client).DeleteTopics(ctx, topic(cfg), snapshotsTopic(cfg), outputTopic(cfg))
	})
	return cfg
}

func topic(cfg eventlog.Config) string { return cfg.Prefix + ".ledger" }

// init creates the ledger of cfg.
func (s *suite) init(t *testing.T, cfg eventlog.Config) eventlog.Info {
	t.Helper()
	info, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: partitions, Window: window})
	require.NoError(t, err)
	return info
}

// open creates a ledger and opens it.
func (s *suite) open(t *testing.T) (*eventlog.Log, eventlog.Config) {
	t.Helper()
	cfg := s.config(t)
	s.init(t, cfg)
	return reopen(t, cfg), cfg
}

// reopen opens a ledger that is there.
func reopen(t *testing.T, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// client is a plain client of the suite's own, to see and do what the event log
// does not.
func (s *suite) client(t *testing.T) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func (s *suite) admin(t *testing.T) *kadm.Client {
	t.Helper()
	return kadm.NewClient(s.client(t))
}

// within bounds a wait for the broker.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// message is a record that the ledger accepts the form of; n tells it from
// others.
func message(t *testing.T, partition int32, n int) ledger.Message {
	t.Helper()
	id := ledger.NewCollectionID(partition, time.Now(), [8]byte{byte(n >> 16), byte(n >> 8), byte(n)}) //nolint:gosec // the lower three bytes are meant
	return encode(t, partition, ledger.CancelRequested{
		CollectionID: id, Tenant: "default", Run: 1, RequestHash: strings.Repeat("0", 64), Reason: fmt.Sprintf("number %d", n),
	})
}

func encode(t *testing.T, partition int32, e ledger.Event) ledger.Message {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	msg, err := ledger.Encode(partition, ledger.Meta{EventID: id, Source: "/keten/test", Time: time.Now()}, e)
	require.NoError(t, err)
	return msg
}

// reader reads partitions from starts.
func reader(t *testing.T, l *eventlog.Log, from map[int32]eventlog.Start) *eventlog.Reader {
	t.Helper()
	r, err := l.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// beginning is where everything is read from.
func beginning(partitions ...int32) map[int32]eventlog.Start {
	from := make(map[int32]eventlog.Start, len(partitions))
	for _, p := range partitions {
		from[p] = eventlog.Start{LeaderEpoch: -1}
	}
	return from
}

// read polls until n records came, and returns them by partition.
func read(t *testing.T, r *eventlog.Reader, n int) map[int32][]ledger.Record {
	t.Helper()
	ctx := within(t, patience)
	got := make(map[int32][]ledger.Record)
	for n > 0 {
		fetched, err := r.Poll(ctx, 1000)
		require.NoError(t, err)
		for _, f := range fetched {
			require.NoError(t, f.Err)
			got[f.Partition] = append(got[f.Partition], f.Records...)
			n -= len(f.Records)
		}
	}
	require.Zero(t, n, "more records than expected")
	return got
}

// appendAll appends and waits for each.
func appendAll(t *testing.T, l *eventlog.Log, msgs ...ledger.Message) {
	t.Helper()
	for _, msg := range msgs {
		_, err := l.AppendWait(within(t, patience), msg)
		require.NoError(t, err)
	}
}
