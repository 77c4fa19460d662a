package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// Main is [Run] with its configuration from flags, or for those that are not
// given from the environment: KETEN_ and the flag's name in capitals, with _ for
// -. They are named as those of keten serve; -help lists them on standard error,
// where the log goes too. It returns nil when ctx has ended or SIGINT or SIGTERM
// came; a second signal ends the process at once.
func Main(ctx context.Context, args []string, registry *executor.Registry) error {
	cfg, err := configure(ctx, args, registry, os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal does what it does by default
	return Run(ctx, cfg)
}

// settings are the flags as they are written.
type settings struct {
	cfg                                  Config
	brokers, queues, logLevel, logFormat string
}

// configure reads flags and environment.
func configure(ctx context.Context, args []string, registry *executor.Registry, getenv func(string) string, stderr io.Writer) (Config, error) {
	var s settings
	f := flag.NewFlagSet("worker", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is the caller's to print
	s.define(f)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return Config{}, err
	}
	if f.NArg() > 0 {
		return Config{}, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err := fromEnvironment(f, getenv); err != nil {
		return Config{}, err
	}
	if s.cfg.Slots < 1 {
		return Config{}, fmt.Errorf("--slots: is %d, want 1 to %d", s.cfg.Slots, mostSlots)
	}
	if s.cfg.ShutdownGrace <= 0 {
		return Config{}, fmt.Errorf("--shutdown-grace: is %s, want more than 0", s.cfg.ShutdownGrace)
	}
	s.cfg.Registry, s.cfg.Brokers, s.cfg.Queues = registry, split(s.brokers), split(s.queues)
	var err error
	if s.cfg.Logger, err = newLogger(stderr, s.logLevel, s.logFormat); err != nil {
		return s.cfg, err
	}
	chosen := false
	f.Visit(func(fl *flag.Flag) { chosen = chosen || fl.Name == "outbox-dir" })
	if !chosen {
		s.cfg.OutboxDir = executor.MakeDefaultOutboxDir(ctx, s.cfg.Logger)
	}
	return s.cfg, nil
}

func (s *settings) define(f *flag.FlagSet) {
	f.StringVar(&s.brokers, "kafka-brokers", "127.0.0.1:9092", "Kafka brokers, host:port, separated by commas")
	f.StringVar(&s.cfg.Prefix, "prefix", "keten", "prefix of the ledger's topics and consumer groups")
	f.StringVar(&s.queues, "queues", ledger.DefaultQueue, "queues to serve, separated by commas")
	f.IntVar(&s.cfg.Slots, "slots", executor.DefaultSlots, "tasks that run at once in this process")
	f.DurationVar(&s.cfg.ShutdownGrace, "shutdown-grace", executor.DefaultShutdownGrace, "how long running tasks may go on after a signal to stop")
	f.StringVar(&s.cfg.OutboxDir, "outbox-dir", executor.DefaultOutboxDir(), "folder in which outcomes wait on the disk while Kafka is away, also over a restart; empty: in memory only")
	f.StringVar(&s.cfg.OutcomeKeyFile, "outcome-key-file", "", "key of the tokens with which outcomes are reported from outside, the same file as the API's")
	f.BoolVar(&s.cfg.AllowSingleReplica, "allow-single-replica", false, "accept topics that keep one copy of each record: for one broker, not for production")
	f.DurationVar(&s.cfg.Wait, "wait", time.Hour, "wait this long for Kafka and the ledger to come up")
	f.StringVar(&s.cfg.HTTPAddr, "http-addr", "127.0.0.1:8081", "address of /metrics, /healthz and /readyz; empty: none")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
}

// fromEnvironment fills flags that were not given. An empty variable counts as
// not set.
func fromEnvironment(f *flag.FlagSet, getenv func(string) string) error {
	given := make(map[string]bool)
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	var errs []error
	f.VisitAll(func(fl *flag.Flag) {
		name := "KETEN_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		value := getenv(name)
		if given[fl.Name] || value == "" {
			return
		}
		if err := f.Set(fl.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q: %w", name, value, err))
		}
	})
	return errors.Join(errs...)
}

func split(list string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
}
