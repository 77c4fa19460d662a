package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An OutputFetched is what one Poll brought of one partition of the output.
type OutputFetched struct {
	Partition int32
	Records   []OutputRaw // in order
	// Next is the offset to read on from when these have been dealt with.
	Next int64
	// HighWatermark is the partition's end when the records were fetched.
	HighWatermark int64
}

// An OutputRaw is a record of the output topic. Its bytes are shared with nobody.
type OutputRaw struct {
	Value  []byte
	TimeMS int64 // by the brokers' clock
}

// An OutputReader tails all partitions of the output topic. It is for one
// goroutine, except Close.
type OutputReader struct {
	log    *Log
	client *kgo.Client
	cancel context.CancelFunc
	from   map[int32]int64 // until the first Poll
	began  bool
	failed map[int32]outputFault // by partition that could not be read of late
}

// NewOutputReader returns a reader of all partitions of the output topic, each
// from the offset in from, else from its beginning. Where the topic no longer
// or not yet has that offset, it is read from its beginning: output is no truth,
// and losing some is no error. Nothing is sent before the first Poll.
func (l *Log) NewOutputReader(from map[int32]int64) (*OutputReader, error) {
	ctx, cancel := context.WithCancel(l.client.Context())
	client, err := kgo.NewClient(append(l.readOptions(), kgo.WithContext(ctx), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("configure Kafka reader of the output: %w", err)
	}
	return &OutputReader{log: l, client: client, cancel: cancel, from: from, failed: make(map[int32]outputFault)}, nil
}

// Poll waits until there is something to hand out, at most maxRecords records.
// The error is ctx's, [ErrClosed], or that the topic cannot be read: brokers are
// away, or it was deleted, in which case a new reader makes it again. After any
// error but ctx's the reader is to be closed.
func (r *OutputReader) Poll(ctx context.Context, maxRecords int) ([]OutputFetched, error) {
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	for {
		fetches := r.client.PollRecords(ctx, maxRecords)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if fetches.IsClientClosed() {
			return nil, ErrClosed
		}
		out, err := r.sort(fetches)
		if len(out) > 0 || err != nil {
			return out, err
		}
		if len(r.failed) > 0 {
			if err := sleep(ctx, maxErrorPause); err != nil {
				return nil, err
			}
		}
	}
}

// begin makes the topic when it is missing, and finds where to read.
func (r *OutputReader) begin(ctx context.Context) error {
	if r.began {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := r.log.remake(ctx, r.log.ensureOutput); err != nil {
		return fmt.Errorf("find the topic of the output: %w", r.log.explain(ctx, err))
	}
	starts, err := r.log.listOffsetsOf(ctx, r.log.outputTopic, r.log.admin.ListStartOffsets, allPartitions(r.log.info.Partitions))
	if err != nil {
		return fmt.Errorf("ask where the output starts: %w", err)
	}
	ends, err := r.log.listOffsetsOf(ctx, r.log.outputTopic, r.log.admin.ListEndOffsets, allPartitions(r.log.info.Partitions))
	if err != nil {
		return fmt.Errorf("ask where the output ends: %w", err)
	}
	offsets := make(map[int32]kgo.Offset, len(starts))
	for partition, start := range starts {
		at, known := r.from[partition]
		if !known || at < start || at > ends[partition] {
			at = start
		}
		offsets[partition] = kgo.NewOffset().At(at)
	}
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.log.outputTopic: offsets})
	r.began = true
	return nil
}

// sort turns what the library fetched into what Poll returns. Losses are passed
// over, other errors end the reader when they last.
func (r *OutputReader) sort(fetches kgo.Fetches) (out []OutputFetched, err error) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Err != nil && !isLoss(p.Err) && !errors.Is(p.Err, context.Canceled) {
			if r.noteFault(p.Partition, time.Now()) {
				err = fmt.Errorf("read the output of partition %d: %w", p.Partition, p.Err)
			}
		}
		if len(p.Records) == 0 || p.Topic != r.log.outputTopic {
			return
		}
		delete(r.failed, p.Partition)
		f := OutputFetched{Partition: p.Partition, HighWatermark: p.HighWatermark, Records: make([]OutputRaw, len(p.Records))}
		for i, rec := range p.Records {
			f.Records[i] = OutputRaw{Value: rec.Value, TimeMS: rec.Timestamp.UnixMilli()}
			f.Next = rec.Offset + 1
		}
		out = append(out, f)
	})
	return out, err
}

// Close ends the reader. A Poll that runs returns [ErrClosed].
func (r *OutputReader) Close() {
	r.cancel()
	r.client.Close()
}

// An outputFault is since when a partition cannot be read, and when that was last
// seen: one that brings nothing new may be well again.
type outputFault struct{ since, last time.Time }

// noteFault reports whether a partition has been in trouble for too long.
func (r *OutputReader) noteFault(partition int32, now time.Time) bool {
	f := r.failed[partition]
	if now.Sub(f.last) >= faultPatience {
		f.since = now
	}
	f.last = now
	r.failed[partition] = f
	return now.Sub(f.since) >= faultPatience
}
