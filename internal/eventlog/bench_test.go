package eventlog_test

import (
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

// inFlight bounds the appends that wait for their acknowledgment in the
// benchmarks, below what the Log would refuse.
const inFlight = 20_000

// BenchmarkAppend is the floor under everything: raw appends of 500-byte
// records, acks=all, over 12 partitions, as fast as the broker takes them.
func BenchmarkAppend(b *testing.B) {
	b.Run("embedded", func(b *testing.B) { benchmarkAppend(b, embeddedOnDisk(b)) })
	b.Run("kafka", func(b *testing.B) { benchmarkAppend(b, kafkatest.Brokers(b)) })
}

// BenchmarkAppendWait is one append at a time, each awaited.
func BenchmarkAppendWait(b *testing.B) {
	b.Run("embedded", func(b *testing.B) { benchmarkAppendWait(b, embeddedOnDisk(b)) })
	b.Run("kafka", func(b *testing.B) { benchmarkAppendWait(b, kafkatest.Brokers(b)) })
}

// BenchmarkRead reads back what was appended, from offset 0.
func BenchmarkRead(b *testing.B) {
	b.Run("embedded", func(b *testing.B) { benchmarkRead(b, embeddedOnDisk(b)) })
	b.Run("kafka", func(b *testing.B) { benchmarkRead(b, kafkatest.Brokers(b)) })
}

func benchmarkAppend(b *testing.B, brokers []string) {
	l := benchLog(b, brokers)
	msgs := benchMessages(b)
	b.SetBytes(500)
	b.ResetTimer()
	flood(b, l, msgs, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// flood appends n records and waits until all are acknowledged.
func flood(b *testing.B, l *eventlog.Log, msgs []ledger.Message, n int) {
	b.Helper()
	slots := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for i := range n {
		slots <- struct{}{}
		wg.Add(1)
		l.Append(msgs[i%len(msgs)], func(_ int64, err error) {
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	require.NoError(b, failed)
}

func benchmarkAppendWait(b *testing.B, brokers []string) {
	l := benchLog(b, brokers)
	msgs := benchMessages(b)
	flood(b, l, msgs, 1000) // warm
	b.ResetTimer()
	for i := range b.N {
		_, err := l.AppendWait(b.Context(), msgs[i%len(msgs)])
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func benchmarkRead(b *testing.B, brokers []string) {
	l := benchLog(b, brokers)
	flood(b, l, benchMessages(b), b.N)
	from := make(map[int32]eventlog.Start)
	for p := range l.Info().Partitions {
		from[p] = eventlog.Start{LeaderEpoch: -1}
	}
	r, err := l.NewReader(eventlog.ReaderConfig{From: from})
	require.NoError(b, err)
	b.Cleanup(r.Close)
	b.SetBytes(500)
	b.ResetTimer()
	for n := 0; n < b.N+int(l.Info().Partitions); {
		fetched, err := r.Poll(b.Context(), 10_000)
		require.NoError(b, err)
		for _, f := range fetched {
			require.NoError(b, f.Err)
			n += len(f.Records)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func benchLog(b *testing.B, brokers []string) *eventlog.Log {
	b.Helper()
	cfg := eventlog.Config{
		Brokers: brokers, Prefix: "bench-" + uuid.NewString(), AllowSingleReplica: true,
		Logger: slog.New(slog.DiscardHandler),
	}
	_, err := eventlog.Init(b.Context(), eventlog.InitConfig{Config: cfg})
	require.NoError(b, err)
	l, err := eventlog.Open(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(l.Close)
	return l
}

// embeddedOnDisk is the embedded broker as it is used for development.
func embeddedOnDisk(b *testing.B) []string {
	b.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(b.TempDir()), kfake.SyncWrites(),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "log.retention.bytes": "-1"}))
	require.NoError(b, err)
	b.Cleanup(c.Close)
	return c.ListenAddrs()
}

// benchMessages are task results that make records of about 500 bytes with
// their headers, over 12 partitions.
func benchMessages(b *testing.B) []ledger.Message {
	b.Helper()
	msgs := make([]ledger.Message, 12*1024)
	for i := range msgs {
		partition := int32(i % eventlog.DefaultPartitions)
		id, err := uuid.NewV7()
		require.NoError(b, err)
		var random [8]byte
		for j := range random {
			random[j] = byte(rand.Uint32())
		}
		collection := ledger.NewCollectionID(partition, time.Now(), random)
		msgs[i], err = ledger.Encode(partition, ledger.Meta{EventID: id, Source: ledger.Source(uuid.New(), "executor"), Time: time.Now()},
			ledger.TaskSucceeded{
				CollectionID: collection, Tenant: "default", Run: 1, TaskID: ledger.TaskID(collection, ledger.KindTask, 0),
				AttemptID: 12345, Worker: "default." + uuid.NewString(),
				Result: json.RawMessage(`"` + strings.ToUpper(uuid.NewString()) + `"`),
			})
		require.NoError(b, err)
	}
	return msgs
}
