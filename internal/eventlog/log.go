package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/ledger"
)

const (
	// maxBufferedRecords and maxBufferedBytes bound what waits for the broker:
	// memory, and how much is in doubt when the process dies. Beyond them an
	// append is refused, see ErrOverloaded.
	maxBufferedRecords = 1 << 16
	maxBufferedBytes   = 128 << 20
	// batchOverhead is what a record adds to the largest event: key, headers
	// and framing.
	batchOverhead = 64 << 10
	// maxBatchBytes bounds a batch. The topic must take as much (preflight), so
	// that no batch is refused.
	maxBatchBytes = ledger.MaxEventBytes + batchOverhead
	// closeTimeout is how long Close waits for records that are on their way.
	closeTimeout = 5 * time.Second
)

// A Log is an open ledger: one topic, checked, whose partitions are opened. It
// is safe for concurrent use.
type Log struct {
	cfg            Config
	topic          string
	topicID        uuid.UUID
	snapshotsTopic string
	outputTopic    string
	info           Info
	client         *kgo.Client // appends and requests; readers have their own
	admin          *kadm.Client
	watch          *brokerWatch
	library        *kafkaLog // what the Kafka library says, of all clients
	metrics        *metrics
	ends           *ends
	places         *places
	decompressor   kgo.Decompressor
	readSlots      chan struct{} // holds a token per snapshot that is being read
	writeSlots     chan struct{} // holds a token per snapshot that is being written
	opened         atomic.Bool   // whether Open succeeded
	output         outputWriter

	mu   sync.Mutex
	lost map[int32]bool // partitions whose acknowledged records were found missing
}

// Open connects to a ledger and checks that it is safe to use: the topic's
// settings, and that all partitions were opened as one ledger. It takes at most
// about 10 s. The errors: [ErrUnreachable], [ErrNotInitialized], one or more
// *[PreflightError], and *[ledger.HaltError] when the ledger was opened under
// rules that this build does not know.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	l, err := newLog(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := l.open(ctx); err != nil {
		l.client.Close()
		return nil, fmt.Errorf("open ledger %s: %w", l.topic, l.explain(ctx, err))
	}
	l.opened.Store(true)
	l.watch.begin()
	return l, nil
}

// newLog makes the client; nothing is sent yet. When ctx ends before the Log is
// opened, its connections are closed.
func newLog(ctx context.Context, cfg Config) (*Log, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	l := &Log{
		cfg: cfg, topic: cfg.topic(), snapshotsTopic: cfg.snapshotsTopic(), outputTopic: cfg.outputTopic(), metrics: m, watch: newBrokerWatch(cfg.Logger),
		library: newKafkaLog(cfg.Logger), ends: newEnds(), places: newPlaces(), decompressor: kgo.DefaultDecompressor(),
		readSlots: make(chan struct{}, snapshotsAtOnce), writeSlots: make(chan struct{}, snapshotsAtOnce),
		lost: make(map[int32]bool),
	}
	l.client, err = kgo.NewClient(append(cfg.options(l.watch, l.library),
		kgo.Dialer(l.dialWithin(ctx)),
		kgo.DefaultProduceTopicAlways(),
		kgo.DefaultProduceTopic(l.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		// Records are kept forever and repeat themselves; of the codecs this one
		// halves them at a cost in CPU that could not be measured.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxBatchBytes),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.MaxBufferedBytes(maxBufferedBytes),
		// A record is kept until it is acknowledged: no delivery timeout, no
		// limit of retries, also not while the topic seems unknown, which a
		// broker may say for a moment after its restart.
		kgo.UnknownTopicRetries(-1),
		kgo.ProducerOnDataLossDetected(l.producerLost),
	)...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	l.admin = kadm.NewClient(l.client)
	l.info.Prefix = cfg.Prefix
	return l, nil
}

// dialWithin returns the dialer of the Log's own client. The library starts a
// connection with a question that no context bounds, so a silent broker would
// keep a process from ending: until the Log is opened, a connection lasts no
// longer than ctx.
func (l *Log) dialWithin(open context.Context) func(context.Context, string, string) (net.Conn, error) {
	dial := l.cfg.Dialer
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(open, func() {
			if !l.opened.Load() {
				_ = conn.Close()
			}
		})
		return conn, nil
	}
}

// open does the checks of Open.
func (l *Log) open(ctx context.Context) error {
	if err := l.ping(ctx); err != nil {
		return err
	}
	t, err := l.awaitLedger(ctx, false)
	if err != nil {
		return err
	}
	if err := l.preflight(ctx, t); err != nil {
		return err
	}
	opened, err := l.readGenesis(ctx, allPartitions(l.info.Partitions))
	if err != nil {
		return err
	}
	if err := l.adopt(opened); err != nil {
		return err
	}
	return l.preflightBeside(ctx, t)
}

// explain adds to an error of opening that the brokers are to blame, when they
// are, and which.
func (l *Log) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case ctx.Err() == nil && !isNetwork(err):
		return err
	}
	addrs := strings.Join(l.cfg.Brokers, ", ")
	if why := l.watch.unreachable(); why != "" {
		return fmt.Errorf("%w at %s: %s", ErrUnreachable, addrs, why)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w at %s: no answer in time, last: %w", ErrUnreachable, addrs, err)
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, addrs, err)
}

// isNetwork reports whether err is about a connection, not about its content.
func isNetwork(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Info returns what the ledger is.
func (l *Log) Info() Info { return l.info }

// producerLost is told by the Kafka library that the broker no longer knows
// records it had acknowledged. The library goes on, and so do we: the fold
// absorbs what is appended twice. But the ledger is damaged, which readers will
// find, and Ready says until the process is started again.
func (l *Log) producerLost(_ string, partition int32) {
	l.mu.Lock()
	l.lost[partition] = true
	l.mu.Unlock()
	l.metrics.lost(partition, "producer")
	l.cfg.Logger.Error("broker lost acknowledged records", slog.Int64("partition", int64(partition)))
}

// Ready returns nil when the brokers answer, every partition has a leader and
// the topic is still the one that was opened. Bound it by ctx.
func (l *Log) Ready(ctx context.Context) error {
	if err := l.ready(ctx); err != nil {
		return fmt.Errorf("check ledger %s: %w", l.topic, err)
	}
	return nil
}

func (l *Log) ready(ctx context.Context) error {
	l.mu.Lock()
	n := len(l.lost)
	l.mu.Unlock()
	if n > 0 {
		return fmt.Errorf("%w: brokers lost acknowledged records of %d partitions", ErrDataLoss, n)
	}
	t, err := l.describe(ctx, l.topic)
	switch {
	case err != nil:
		return l.explain(ctx, err)
	case t.id != l.topicID:
		return fmt.Errorf("%w: the topic was deleted and created again", ErrDataLoss)
	case t.count() != l.info.Partitions:
		return partitionsError(t.count(), l.info.Partitions)
	}
	return t.leaders()
}

// Close waits up to 5 s for the records on their way, then gives up on them:
// their callbacks get [ErrOutcomeUnknown]. Close the readers first.
func (l *Log) Close() {
	l.output.close()
	ctx, cancel := context.WithTimeout(l.client.Context(), closeTimeout)
	defer cancel()
	if err := l.client.Flush(ctx); err != nil {
		l.cfg.Logger.WarnContext(ctx, "records left in doubt on closing",
			slog.Int64("records", l.client.BufferedProduceRecords()), slog.Any("error", err))
	}
	l.client.Close()
}
