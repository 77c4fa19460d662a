package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/internal/pgtest"
)

// stopWait bounds the ending of PostgreSQL, whose data is thrown away.
const stopWait = 5 * time.Second

//nolint:forbidigo // this is a main, although below internal
func main() {
	if code, ok := devstack.FetchChild(); ok {
		os.Exit(code)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stderr))
}

// run returns the exit code.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		_, _ = fmt.Fprintln(stderr, "usage: teststack -- command [argument ...]")
		return 2
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	code, err := withServers(ctx, args, stderr, signals)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "teststack:", err)
	}
	return code
}

// withServers ends what it started in every case; a signal during the start
// ends the start, one during the command goes to the command.
func withServers(ctx context.Context, args []string, stderr io.Writer, signals <-chan os.Signal) (code int, err error) {
	starting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	started := make(chan struct{})
	go func() {
		select {
		case sig := <-signals:
			stop(fmt.Errorf("stopped by signal: %v", sig))
		case <-started:
		}
	}()
	if err := provide(starting, stderr); err != nil {
		return 1, err
	}
	dir, remove, err := devstack.Scratch("keten-teststack-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := startServers(starting, dir, stderr)
	defer func() { err = errors.Join(err, s.stop(ctx)) }()
	close(started)
	if err != nil {
		return 1, err
	}
	return command(ctx, args, s.env(), signals)
}

// servers are the two that run, or one, when the other did not start.
type servers struct {
	kafka *kafkatest.Kafka
	pg    *devstack.Postgres
}

func startServers(ctx context.Context, dir string, stderr io.Writer) (*servers, error) {
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var s servers
	var group errgroup.Group
	group.Go(func() (err error) {
		s.kafka, err = kafkatest.Start(ctx, kafkatest.Config{Dir: filepath.Join(dir, "kafka"), Logger: logger})
		return err
	})
	group.Go(func() (err error) {
		s.pg, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: filepath.Join(dir, "pg"), Logger: logger})
		return err
	})
	return &s, group.Wait()
}

func (s *servers) env() []string {
	return []string{
		kafkatest.EnvBrokers + "=" + strings.Join(s.kafka.Brokers(), ","),
		pgtest.EnvURL + "=" + s.pg.URL(),
	}
}

// stop does not wait for anything to be written: the data goes with the folder.
func (s *servers) stop(ctx context.Context) error {
	var errs []error
	if s.kafka != nil {
		errs = append(errs, s.kafka.Kill()) //nolint:contextcheck // a kill is not waited for
	}
	if s.pg != nil {
		ctx, cancel := context.WithTimeout(ctx, stopWait)
		defer cancel()
		errs = append(errs, s.pg.Stop(ctx))
	}
	return errors.Join(errs...)
}

// command runs the command and passes signals on to it.
func command(ctx context.Context, args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // running the given command is the purpose
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("run %s: %w", args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			_ = cmd.Process.Signal(sig)
		case err := <-ended:
			return exitCode(cmd.ProcessState, err)
		}
	}
}

// exitCode is the command's own; one that died of a signal gets what a shell
// would say.
func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, fmt.Errorf("wait for the command: %w", err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}
