package eventlogtest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/keten-ledger/keten/internal/eventlog"
)

func outputTopic(cfg eventlog.Config) string { return cfg.Prefix + ".output" }

func (s *suite) outputTopicIsCreated(t *testing.T) {
	cfg := s.config(t)
	info := s.init(t, cfg)
	admin := s.admin(t)
	topics, err := admin.ListTopics(t.Context(), topic(cfg), outputTopic(cfg))
	require.NoError(t, err)
	require.Len(t, topics[outputTopic(cfg)].Partitions, partitions)
	require.Equal(t, topics[topic(cfg)].Partitions.NumReplicas(), topics[outputTopic(cfg)].Partitions.NumReplicas())
	configs, err := admin.DescribeTopicConfigs(t.Context(), outputTopic(cfg))
	require.NoError(t, err)
	is := make(map[string]string)
	for _, c := range configs[0].Configs {
		is[c.Key] = c.MaybeValue()
	}
	for name, want := range map[string]string{
		"cleanup.policy": "delete", "retention.ms": "3888000000", "message.timestamp.type": "LogAppendTime",
		"segment.bytes": "67108864", "max.message.bytes": "1048576",
	} {
		require.Equal(t, want, is[name], name)
	}

	// A ledger of an earlier build has none.
	s.deleteTopic(t, outputTopic(cfg))
	require.Equal(t, info, reopen(t, cfg).Info())
	topics, err = admin.ListTopics(t.Context(), outputTopic(cfg))
	require.NoError(t, err)
	require.NoError(t, topics[outputTopic(cfg)].Err)
}

func (s *suite) preflightChecksTheOutputTopic(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	admin := s.admin(t)
	var refused *eventlog.PreflightError
	for _, bad := range []struct{ setting, value, good, says string }{
		{"cleanup.policy", "compact", "delete", "compact, but must be delete"},
		{"message.timestamp.type", "CreateTime", "LogAppendTime", "CreateTime, but must be LogAppendTime"},
		{"retention.ms", "-1", "3888000000", "-1, but must be 1 to 3888000000, which is 45 days"},
		{"retention.ms", "3888000001", "3600000", "3888000001, but must be 1 to 3888000000"},
		{"max.message.bytes", "500000", "1048576", "500000, but must be at least 524288"},
	} {
		alterTopic(t, admin, outputTopic(cfg), map[string]string{bad.setting: bad.value})
		_, err := eventlog.Open(t.Context(), cfg)
		require.ErrorAs(t, err, &refused, bad.setting)
		require.ErrorContains(t, err, bad.setting+" of topic "+outputTopic(cfg)+" is "+bad.says)
		_, err = eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg})
		require.ErrorAs(t, err, &refused, bad.setting)
		alterTopic(t, admin, outputTopic(cfg), map[string]string{bad.setting: bad.good})
		reopen(t, cfg)
	}
}

