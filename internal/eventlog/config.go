package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// DefaultPrefix opens the names of the ledger's topics and groups when
// Config.Prefix is empty.
const DefaultPrefix = "keten"

const (
	// openTimeout bounds Open and Init when ctx does not: a person waits.
	openTimeout = 10 * time.Second
	// dialTimeout bounds one connection attempt, so that openTimeout leaves
	// room for a second broker.
	dialTimeout = 3 * time.Second
	// answerTimeout is how long a broker may take over an answer, beyond what
	// the request itself allows it, before its connection is given up.
	answerTimeout = 5 * time.Second
	// metadataMinAge is how soon a client may ask again which broker leads a
	// partition. The library's default of 5 s would be the delay after every
	// first use of a topic and every change of leader.
	metadataMinAge = 100 * time.Millisecond
	// minBackoff and maxBackoff bound the pause between two tries of a request.
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// Config says which ledger to use and how to reach it.
type Config struct {
	// Brokers are the bootstrap addresses, host:port. Required.
	Brokers []string
	// Prefix names the ledger: its topic is <prefix>.ledger, with snapshots in
	// <prefix>.snapshots and the tasks' output in <prefix>.output. Empty means
	// DefaultPrefix.
	Prefix string
	// ClientID is the name under which the brokers and [Reader.Members] know
	// this process. Empty means the prefix.
	ClientID string
	// LedgerID names the original of a ledger that was copied to another
	// cluster, where its topic has another id. Zero: the topic is the original.
	LedgerID uuid.UUID
	// AllowSingleReplica accepts a topic whose acknowledged records may exist
	// on one broker only.
	AllowSingleReplica bool
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
	// Dialer opens connections to brokers. Nil: TCP.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Info is what is known of a ledger once it is open. It never changes.
type Info struct {
	// Prefix opens the names of the ledger's topics and consumer groups.
	Prefix     string
	LedgerID   uuid.UUID
	Partitions int32
	Window     int64 // W, in offsets
	// SingleReplica reports that acknowledged records may exist on one broker
	// only.
	SingleReplica bool
}

// withDefaults checks the required fields and fills in the others.
func (c Config) withDefaults() (Config, error) {
	if len(c.Brokers) == 0 || c.Logger == nil {
		return c, errors.New("brokers and logger are required")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.ClientID == "" {
		c.ClientID = c.Prefix
	}
	return c, nil
}

// topic is the name of the ledger's topic.
func (c *Config) topic() string { return c.Prefix + ".ledger" }

// snapshotsTopic is the name of the topic of the snapshots.
func (c *Config) snapshotsTopic() string { return c.Prefix + ".snapshots" }

// outputTopic is the name of the topic of the tasks' output.
func (c *Config) outputTopic() string { return c.Prefix + ".output" }

// options are those of every client of this package.
func (c *Config) options(watch *brokerWatch, logger *kafkaLog) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RetryBackoffFn(backoff),
		// A broker that is starting or stopping closes connections early. The
		// library would take that for a wrong TLS setting and fail what waits.
		kgo.AlwaysRetryEOF(),
		kgo.WithLogger(logger),
		kgo.WithHooks(watch),
		kgo.DisableClientMetrics(),
	}
	if c.Dialer != nil {
		return append(opts, kgo.Dialer(c.Dialer))
	}
	return append(opts, kgo.DialTimeout(dialTimeout))
}

// backoff is the pause before try n (from 1) of a request, with jitter.
func backoff(n int) time.Duration {
	d := maxBackoff
	if n < 6 {
		d = min(maxBackoff, minBackoff<<max(n-1, 0))
	}
	return d/2 + rand.N(d/2+1)
}
