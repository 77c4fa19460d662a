package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/ledger"
)

const (
	// fetchMaxWait is how long a broker holds a fetch while there is nothing
	// new; it answers at once when there is. A partition that was just assigned
	// waits for the fetch under way without it, so this is how late an idle
	// group takes over.
	fetchMaxWait = 250 * time.Millisecond
	// fetchMaxBytes and fetchPartitionBytes bound what one answer of a broker
	// holds, and with it the memory of a reader.
	fetchMaxBytes       = 16 << 20
	fetchPartitionBytes = 1 << 20
	// minErrorPause and maxErrorPause are the pauses after polls that brought
	// nothing but errors. They are short, because healthy partitions wait too.
	minErrorPause = 5 * time.Millisecond
	maxErrorPause = 100 * time.Millisecond
	// leaveTimeout bounds the goodbye to a silent broker.
	leaveTimeout = 2 * time.Second
)

// A Start is where a partition is read from.
type Start struct {
	// Offset is that of the first record wanted.
	Offset int64
	// LeaderEpoch is that of the record before it, -1 if unknown. With it, a
	// log that was cut and has grown again since is noticed.
	LeaderEpoch int32
}

// ReaderConfig says what a Reader reads.
type ReaderConfig struct {
	// From are the partitions to read, each from its start.
	From map[int32]Start
}

// Fetched is what one Poll brought of one partition.
type Fetched struct {
	Partition int32
	// Records are in order and follow those of the Poll before. Offsets may
	// have gaps. Their bytes are shared with nobody and may be kept.
	Records []ledger.Record
	// HighWatermark is the partition's log end when the records were fetched.
	HighWatermark int64
	// Err is [ErrDataLoss], [ErrCorrupt] or a *[PreflightError] about the
	// partition count: this reader is done with this partition, whose Records
	// are empty here and which is not mentioned again (in a group: until it is
	// assigned again).
	Err error
}

// A Reader reads partitions of the ledger in order. Poll is for one goroutine;
// the other methods may be called from any.
type Reader struct {
	log    *Log
	client *kgo.Client
	cancel context.CancelFunc // cuts all that the client does short
	// retired: no partitions are wanted any more.
	retired atomic.Bool

	starts map[int32]Start // fixed partitions not begun; Poll's
	pause  time.Duration   // after the last poll that brought errors only; Poll's
	faults map[int32]*fault
	quiet  time.Time // no session errors are logged before

	mu      sync.Mutex
	next    map[int32]int64 // by partition being read: the least offset to come
	over    map[int32]error // partitions this reader is done with
	pending []Fetched       // errors found outside of Poll
	wake    context.CancelFunc
}

// NewReader returns a reader of fixed partitions. Nothing is sent before the
// first Poll.
func (l *Log) NewReader(cfg ReaderConfig) (*Reader, error) {
	for partition, start := range cfg.From {
		if partition < 0 || partition >= l.info.Partitions || start.Offset < 0 {
			return nil, fmt.Errorf("read ledger: partition %d from offset %d does not exist", partition, start.Offset)
		}
	}
	return l.newReader(cfg.From, fetchPartitionBytes)
}

func (l *Log) newReader(from map[int32]Start, partitionBytes int32) (*Reader, error) {
	r := l.emptyReader()
	maps.Copy(r.starts, from)
	if err := r.connect(kgo.FetchMaxPartitionBytes(partitionBytes)); err != nil {
		return nil, err
	}
	return r, nil
}

func (l *Log) emptyReader() *Reader {
	return &Reader{
		log: l, starts: make(map[int32]Start), faults: make(map[int32]*fault),
		next: make(map[int32]int64), over: make(map[int32]error),
	}
}

// connect makes the reader's client, with options beside those of every reader.
// It ends with the Log's.
func (r *Reader) connect(more ...kgo.Opt) (err error) {
	ctx, cancel := context.WithCancel(r.log.client.Context())
	r.cancel = cancel
	opts := append(r.log.readOptions(), kgo.WithContext(ctx))
	if r.client, err = kgo.NewClient(append(opts, more...)...); err != nil {
		cancel()
		return fmt.Errorf("configure Kafka reader: %w", err)
	}
	return nil
}