// outputReader reads all of the output from offsets.
func outputReader(t *testing.T, l *eventlog.Log, from map[int32]int64) *eventlog.OutputReader {
	t.Helper()
	r, err := l.NewOutputReader(from)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// readOutput polls until n records came, and returns their values by partition.
func readOutput(t *testing.T, r *eventlog.OutputReader, n int) (values map[int32][]string, next map[int32]int64) {
	t.Helper()
	ctx := within(t, patience)
	values, next = make(map[int32][]string), make(map[int32]int64)
	for n > 0 {
		fetched, err := r.Poll(ctx, 100)
		require.NoError(t, err)
		for _, f := range fetched {
			for _, rec := range f.Records {
				require.WithinDuration(t, time.Now(), time.UnixMilli(rec.TimeMS), patience)
				values[f.Partition] = append(values[f.Partition], string(rec.Value))
				n--
			}
			next[f.Partition] = f.Next
			require.LessOrEqual(t, f.Next, f.HighWatermark)
		}
	}
	require.Zero(t, n, "more records than expected")
	return values, next
}

func appendOutput(l *eventlog.Log, partition int32, from, n int) (values []string) {
	for i := range n {
		v := strconv.Itoa(from + i)
		values = append(values, v)
		l.AppendOutput(partition, []byte("key"), []byte(v))
	}
	return values
}

// Output comes back in order, and a reader goes on where it was.
func (s *suite) outputComesBack(t *testing.T) {
	l, cfg := s.open(t)
	want := map[int32][]string{0: appendOutput(l, 0, 0, 300), 2: appendOutput(l, 2, 1000, 5)}
	r := outputReader(t, l, nil)
	got, next := readOutput(t, r, 305)
	require.Equal(t, want, got)
	require.Equal(t, map[int32]int64{0: 300, 2: 5}, next)

	// What waits when the Log is closed is still sent.
	other := reopen(t, cfg)
	appendOutput(other, 1, 7, 1)
	other.Close()
	other.AppendOutput(1, nil, []byte("too late"))
	got, _ = readOutput(t, r, 1)
	require.Equal(t, map[int32][]string{1: {"7"}}, got)

	next[0] = 298
	got, _ = readOutput(t, outputReader(t, l, next), 3)
	require.Equal(t, map[int32][]string{0: {"298", "299"}, 1: {"7"}}, got)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := r.Poll(ctx, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	r.Close()
	_, err = r.Poll(t.Context(), 10)
	require.ErrorIs(t, err, eventlog.ErrClosed)
}

// A place that the topic does not have is no error: all that is there is read.
func (s *suite) outputIsReadFromWhereThereIsSome(t *testing.T) {
	l, cfg := s.open(t)
	appendOutput(l, 0, 0, 10)
	appendOutput(l, 1, 0, 2)
	readOutput(t, outputReader(t, l, nil), 12)
	var cut kadm.Offsets
	cut.AddOffset(outputTopic(cfg), 0, 6, -1)
	deleted, err := s.admin(t).DeleteRecords(within(t, patience), cut)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
	got, next := readOutput(t, outputReader(t, l, map[int32]int64{0: 3, 1: 99}), 6)
	require.Equal(t, map[int32][]string{0: {"6", "7", "8", "9"}, 1: {"0", "1"}}, got)
	require.Equal(t, map[int32]int64{0: 10, 1: 2}, next)
}

// An operator may delete the output while it is written and read. Some of it is
// lost; what comes later arrives.
func (s *suite) outputOutlivesItsTopic(t *testing.T) {
	l, cfg := s.open(t)
	appendOutput(l, 0, 0, 3)
	r := outputReader(t, l, nil)
	readOutput(t, r, 3)
	s.deleteTopic(t, outputTopic(cfg))
	r.Close()
	r = outputReader(t, l, map[int32]int64{0: 3}) // makes the topic again
	ctx := within(t, patience)
	arrived := make(chan string, 1)
	go func() {
		for {
			fetched, err := r.Poll(ctx, 1)
			if err != nil {
				return
			}
			select {
			case arrived <- string(fetched[0].Records[0].Value):
			default:
			}
		}
	}()
	for n := 100; ; n++ {
		appendOutput(l, 0, n, 1)
		select {
		case value := <-arrived:
			i, err := strconv.Atoi(value)
			require.NoError(t, err)
			require.GreaterOrEqual(t, i, 100)
			return
		case <-time.After(100 * time.Millisecond): // one record per tick until one arrives
		case <-ctx.Done():
			require.FailNow(t, "nothing arrives in the topic that was made again")
		}
	}
}

// While brokers do not answer, output is taken up to a bound and then dropped at
// once, all of it counted; the ledger has a buffer of its own.
func (s *suite) outputIsDroppedBeyondItsBounds(t *testing.T) {
	cfg := s.config(t)
	s.init(t, cfg)
	gate := NewGate()
	gated, registry := cfg, prometheus.NewRegistry()
	gated.Dialer, gated.Registerer = gate.Dial, registry
	l := reopen(t, gated)
	appendOutput(l, 0, 0, 1)
	require.Eventually(t, func() bool { return outputRecords(t, registry, "delivered") == 1 }, patience, 10*time.Millisecond)

	gate.Hold()
	const n = 20_000
	appendOutput(l, 0, 0, n)
	require.Eventually(t, func() bool { return outputRecords(t, registry, "dropped") >= n-1<<14 }, patience, 10*time.Millisecond)
	appended := make(chan error, 1)
	l.Append(message(t, 0, 1), func(_ int64, err error) { appended <- err })
	gate.Release()
	require.NoError(t, <-appended)
	require.Eventually(t, func() bool {
		return outputRecords(t, registry, "delivered")+outputRecords(t, registry, "dropped") == n+1
	}, patience, 10*time.Millisecond)
}

// outputRecords reads the counter of output.
func outputRecords(t *testing.T, registry *prometheus.Registry, result string) int {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "keten_output_records_total" && m.GetLabel()[0].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}
