package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/worker"
)

const patience = 30 * time.Second

// TestMain lets this binary be a program that calls worker.Main.
func TestMain(m *testing.M) {
	if os.Getenv("WORKER_TEST_MAIN") == "" {
		os.Exit(m.Run())
	}
	if err := worker.Main(context.Background(), os.Args[1:], greeter()); err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
		os.Exit(1)
	}
	os.Exit(0)
}

func greeter() *executor.Registry {
	reg := executor.NewRegistry()
	executor.Handle(reg, "greet", func(_ context.Context, t executor.Task[struct{ Name string }]) (string, error) {
		return "hello " + t.Args.Name, nil
	})
	return reg
}

// newLedger makes a ledger on a broker in memory, which listens on loopback.
func newLedger(t *testing.T) (brokers []string, log *eventlog.Log) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs(), initialize(t, cluster.ListenAddrs())
}

func initialize(t *testing.T, brokers []string) *eventlog.Log {
	t.Helper()
	cfg := eventlog.Config{Brokers: brokers, AllowSingleReplica: true, Logger: slog.New(slog.DiscardHandler)}
	_, err := eventlog.Init(t.Context(), eventlog.InitConfig{Config: cfg, Partitions: 2, ReplicationFactor: 1})
	require.NoError(t, err)
	log, err := eventlog.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(log.Close)
	return log
}

// greeted creates a collection that greets a name and returns the result.
func greeted(t *testing.T, log *eventlog.Log, name string) string {
	t.Helper()
	asOf, err := log.End(t.Context(), 1)
	require.NoError(t, err)
	id := ledger.NewCollectionID(1, time.Now(), [8]byte{1})
	args, err := json.Marshal(map[string]string{"Name": name})
	require.NoError(t, err)
	def := ledger.Task{
		ID: ledger.TaskID(id, ledger.KindTask, 0), Name: "greet", Type: "greet", Queue: ledger.DefaultQueue, Args: args,
		OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: 1, Backoff: ledger.Backoff{InitialMS: 1, Multiplier: 1, MaxMS: 1}, TimeoutMS: 60_000,
	}
	msg, err := ledger.Encode(1, ledger.Meta{EventID: id, Source: ledger.Source(log.Info().LedgerID, "test"), Time: time.Now()}, ledger.CollectionCreated{
		CollectionID: id, Tenant: "default", Name: "test", RequestHash: strings.Repeat("0", 64), AsOf: asOf, Tasks: []ledger.Task{def},
	})
	require.NoError(t, err)
	log.Append(msg, func(_ int64, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	r, err := log.NewReader(eventlog.ReaderConfig{From: map[int32]eventlog.Start{1: {Offset: asOf, LeaderEpoch: -1}}})
	require.NoError(t, err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		fetches, err := r.Poll(ctx, 100)
		require.NoError(t, err, "no result came")
		for _, f := range fetches {
			for _, record := range f.Records {
				env, err := ledger.Decode(record)
				require.NoError(t, err)
				if e, ok := env.Event.(ledger.TaskSucceeded); ok {
					var text string
					require.NoError(t, json.Unmarshal(e.Result, &text))
					return text
				}
			}
		}
	}
}

// loud is a log that can be searched while it is written.
type loud struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *loud) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// find waits for a text that matches and returns its first group.
func (l *loud) find(t *testing.T, pattern string) string {
	t.Helper()
	expr := regexp.MustCompile(pattern)
	var found []string
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		found = expr.FindStringSubmatch(l.text.String())
		return found != nil
	}, patience, 5*time.Millisecond, "never logged: "+pattern)
	return found[len(found)-1]
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

// A program with handlers of its own runs tasks, tells how it is, and ends when
// its context does.
func TestRun(t *testing.T) {
	t.Parallel()
	brokers, log := newLedger(t)
	outbox := filepath.Join(t.TempDir(), "outbox")
	said := &loud{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Brokers: brokers, Registry: greeter(), AllowSingleReplica: true, HTTPAddr: "127.0.0.1:0", OutboxDir: outbox,
			Logger: slog.New(slog.NewTextHandler(said, nil)),
		})
	}()
	url := "http://" + said.find(t, `serving metrics and health.* address=(\S+)`)
	require.Equal(t, "hello you", greeted(t, log, "you"))
	require.Eventually(t, func() bool { status, _ := get(t, url+"/readyz"); return status == http.StatusOK }, patience, 5*time.Millisecond)
	status, _ := get(t, url+"/healthz")
	require.Equal(t, http.StatusOK, status)
	require.Eventually(t, func() bool {
		_, metrics := get(t, url+"/metrics")
		return strings.Contains(metrics, `keten_task_attempts_total{result="succeeded",type="greet"} 1`) && strings.Contains(metrics, "go_goroutines")
	}, patience, 5*time.Millisecond, "the outcome is counted once it was read back")
	cancel()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "Run does not end")
	}
	require.DirExists(t, outbox)
}

