package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/ledger"
)

// The roles of a process.
const (
	roleAPI       = "api"
	roleExecutor  = "executor"
	roleProjector = "projector"
)

// serverConfig is what the roles are made from.
type serverConfig struct {
	outcomeConfig

	brokers            []string
	prefix             string
	databaseURL        string
	schema             string // of the read models; empty: keten
	catalogPath        string
	httpAddr           string
	httpHosts          []string
	roles              []string
	slots              int
	queues             []string // empty: default, or with allQueues all of the catalog
	allQueues          bool
	httpAllowCIDRs     []string
	outboxDir          string
	partitions         int32
	replicationFactor  int16
	allowSingleReplica bool
	insecureNoAuth     bool
	own                bool // bring a broker and PostgreSQL along
	wait               time.Duration
	shutdownGrace      time.Duration
	logLevel           string
	logFormat          string
}

func (c *serverConfig) addLedgerFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.brokers, "kafka-brokers", []string{"127.0.0.1:9092"}, "Kafka brokers, host:port")
	f.StringVar(&c.prefix, "prefix", "keten", "prefix of the ledger's topics and consumer groups")
	f.StringVar(&c.databaseURL, "database-url", "", "PostgreSQL of the read models, also DATABASE_URL")
	f.BoolVar(&c.allowSingleReplica, "allow-single-replica", false, "accept topics that keep one copy of each record: for one broker, not for production")
	f.DurationVar(&c.wait, "wait", 0, "wait this long for Kafka and PostgreSQL to come up, e.g. 2m")
	c.addLogFlags(f)
}

func (c *serverConfig) addLogFlags(f *pflag.FlagSet) {
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
}

func (c *serverConfig) addServeFlags(f *pflag.FlagSet) {
	f.StringVar(&c.catalogPath, "catalog", "", "catalog of task types and templates (YAML)")
	f.StringVar(&c.httpAddr, "http-addr", "127.0.0.1:8080", "address of the API, metrics and health")
	f.StringSliceVar(&c.httpHosts, "http-hosts", nil, "names by which the API may be called, beside addresses and localhost")
	c.addOutcomeFlags(f)
	f.BoolVar(&c.insecureNoAuth, "insecure-no-auth", false, "listen on more than loopback although nobody is authenticated")
	f.IntVar(&c.slots, "slots", 64, "tasks that run at once in this process")
	f.StringSliceVar(&c.queues, "queues", nil, "queues whose tasks this process runs, e.g. default,gpu (default: default; an own stack: all of the catalog)")
	f.StringSliceVar(&c.httpAllowCIDRs, "http-allow-cidrs", nil, "addresses beside public ones that tasks of type http may call, e.g. 10.1.0.0/16")
	f.StringVar(&c.outboxDir, "outbox-dir", executor.DefaultOutboxDir(), "folder in which outcomes wait on the disk while Kafka is away, also over a restart; empty: in memory only")
	f.DurationVar(&c.shutdownGrace, "shutdown-grace", 10*time.Second, "how long running tasks may go on after a signal to stop")
}

// check returns all that is wrong, each with its flag's name.
func (c *serverConfig) check() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, r := range c.roles {
		if !slices.Contains([]string{roleAPI, roleExecutor, roleProjector}, r) {
			add("--roles: unknown role %q, want api, executor or projector", r)
		}
	}
	if c.needsPostgres() && c.databaseURL == "" {
		add("--database-url: roles api and projector need PostgreSQL (KETEN_DATABASE_URL)")
	}
	if c.shutdownGrace <= 0 {
		add("--shutdown-grace: is %s, want more than 0", c.shutdownGrace)
	}
	if c.wait < 0 {
		add("--wait: is %s, want 0 or more", c.wait)
	}
	if c.slots < 1 || c.slots > 10_000 {
		add("--slots: is %d, want 1 to 10000", c.slots)
	}
	errs = append(errs, c.checkListen(), c.checkQueues(), c.checkPublicURL())
	if _, err := c.allowedNetworks(); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return exitWith(exitUsage, err)
	}
	return nil
}

func (c *serverConfig) has(role string) bool { return slices.Contains(c.roles, role) }

func (c *serverConfig) needsPostgres() bool { return c.has(roleAPI) || c.has(roleProjector) }

func (c *serverConfig) checkQueues() error {
	if len(c.queues) > ledger.MaxQueues {
		return fmt.Errorf("--queues: has %d, at most %d can be served", len(c.queues), ledger.MaxQueues)
	}
	for _, q := range c.queues {
		if err := ledger.CheckText("queue", q, ledger.MaxKeyBytes); err != nil || q == "" {
			return fmt.Errorf("--queues: %q is not a queue's name: 1 to %d bytes of UTF-8", q, ledger.MaxKeyBytes)
		}
	}
	return nil
}

// allowedNetworks reads --http-allow-cidrs.
func (c *serverConfig) allowedNetworks() ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range c.httpAllowCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("--http-allow-cidrs: %q is not a network such as 10.1.0.0/16 or fd00::/8", text)
		}
		networks = append(networks, p)
	}
	return networks, nil
}

// queuesFor returns the queues to serve, in order, and those of the catalog that
// are left to other processes.
func (c *serverConfig) queuesFor(types *catalog.Catalog) (served, others []string) {
	named := map[string]bool{}
	for _, t := range types.Types {
		named[t.Queue] = named[t.Queue] || t.HasRunner()
	}
	for _, t := range types.Templates {
		for _, task := range t.Tasks {
			named[task.Queue] = named[task.Queue] || task.Type.HasRunner()
		}
	}
	// What only somebody else's program runs is no work for us, and a claim of
	// ours would be in its way.
	maps.DeleteFunc(named, func(_ string, ours bool) bool { return !ours })
	switch {
	case len(c.queues) > 0:
		served = c.queues
	case c.allQueues:
		served = append(slices.Collect(maps.Keys(named)), ledger.DefaultQueue)
	default:
		served = []string{ledger.DefaultQueue}
	}
	served = slices.Compact(slices.Sorted(slices.Values(served)))
	for _, q := range slices.Sorted(maps.Keys(named)) {
		if !slices.Contains(served, q) {
			others = append(others, q)
		}
	}
	return served, others
}

// checkListen refuses an address that others can reach: nobody is
// authenticated yet.
func (c *serverConfig) checkListen() error {
	host, _, err := net.SplitHostPort(c.httpAddr)
	if err != nil {
		return fmt.Errorf("--http-addr: %w", err)
	}
	ip := net.ParseIP(host)
	if c.insecureNoAuth || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--http-addr: %q is not a loopback address and no authentication is configured: anybody who reaches it could run tasks (--insecure-no-auth accepts that)", c.httpAddr)
}

func newLogger(io stdio, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, exitWith(exitUsage, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", level))
	}
	opts := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(io.err, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(io.err, opts)), nil
	}
	return nil, exitWith(exitUsage, fmt.Errorf("--log-format: %q is neither text nor json", format))
}
