package kafkatest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keten-ledger/keten/internal/devstack"
)

// EnvBrokers names brokers that are already running, separated by commas.
const EnvBrokers = "KETEN_TEST_BROKERS"

// shared is the one Kafka of this test process, started by the first test that
// asks; it ends with the process.
//
//nolint:gochecknoglobals // a process has one, and tests have no other place in common
var shared = sync.OnceValues(startShared)

// Brokers returns the brokers to test on: those KETEN_TEST_BROKERS names, else
// one Kafka that all tests of this process share. Topics and groups are the
// tests' to keep apart. Where there can be none, the test is skipped with the
// reason, and fails when CI=true.
func Brokers(t testing.TB) []string {
	t.Helper()
	if env := os.Getenv(EnvBrokers); env != "" {
		return strings.Split(env, ",")
	}
	k, err := shared()
	if err != nil {
		unavailable(t, err)
	}
	return k.Brokers()
}

// New starts a Kafka for this test alone, to be killed or paused at will, and
// ends it with the test. It always starts one, whatever KETEN_TEST_BROKERS says.
func New(t testing.TB, cfg Config) *Kafka {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	k, err := Start(t.Context(), cfg)
	if err != nil {
		unavailable(t, err)
	}
	t.Cleanup(func() {
		if err := k.Kill(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return k
}

// unavailable skips where a developer lacks Java; a pipeline that lost its
// broker must not pass for having tested.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("no Apache Kafka for tests: %v", err)
	}
	t.Skipf("no Apache Kafka for tests: %v", err)
}

func startShared() (*Kafka, error) {
	// The folder goes with a later test run: nothing tells a library that its
	// process ends.
	dir, remove, err := devstack.Scratch("keten-kafkatest-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	k, err := Start(context.Background(), Config{ //nolint:forbidigo // it outlives the test that asked first; Start bounds itself
		Dir:    filepath.Join(dir, "kafka"),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err == nil {
		k.hold = remove
	}
	return k, err
}
