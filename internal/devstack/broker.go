package devstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// BrokerConfig says where the broker keeps its data and where it listens.
type BrokerConfig struct {
	// Dir is the folder of the data, created when missing. Required.
	Dir string
	// Addr is a loopback address with a port; empty means 127.0.0.1:0, a free
	// port.
	Addr string
	// Logger is required.
	Logger *slog.Logger
}

// A Broker is a single Kafka-compatible broker inside this process, for
// development. Every produced batch is on disk before it is acknowledged;
// nothing is replicated and nothing expires.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    *flock.Flock
	once    sync.Once
}

// StartBroker opens the folder and serves it. The errors a user can mend, each
// with a sentence that says how: an address that is not loopback or is taken,
// and a folder in use ([ErrFolderInUse]).
func StartBroker(cfg BrokerConfig) (*Broker, error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, errors.New("start development broker: Dir and Logger are required")
	}
	b, err := startBroker(cfg)
	if err != nil {
		return nil, fmt.Errorf("start development broker: %w", err)
	}
	cfg.Logger.Info("development broker, single node, no replication",
		slog.String("addr", b.addr), slog.String("dir", cfg.Dir))
	return b, nil
}

func startBroker(cfg BrokerConfig) (*Broker, error) {
	addr, err := loopback(cfg.Addr)
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(cfg.Dir, private)
	if err != nil {
		return nil, err
	}
	ln, err := listen(addr)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ClusterID("keten-dev"),
		kfake.DataDir(cfg.Dir),
		kfake.SyncWrites(),
		// The broker enforces its seven-day default on every topic as soon as
		// one topic names a retention of its own.
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "log.retention.bytes": "-1"}),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return ln, nil }),
		kfake.WithLogger(brokerLog{logger: cfg.Logger}),
	)
	if err != nil {
		_ = ln.Close() // closed already when the broker got as far as listening
		return nil, errors.Join(fmt.Errorf("open folder %s: %w", cfg.Dir, err), lock.Close())
	}
	return &Broker{cluster: cluster, addr: ln.Addr().String(), lock: lock}, nil
}

// loopback turns the wanted address into one that cannot be reached from
// another machine, or refuses it.
func loopback(addr string) (netip.AddrPort, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read address %q: %w", addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ap, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read address %q: %w", addr, err)
	}
	if !ap.Addr().IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("address %s is not loopback: the development broker has no access control and listens on this machine only", addr)
	}
	return ap, nil
}

func listen(addr netip.AddrPort) (net.Listener, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken by another program; choose another port: %w", addr.Port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

// Addr returns host:port, the bootstrap address.
func (b *Broker) Addr() string { return b.addr }

// Addrs returns the bootstrap addresses the way clients want them.
func (b *Broker) Addrs() []string { return []string{b.addr} }

// Close stops serving, saves the state and gives the folder free. Clients see
// closed connections. Calling it again does nothing.
func (b *Broker) Close() {
	b.once.Do(func() {
		b.cluster.Close()
		_ = b.lock.Close() // the lock ends with the process anyway
	})
}

// brokerLog hands the broker's own messages on. Its format strings are not
// ours, so they become an attribute of a constant message.
type brokerLog struct{ logger *slog.Logger }

// Logf implements the broker's logging interface.
func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.logger.Error("development broker", slog.String("detail", fmt.Sprintf(format, args...)))
	case kfake.LogLevelWarn:
		l.logger.Warn("development broker", slog.String("detail", fmt.Sprintf(format, args...)))
	default:
		// Several lines per request: formatting them alone would cost.
	}
}
