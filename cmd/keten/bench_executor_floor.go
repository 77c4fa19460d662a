package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// A floor is what the log itself allows: one client that produces, and one that
// consumes and for every record it gets produces what an executor would, without
// decoding, judging or running anything. The records have the sizes, keys and
// headers of real ones, and carry their step in one more header.
type floor struct {
	topic    string
	brokers  []string
	producer *kgo.Client
	consumer *kgo.Client
	patterns [foldChainRecords]recordPattern
	chains   []benchChain // of the round
	records  int
	bytes    int // of keys and values
}

const (
	floorStep = "step"
	// floorOffset stands for the offsets in the records.
	floorOffset = 10_000
)

func (b *executorBench) newFloor(ctx context.Context) (_ *floor, err error) {
	f := &floor{topic: "keten-bench-" + uuid.NewString() + ".floor", brokers: b.cfg.brokers}
	if f.patterns, err = chainPatterns(ledger.Source(uuid.New(), "executor"), executor.NewWorkerID()); err != nil {
		return nil, err
	}
	common := []kgo.Opt{kgo.SeedBrokers(b.cfg.brokers...), kgo.MetadataMinAge(100 * time.Millisecond)}
	f.producer, err = kgo.NewClient(append(common, kgo.ProducerLinger(0), kgo.DefaultProduceTopic(f.topic), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()), kgo.MaxBufferedRecords(1<<17))...)
	if err != nil {
		return nil, err
	}
	if _, err := kadm.NewClient(f.producer).CreateTopic(ctx, defaultPartitions, 1, nil, f.topic); err != nil {
		f.producer.Close()
		return nil, err
	}
	f.consumer, err = kgo.NewClient(append(common, kgo.ConsumeTopics(f.topic), kgo.FetchMaxWait(250*time.Millisecond))...)
	return f, err
}

// recordBytes is how large the records were on average, without headers.
func (f *floor) recordBytes() int { return f.bytes / max(f.records, 1) }

func (f *floor) close(ctx context.Context) {
	f.consumer.Close()
	f.producer.Close()
	_ = dropTopics(ctx, f.brokers, f.topic) // left behind at worst
}

// round runs n chains through the log.
func (f *floor) round(ctx context.Context, n int) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, benchWait, errors.New("records do not come back"))
	defer cancel()
	var failed error
	var once sync.Once
	f.chains = make([]benchChain, n)
	for i := range f.chains {
		f.chains[i] = newBenchChain(ledger.NewCollectionID(int32(i%defaultPartitions), time.Now(), [8]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	produce := func(chain, step int) {
		f.producer.Produce(ctx, f.record(chain, step), func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
				cancel()
			}
		})
	}
	begin := time.Now()
	go func() {
		for i := range n {
			produce(i, 0)
		}
	}()
	for records := 0; records < n*foldChainRecords; {
		fetches := f.consumer.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return 0, fmt.Errorf("%w (%w), %d of %d records seen", err, context.Cause(ctx), records, n*foldChainRecords)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			records++
			f.bytes += len(r.Key) + len(r.Value)
			n := binary.BigEndian.Uint32(r.Headers[len(r.Headers)-1].Value)
			chain, step := int(n>>8), int(n&0xff)
			switch {
			case step == 0:
				produce(chain, 1)
			case step%2 == 1: // the outcome and the next start, back to back
				produce(chain, step+1)
				if step+2 < foldChainRecords {
					produce(chain, step+2)
				}
			}
		})
	}
	took := time.Since(begin)
	if err := f.producer.Flush(ctx); err != nil {
		return 0, err
	}
	f.records += n * foldChainRecords
	return took, failed
}

func (f *floor) record(chain, step int) *kgo.Record {
	p, c := &f.patterns[step], &f.chains[chain]
	r := &kgo.Record{
		Partition: int32(chain % defaultPartitions), Key: []byte(c.collection),
		Value: p.fill(c, floorOffset, 1), Headers: make([]kgo.RecordHeader, 0, len(p.headers)+1),
	}
	for _, h := range p.headers {
		r.Headers = append(r.Headers, kgo.RecordHeader(h))
	}
	mark := binary.BigEndian.AppendUint32(nil, uint32(chain<<8|step)) //nolint:gosec // at most 50,000 chains
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: floorStep, Value: mark})
	return r
}
