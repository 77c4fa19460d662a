package readmodel_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
)

// BenchmarkWrite projects a prepared history: chains of five tasks, eleven
// records each, folded and written by one goroutine. batch is the number of
// records in a transaction over 12 partitions; with wide histories a chain
// spreads over many transactions, as it does when it runs live.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name       string
		chains     int
		concurrent int
		batch      int
	}{
		{"narrow/batch=12000", 20_000, 8, 12_000},
		{"wide/batch=1200", 10_000, 100, 1_200},
		{"wide/batch=240", 10_000, 100, 240},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := setup(b)
			logs := f.history(b, history.Options{Seed: 1, Partitions: 12, Chains: c.chains, Tasks: 5, Concurrent: c.concurrent})
			records := 0
			for _, l := range logs {
				records += len(l)
			}
			b.ResetTimer()
			for i := range b.N {
				s := f.open(b, fmt.Sprintf("bench_%d", i))
				w := newWriter(b, s, f.ledgerID, logs)
				start := time.Now()
				w.all(b, always(c.batch/12))
				b.ReportMetric(float64(records)/time.Since(start).Seconds(), "records/s")
				b.ReportMetric(float64(c.chains)/time.Since(start).Seconds(), "chains/s")
			}
		})
	}
}

// BenchmarkWriteOne is the latency of a transaction with one record.
func BenchmarkWriteOne(b *testing.B) {
	f := setup(b)
	logs := f.history(b, history.Options{Seed: 1, Partitions: 1, Chains: 2 + b.N/11, Tasks: 5})
	w := newWriter(b, f.Store, f.ledgerID, logs)
	b.ResetTimer()
	for range b.N {
		c := w.next(b, 0, 1)
		require.NotNil(b, c)
		require.NoError(b, f.Write(b.Context(), []*readmodel.Changes{c}))
	}
}