// readOptions are those of every client that reads.
func (l *Log) readOptions() []kgo.Opt {
	return append(l.cfg.options(l.watch, l.library),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		// Never look for another place to read from when the wanted one is gone.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// See what keeps a partition from being read; the library would retry
		// some of it in silence for good.
		kgo.KeepRetryableFetchErrors(),
	)
}

// Poll waits until there is something to hand out, or returns ctx's error when
// it ends first, and [ErrClosed] after Close. It returns at most maxRecords
// records, in one entry or two per partition. In a group, what it returns
// belongs to the assignment last reported: the callbacks only run while Poll
// does.
func (r *Reader) Poll(ctx context.Context, maxRecords int) ([]Fetched, error) {
	for {
		r.client.AllowRebalance()
		if err := r.begin(ctx); err != nil {
			return nil, err
		}
		if out := r.takePending(); len(out) > 0 {
			return out, nil
		}
		fetches := r.fetch(ctx, maxRecords)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if fetches.IsClientClosed() {
			return nil, ErrClosed
		}
		out, troubled := r.sort(ctx, fetches)
		if len(out) > 0 {
			r.pause = 0
			return out, nil
		}
		if !troubled {
			continue
		}
		r.pause = min(max(2*r.pause, minErrorPause), maxErrorPause)
		if err := sleep(ctx, r.pause); err != nil {
			return nil, err
		}
	}
}

// begin checks the starts of fixed partitions and adds them to what is fetched.
func (r *Reader) begin(ctx context.Context) error {
	if len(r.starts) == 0 {
		return nil
	}
	bad, err := r.verifyPatiently(ctx)
	if err != nil {
		return err
	}
	offsets := make(map[int32]kgo.Offset, len(r.starts))
	r.mu.Lock()
	for partition, start := range r.starts {
		if err := bad[partition]; err != nil {
			r.giveUp(partition, err)
			continue
		}
		offsets[partition] = start.offset()
		r.next[partition] = start.Offset
	}
	r.mu.Unlock()
	clear(r.starts)
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.log.topic: offsets})
	return nil
}

// verifyPatiently checks the starts as soon as the brokers let it. The error is
// ctx's.
func (r *Reader) verifyPatiently(ctx context.Context) (bad map[int32]error, err error) {
	for n := 1; ; n++ {
		bad, err = r.log.verify(ctx, r.starts)
		switch {
		case err == nil:
			return bad, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case r.client.Context().Err() != nil:
			return nil, ErrClosed
		}
		r.sessionFault(ctx, err)
		if err := sleep(ctx, backoff(n)); err != nil {
			return nil, err
		}
	}
}

func (s Start) offset() kgo.Offset { return kgo.NoResetOffset().At(s.Offset).WithEpoch(s.LeaderEpoch) }

// fetch polls the library, and stops early when pending errors are to be handed
// out.
func (r *Reader) fetch(ctx context.Context, maxRecords int) kgo.Fetches {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.wake = cancel
	waiting := len(r.pending) > 0
	r.mu.Unlock()
	if waiting {
		return nil
	}
	fetches := r.client.PollRecords(ctx, maxRecords)
	r.mu.Lock()
	r.wake = nil
	r.mu.Unlock()
	return fetches
}

// giveUp notes that a partition is over, to be handed out by Poll. Called with
// mu held.
func (r *Reader) giveUp(partition int32, err error) {
	r.over[partition] = err
	r.pending = append(r.pending, Fetched{Partition: partition, Err: err})
	if r.wake != nil {
		r.wake()
	}
}

func (r *Reader) takePending() []Fetched {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.pending
	r.pending = nil
	for _, f := range out {
		r.log.reportOver(f.Partition, f.Err)
	}
	return out
}