// While the ledger is not there, a process that waits is alive and not ready.
func TestWaitForTheLedger(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	said := &loud{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Brokers: cluster.ListenAddrs(), Registry: greeter(), AllowSingleReplica: true, HTTPAddr: "127.0.0.1:0", Wait: time.Hour,
			Logger: slog.New(slog.NewTextHandler(said, nil)),
		})
	}()
	url := "http://" + said.find(t, `serving metrics and health.* address=(\S+)`)
	said.find(t, "waiting for the ledger")
	status, why := get(t, url+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, why, "the ledger is not open yet")
	require.Contains(t, why, "init", "and what to do about it")
	status, _ = get(t, url+"/healthz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "hello you", greeted(t, initialize(t, cluster.ListenAddrs()), "you"))
	cancel()
	require.NoError(t, <-ended)
}

// A context that ends while the ledger is waited for ends that, without an error.
func TestEndWhileWaiting(t *testing.T) {
	t.Parallel()
	said := &loud{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Brokers: []string{closedPort(t)}, Registry: greeter(), Wait: time.Hour, Logger: slog.New(slog.NewTextHandler(said, nil)),
		})
	}()
	said.find(t, "waiting for the ledger")
	cancel()
	require.NoError(t, <-ended)
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	err = worker.Run(t.Context(), worker.Config{Registry: executor.NewRegistry(), Slots: -1, ShutdownGrace: -1, Wait: -1})
	for _, want := range []string{"brokers: want at least one", "registry: has no handlers", "slots: is -1, want 1 to 10000", "shutdown grace: is -1ns", "wait: is -1ns"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, worker.Run(t.Context(), worker.Config{Brokers: []string{"x:1"}}), "registry: is required")
	err = worker.Run(t.Context(), worker.Config{Brokers: []string{"x:1"}, Registry: greeter(), HTTPAddr: taken.Addr().String()})
	require.ErrorContains(t, err, taken.Addr().String()+" for metrics and health (http-addr)")
	err = worker.Run(t.Context(), worker.Config{Brokers: []string{closedPort(t)}, Registry: greeter()})
	require.ErrorIs(t, err, eventlog.ErrUnreachable)
}

// program runs this binary as a program that calls Main.
func program(t *testing.T, said io.Writer, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(append(os.Environ(), "WORKER_TEST_MAIN=1", "XDG_STATE_HOME="+t.TempDir()), env...)
	cmd.Stderr = said
	return cmd
}

// Main reads flags and the environment, and ends well on SIGTERM.
func TestMainRunsUntilASignal(t *testing.T) {
	t.Parallel()
	brokers, log := newLedger(t)
	said := &loud{}
	cmd := program(t, said, []string{"KETEN_KAFKA_BROKERS=" + strings.Join(brokers, ","), "KETEN_HTTP_ADDR=ignored:1", "KETEN_LOG_FORMAT=json"},
		"--allow-single-replica", "--http-addr", "127.0.0.1:0")
	require.NoError(t, cmd.Start())
	require.Equal(t, "hello you", greeted(t, log, "you"))
	said.find(t, `"msg":"executor runs"`)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
}

// What is wrong with flags and variables is named.
func TestMainNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		env  []string
		args []string
	}{
		"flag provided but not defined: -nosuch":    {nil, []string{"--nosuch"}},
		`unexpected argument "x"`:                   {nil, []string{"x"}},
		`KETEN_SLOTS: "many"`:                       {[]string{"KETEN_SLOTS=many"}, nil},
		"--slots: is 0, want 1 to 10000":            {nil, []string{"--slots", "0"}},
		"--shutdown-grace: is 0s, want more than 0": {nil, []string{"--shutdown-grace", "0s"}},
		`--log-level: "loud" is none of`:            {nil, []string{"--log-level", "loud"}},
		`--log-format: "xml" is neither`:            {nil, []string{"--log-format", "xml"}},
		"run worker: read the key file: open /none": {nil, []string{"--outcome-key-file", "/none"}},
	} {
		said := &loud{}
		var exit *exec.ExitError
		require.ErrorAs(t, program(t, said, c.env, c.args...).Run(), &exit, want)
		require.Equal(t, 1, exit.ExitCode())
		said.find(t, regexp.QuoteMeta(want))
	}
	said := &loud{}
	require.NoError(t, program(t, said, nil, "--help").Run())
	said.find(t, "-kafka-brokers")
}
