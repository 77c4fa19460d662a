package projector_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

// BenchmarkRun projects a topic that is there already: 20,000 chains of five
// tasks, eleven records each.
func BenchmarkRun(b *testing.B) {
	w := newWorld(b)
	logs := w.history(b, history.Options{Seed: 1, Chains: 20_000, Tasks: 5, Concurrent: 100})
	records := 0
	for i := 0; i < len(logs[0]); i += 5_000 { // the client holds so many at once
		w.append(b, cutAt(logs, i, i+5_000))
	}
	for _, l := range logs {
		records += len(l)
	}
	b.ResetTimer()
	for range b.N {
		s := w.open(b, w.url, "bench_"+uuid.NewString()[:8])
		began := time.Now()
		r := w.start(b, s, nil)
		w.awaitEnd(b, s)
		b.ReportMetric(float64(records)/time.Since(began).Seconds(), "records/s")
		b.ReportMetric(20_000/time.Since(began).Seconds(), "chains/s")
		r.stop(b)
	}
}

// BenchmarkRunOne is the time from a record's append to its row, at idle.
func BenchmarkRunOne(b *testing.B) {
	w := newWorld(b)
	s := w.open(b, w.url, "")
	r := w.start(b, s, nil)
	ctx, cancel := context.WithCancel(b.Context())
	listening := make(chan error, 1)
	go func() { listening <- s.Run(ctx) }()
	w.awaitEnd(b, s)
	require.Eventually(b, func() bool { return r.Ready() == nil }, patience, pollEvery)
	b.ResetTimer()
	for range b.N {
		offset, err := w.log.AppendWait(b.Context(), ledger.Message{Value: []byte("of somebody else")})
		require.NoError(b, err)
		require.NoError(b, s.WaitFor(b.Context(), readmodel.Position{Offset: offset + 1}))
	}
	b.StopTimer()
	cancel()
	require.NoError(b, <-listening)
}
