package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"github.com/twmb/franz-go/pkg/kgo"
)

// patience is how long anything may take on a busy machine before a test calls
// it stuck.
const patience = 90 * time.Second

// binary is the keten under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keten-cmd-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "keten")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running keten whose output is read while it runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string
	ended error // valid once done is closed
	done  chan struct{}
}

// spawn starts keten; it is ended with the test.
func spawn(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, args...), lines: make(chan string, 10_000), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), "XDG_STATE_HOME="+t.TempDir()), env...)
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.WaitDelay = 10 * time.Second
	require.NoError(t, p.cmd.Start())
	go p.read(r)
	go func() { p.ended = p.cmd.Wait(); _ = w.Close(); close(p.done) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("output of keten %s:\n%s", strings.Join(args, " "), p.output())
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	defer close(p.lines)
	for sc := bufio.NewScanner(r); sc.Scan(); {
		p.mu.Lock()
		p.text.WriteString(sc.Text() + "\n")
		p.mu.Unlock()
		select {
		case p.lines <- sc.Text():
		default: // nobody has looked for 10,000 lines
		}
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await waits for a line and returns the pattern's groups.
func (p *process) await(pattern string) []string {
	p.t.Helper()
	re, timeout := regexp.MustCompile(pattern), time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
			require.True(p.t, ok, "keten ended before it said %q:\n%s", pattern, p.output())
		case <-timeout:
			require.FailNow(p.t, "keten never said "+pattern, p.output())
		}
	}
}

// stop asks it to end and expects exit code 0.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGINT))
	select {
	case <-p.done:
		require.NoError(p.t, p.ended, p.output())
	case <-time.After(patience):
		require.FailNow(p.t, "keten did not stop", p.output())
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	<-p.done
}

// keten runs one command to its end.
func keten(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// get reads JSON from the API.
func get(t require.TestingT, url string, v any) {
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, string(body))
	require.NoError(t, json.Unmarshal(body, v), string(body))
}

type resource struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Run    int    `json:"run"`
	Tasks  []struct {
		ID       string          `json:"id"`
		Name     string          `json:"name"`
		Status   string          `json:"status"`
		Attempts int             `json:"attempts"`
		Result   json.RawMessage `json:"result"`
	} `json:"tasks"`
}

// record is a ledger record as any consumer sees it.
type record struct {
	Type, Key string
	Headers   map[string]string
	Value     map[string]any
}

// consume reads all records of a topic with a plain consumer that knows
// nothing of the ledger.
func consume(t *testing.T, brokers []string, topic string) []record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	var list []record
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // nothing for so long: the end
		fetches := cl.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			require.NotEmpty(t, list)
			return list
		}
		fetches.EachRecord(func(r *kgo.Record) {
			rec := record{Key: string(r.Key), Headers: map[string]string{}}
			for _, h := range r.Headers {
				rec.Headers[h.Key] = string(h.Value)
			}
			require.NoError(t, json.Unmarshal(r.Value, &rec.Value))
			rec.Type = strings.TrimPrefix(rec.Headers["ce_type"], "keten.v1.")
			list = append(list, rec)
		})
	}
}