// reportOver logs the end of a partition, once per reader that meets it.
func (l *Log) reportOver(partition int32, err error) {
	l.metrics.lost(partition, "reader")
	l.cfg.Logger.Error("partition cannot be read any further",
		slog.Int64("partition", int64(partition)), slog.Any("error", err))
}

// sort turns what the library fetched into what Poll returns. troubled reports
// errors that may pass.
func (r *Reader) sort(ctx context.Context, fetches kgo.Fetches) (out []Fetched, troubled bool) {
	// Losses first: the library reports one and goes on elsewhere, so records
	// of another history may be in the same answer.
	fetches.EachError(func(_ string, partition int32, err error) {
		if isLoss(err) {
			r.stopAt(partition, fmt.Errorf("%w: %w", ErrDataLoss, err))
		}
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Topic != r.log.topic {
			troubled = r.sessionFault(ctx, p.Err) || troubled
			return
		}
		if len(p.Records) > 0 {
			if f, ok := r.convert(p); ok {
				out = append(out, f)
				r.healed(ctx, p.Partition)
			}
		}
		if p.Err != nil && !isLoss(p.Err) {
			troubled = true
			r.fault(ctx, p.Partition, p.Err)
		}
	})
	return append(out, r.takePending()...), troubled
}

// isLoss reports whether err says that the log no longer holds what was read.
func isLoss(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange)
}

// convert checks and converts the records of one partition. ok is false when
// they are not to be handed out.
func (r *Reader) convert(p kgo.FetchTopicPartition) (f Fetched, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, reading := r.next[p.Partition]
	if !reading || r.over[p.Partition] != nil {
		return Fetched{}, false
	}
	headers := 0
	for _, rec := range p.Records {
		headers += len(rec.Headers)
		if rec.Offset < next {
			r.giveUp(p.Partition, fmt.Errorf("%w: offset %d came after offset %d", ErrDataLoss, rec.Offset, next-1))
			return Fetched{}, false
		}
		next = rec.Offset + 1
	}
	r.next[p.Partition] = next
	return Fetched{Partition: p.Partition, Records: convertRecords(p.Records, headers), HighWatermark: p.HighWatermark}, true
}

// convertRecords makes ledger records that share the library's bytes. headers is
// how many headers they have together.
func convertRecords(from []*kgo.Record, headers int) []ledger.Record {
	records := make([]ledger.Record, len(from))
	all := make([]ledger.Header, 0, headers)
	for i, rec := range from {
		first := len(all)
		for _, h := range rec.Headers {
			all = append(all, ledger.Header(h))
		}
		records[i] = ledger.Record{
			Partition: rec.Partition, Offset: rec.Offset, LeaderEpoch: rec.LeaderEpoch,
			TimeMS: rec.Timestamp.UnixMilli(),
			Key:    rec.Key, Value: rec.Value, Headers: all[first:len(all):len(all)],
		}
	}
	return records
}

// stopAt ends a partition for good, or all that are read when the library speaks of
// the topic as a whole: its number for that is below zero.
func (r *Reader) stopAt(partition int32, err error) {
	if partition < 0 {
		r.mu.Lock()
		reading := slices.Collect(maps.Keys(r.next))
		r.mu.Unlock()
		for _, p := range reading {
			r.stopAt(p, err)
		}
		delete(r.faults, partition)
		return
	}
	r.mu.Lock()
	if r.over[partition] == nil {
		r.giveUp(partition, err)
	}
	r.mu.Unlock()
	r.stop(partition)
}

// stop ends the fetching of a partition.
func (r *Reader) stop(partition int32) {
	r.client.PauseFetchPartitions(map[string][]int32{r.log.topic: {partition}})
	delete(r.faults, partition)
}

// Close ends the reader; in a group it leaves the group, so that others take
// over at once, which it tries for at most 2 s. A Poll that runs returns
// [ErrClosed].
func (r *Reader) Close() {
	late := time.AfterFunc(leaveTimeout, r.cancel)
	defer late.Stop()
	r.client.CloseAllowingRebalance()
	r.cancel()
}
