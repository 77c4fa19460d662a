package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kslog"
)

// brokerWatch logs when a broker can no longer be reached and when it can
// again: once per change, however many clients and tries there are. It begins
// when the ledger is open: until then the error of Open says it, and whoever tries
// to open it again and again, each time with a new watch, would be told each time.
type brokerWatch struct {
	logger *slog.Logger

	mu   sync.Mutex
	open bool
	away map[string]error // address to the last error of connecting to it
}

func newBrokerWatch(logger *slog.Logger) *brokerWatch {
	return &brokerWatch{logger: logger, away: make(map[string]error)}
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (w *brokerWatch) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return // we gave up, which says nothing about the broker
	}
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, was := w.away[addr]
	if err != nil {
		w.away[addr] = err
	} else {
		delete(w.away, addr)
	}
	switch {
	case !w.open:
	case err != nil && !was:
		w.logAway(addr, err)
	case err == nil && was:
		w.logger.Info("broker can be reached again", slog.String("broker", addr))
	}
}

func (w *brokerWatch) logAway(addr string, err error) {
	w.logger.Warn("broker cannot be reached", slog.String("broker", addr), slog.Any("error", err))
}

// begin lets changes be logged, and logs which brokers are away already.
func (w *brokerWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
	for addr, err := range w.away {
		w.logAway(addr, err)
	}
}

// unreachable names the brokers that are away now, with the errors.
func (w *brokerWatch) unreachable() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := make([]string, 0, len(w.away))
	for addr, err := range w.away {
		parts = append(parts, addr+": "+err.Error())
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// repeatAfter is how long a message of the Kafka library is kept silent once it
// was logged: while a broker is away the library says the same thing at every
// try.
const repeatAfter = time.Minute

// dialMessage is what the library says of a failed connection; brokerWatch says
// it better.
const dialMessage = "unable to open connection to broker"

// kafkaLog hands the Kafka library's warnings and errors on.
type kafkaLog struct {
	next *kslog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by message; the library has a fixed set of them
}

func newKafkaLog(logger *slog.Logger) *kafkaLog {
	return &kafkaLog{next: kslog.New(logger), last: make(map[string]time.Time)}
}

// Level implements kgo.Logger.
func (l *kafkaLog) Level() kgo.LogLevel { return min(l.next.Level(), kgo.LogLevelWarn) }

// Log implements kgo.Logger.
func (l *kafkaLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level > kgo.LogLevelWarn || msg == dialMessage {
		return
	}
	now := time.Now()
	l.mu.Lock()
	last, seen := l.last[msg]
	repeated := seen && now.Sub(last) < repeatAfter
	if !repeated {
		l.last[msg] = now
	}
	l.mu.Unlock()
	if !repeated {
		l.next.Log(level, msg, keyvals...)
	}
}

// sleep waits for d, or returns ctx's error when it ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
