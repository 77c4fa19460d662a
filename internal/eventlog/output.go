package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What tasks say while they run is no state: its writer gives up where that of
// the ledger never does, and nothing of the ledger waits behind it.

const (
	// outputLinger is how long output waits for company: many tasks say a
	// little, and one batch costs a broker what one record does.
	outputLinger = 50 * time.Millisecond
	// outputRecords and outputBytes bound the output that waits for brokers.
	// What comes beyond is dropped.
	outputRecords = 1 << 14
	outputBytes   = 16 << 20
	// outputDelivery is how long a record is tried to be delivered: what comes
	// later interests nobody who watches.
	outputDelivery = 10 * time.Second
	// outputFlush bounds the wait for output when the Log is closed.
	outputFlush = 2 * time.Second
	// maxOutputBatchBytes bounds a batch; the topic must take as much.
	maxOutputBatchBytes = 512 << 10
	// outputLogEvery bounds how often it is logged that output is lost.
	outputLogEvery = time.Minute
)

// outputWriter is the client that writes output. It is made with the first
// record, since most processes write none. The zero value is ready for use.
type outputWriter struct {
	mu      sync.Mutex
	client  *kgo.Client
	closed  bool
	quiet   time.Time      // no loss is logged before
	leaving sync.WaitGroup // clients that are being closed
}

// AppendOutput sends a record to the topic of the tasks' output and never
// blocks. It may be dropped, which a metric counts: when too much waits for the
// brokers, when they don't take it in 10 s, after [Log.Close]. It may also be
// there twice. The bytes must not be changed afterwards.
func (l *Log) AppendOutput(partition int32, key, value []byte) {
	client := l.outputClient()
	if client == nil {
		l.metrics.outputDropped.Inc()
		return
	}
	r := &kgo.Record{Partition: partition, Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}}
	client.TryProduce(l.client.Context(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			l.outputDropped(client, err)
			return
		}
		l.metrics.outputDelivered.Inc()
	})
}

// outputClient returns the client for output, nil when there can be none.
func (l *Log) outputClient() *kgo.Client {
	w := &l.output
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client != nil || w.closed {
		return w.client
	}
	client, err := kgo.NewClient(append(l.cfg.options(l.watch, l.library),
		kgo.WithContext(l.client.Context()),
		kgo.DefaultProduceTopicAlways(),
		kgo.DefaultProduceTopic(l.outputTopic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.LeaderAck()),
		kgo.DisableIdempotentWrite(), // and so one request at a time, which keeps the order
		kgo.ProducerLinger(outputLinger),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxOutputBatchBytes),
		kgo.MaxBufferedRecords(outputRecords),
		kgo.MaxBufferedBytes(outputBytes),
		kgo.RecordDeliveryTimeout(outputDelivery),
	)...)
	if err != nil {
		l.cfg.Logger.Error("output of tasks cannot be written", slog.Any("error", err))
		return nil
	}
	w.client = client
	return client
}

// outputDropped counts a record that was given up. A client that knows a topic
// which was deleted does not look for the new one: the next record gets a new
// client.
func (l *Log) outputDropped(client *kgo.Client, err error) {
	l.metrics.outputDropped.Inc()
	w := &l.output
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if now := time.Now(); now.After(w.quiet) {
		w.quiet = now.Add(outputLogEvery)
		l.cfg.Logger.Warn("output of tasks is lost; the tasks are not affected", slog.Any("error", err))
	}
	if w.client == client && (errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)) {
		w.client = nil
		w.leaving.Go(client.Close) // not here: it waits for this callback
	}
}

// close waits for the output on its way, but not for long.
func (w *outputWriter) close() {
	w.mu.Lock()
	client := w.client
	w.closed, w.client = true, nil
	w.mu.Unlock()
	w.leaving.Wait()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(client.Context(), outputFlush)
	defer cancel()
	_ = client.Flush(ctx) // what remains is dropped and counted
	client.Close()
}
