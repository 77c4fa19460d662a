package executortest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/executortest"
	"github.com/keten-ledger/keten/ledger"
)

type addArgs struct {
	N int `json:"n"`
}

type sum struct {
	Sum int `json:"sum"`
}

// world is a registry with handlers that the tests below steer.
type world struct {
	*executor.Registry

	fails    map[string][]error // by task name; what the next attempts return
	previous map[string]string
	seen     []executor.TaskInfo
}

func newWorld() *world {
	w := &world{Registry: executor.NewRegistry(), fails: make(map[string][]error), previous: make(map[string]string)}
	executor.Handle(w.Registry, "add", func(_ context.Context, t executor.Task[addArgs]) (sum, error) {
		w.seen = append(w.seen, t.TaskInfo)
		w.previous[t.Name] = string(t.Previous)
		if errs := w.fails[t.Name]; len(errs) > 0 {
			w.fails[t.Name] = errs[1:]
			if errs[0] != nil {
				return sum{}, errs[0]
			}
		}
		var before sum
		if len(t.Previous) > 0 {
			if err := t.DecodePrevious(&before); err != nil {
				return sum{}, err
			}
		}
		return sum{before.Sum + t.Args.N}, nil
	})
	executor.Handle(w.Registry, "note", func(_ context.Context, t executor.Task[struct{}]) (struct{}, error) {
		w.seen = append(w.seen, t.TaskInfo)
		w.previous[t.Name] = string(t.Previous)
		return struct{}{}, nil
	})
	executor.Handle(w.Registry, "wait", func(ctx context.Context, t executor.Task[struct{}]) (struct{}, error) {
		w.seen = append(w.seen, t.TaskInfo)
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	executor.Handle(w.Registry, "approve", func(_ context.Context, t executor.Task[struct{}]) (struct{}, error) {
		if _, err := t.OutcomeToken(); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, executor.ErrPending
	})
	return w
}

func add(name string, n int) executortest.Definition {
	return executortest.Task(name, "add", addArgs{n})
}

// A chain hands results on, in order.
func TestChain(t *testing.T) {
	t.Parallel()
	w := newWorld()
	run := executortest.New(t, w.Registry).Run(add("one", 1), add("two", 2), executortest.Task("three", "add", addArgs{3}).Immutable())
	run.Succeeded()
	var total sum
	run.Result("two", &total)
	require.Equal(t, sum{3}, total)
	run.Result("three", &total)
	require.Equal(t, sum{3}, total, "an immutable task gets no result")
	require.Len(t, run.Attempts("two"), 1)
	require.Equal(t, 1, run.Number())
	require.Equal(t, run.TaskID("two"), w.seen[1].TaskID)
	require.Equal(t, run.Collection(), w.seen[1].Collection)
}

// Back-offs are skipped, and shown; a wait that the handler asked for takes their
// place.
func TestAutomaticAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails["two"] = []error{errors.New("busy"), executor.RetryAfter(2*time.Hour, errors.New("come back"))}
	began := time.Now()
	run := executortest.New(t, w.Registry).Run(add("one", 1), add("two", 2).MaxAttempts(3).Backoff(time.Hour, 2, time.Hour)).Succeeded()
	attempts := run.Attempts("two")
	require.Len(t, attempts, 3)
	require.Zero(t, attempts[0].Waited)
	require.InDelta(t, time.Hour, attempts[1].Waited, float64(30*time.Minute), "half of a back-off is jitter")
	require.Equal(t, 2*time.Hour, attempts[2].Waited)
	require.Equal(t, []ledger.Status{ledger.StatusFailed, ledger.StatusFailed, ledger.StatusSucceeded},
		[]ledger.Status{attempts[0].Status, attempts[1].Status, attempts[2].Status})
	require.Equal(t, "busy", attempts[0].Error.Message)
	require.Less(t, time.Since(began), time.Minute)
}

// A retry runs the suffix with the same ids, the result before it, and the
// attempts counted on.
func TestRetry(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails["two"] = []error{executor.Fail("quota", ledger.AudienceUser, "no more")}
	first := executortest.New(t, w.Registry).Run(add("one", 1), add("two", 2), add("three", 3))
	first.Failed("two")
	require.Equal(t, ledger.TaskError{Code: "quota", Message: "no more", Audience: ledger.AudienceUser}, first.Failure())
	require.Empty(t, first.Attempts("three"))

	second := first.Retry().Succeeded()
	require.Equal(t, 2, second.Number())
	require.Empty(t, second.Attempts("one"), "what succeeded does not run again")
	require.Equal(t, 2, second.Attempts("two")[0].Number)
	require.Equal(t, `{"sum":1}`, w.previous["two"])
	require.Equal(t, w.seen[1].TaskID, w.seen[2].TaskID)
	require.Greater(t, w.seen[2].Fence, w.seen[1].Fence)
	var total sum
	second.Result("three", &total)
	require.Equal(t, sum{6}, total)
	second.Result("one", &total)
	require.Equal(t, sum{1}, total, "of the run before")
}

func TestRetryWithOtherArgs(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails["two"] = []error{executor.Permanent(errors.New("no")), nil}
	run := executortest.New(t, w.Registry).Run(add("one", 1), add("two", 2)).Failed("two").RetryWith("two", addArgs{40})
	var total sum
	run.Succeeded().Result("two", &total)
	require.Equal(t, sum{41}, total)
}

// Finally tasks run after each run and know how it ended.
func TestFinally(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails["one"] = []error{executor.Fail("quota", ledger.AudienceUser, "no more")}
	run := executortest.New(t, w.Registry).Run(add("one", 1), executortest.Finally("tell", "note", nil)).Failed("one")
	require.Len(t, run.Attempts("tell"), 1)
	var input ledger.FinallyInput
	require.NoError(t, json.Unmarshal([]byte(w.previous["tell"]), &input))
	require.Equal(t, ledger.StatusFailed, input.Status)
	require.Equal(t, "quota", input.FailedTask.Error.Code)
	run = run.Retry().Succeeded()
	require.Len(t, run.Attempts("tell"), 1)
	require.NoError(t, json.Unmarshal([]byte(w.previous["tell"]), &input))
	require.Equal(t, 2, input.Run)
}

// The waits that are skipped have passed for whoever reads the ledger's times.
func TestSkippedWaitsPassInTheLedger(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails["one"] = []error{executor.RetryAfter(5*time.Hour, errors.New("come back"))}
	began := time.Now()
	executortest.New(t, w.Registry).Run(add("one", 1).MaxAttempts(2), executortest.Finally("tell", "note", nil)).Succeeded()
	var input ledger.FinallyInput
	require.NoError(t, json.Unmarshal([]byte(w.previous["tell"]), &input))
	require.WithinDuration(t, began.Add(5*time.Hour), input.FinishedAt, time.Hour)
}

// An outcome that comes from outside is the test's to give.
func TestOutcomeFromOutside(t *testing.T) {
	t.Parallel()
	kit := executortest.New(t, newWorld().Registry)
	chain := []executortest.Definition{executortest.Task("approval", "approve", nil).Timeout(time.Hour), add("after", 1)}
	run := kit.Run(chain...).Waits("approval")
	require.Equal(t, ledger.StatusRunning, run.Status())
	require.NotEmpty(t, run.Attempts("approval")[0].Token())
	require.Empty(t, run.Attempts("after"))
	var total sum
	run.Complete("approval", sum{41}).Succeeded().Result("after", &total)
	require.Equal(t, sum{42}, total)

	run = kit.Run(chain...).Reject("approval", ledger.TaskError{Code: "denied", Message: "not today", Audience: ledger.AudienceUser}).Failed("approval")
	require.Equal(t, "denied", run.Failure().Code)
	require.Equal(t, ledger.CodeTimeout, kit.Run(chain...).Expire("approval").Failed("approval").Failure().Code)
	kit.Run(chain...).Cancel().Canceled().Retry().Waits("approval")
}

// A cancel reaches the handler that runs, and nothing more starts.
func TestCancelWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	kit := executortest.New(t, newWorld().Registry)
	kit.During("stuck", func(r *executortest.Run) { r.Cancel() })
	run := kit.Run(executortest.Task("stuck", "wait", nil), add("after", 1)).Canceled()
	require.Equal(t, ledger.CodeCanceled, run.Attempts("stuck")[0].Error.Code)
	require.Empty(t, run.Attempts("after"))
}

// A restart of the executor leaves an interrupted attempt to the next one, which
// starts the task again, with the same id, unless it may not.
func TestRestartWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	w := newWorld()
	kit := executortest.New(t, w.Registry)
	restart := func(*executortest.Run) {
		kit.During("stuck", func(r *executortest.Run) { r.Cancel() }) // the second attempt
		kit.RestartExecutor()
	}
	kit.During("stuck", restart)
	run := kit.Run(executortest.Task("stuck", "wait", nil)).Canceled()
	attempts := run.Attempts("stuck")
	require.Len(t, attempts, 2)
	require.Equal(t, ledger.StatusSuperseded, attempts[0].Status)
	require.Equal(t, w.seen[0].TaskID, w.seen[1].TaskID)

	kit.During("stuck", func(*executortest.Run) { kit.RestartExecutor() })
	run = kit.Run(executortest.Task("stuck", "wait", nil).FailOnInterrupt()).Failed("stuck")
	require.Equal(t, ledger.CodeInterrupted, run.Failure().Code)
	require.Len(t, run.Attempts("stuck"), 1)
}

// A task's timeout ends the handler's context: in a bubble at once.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := executortest.New(t, newWorld().Registry)
		kit.Patience = 2 * time.Hour
		run := kit.Run(executortest.Task("stuck", "wait", nil).Timeout(time.Hour)).Failed("stuck")
		require.Equal(t, ledger.CodeTimeout, run.Failure().Code)
	})
}

// What a handler shows outside can be looked at; what it logs is in the test's
// log.
func TestOutput(t *testing.T) {
	t.Parallel()
	reg := executor.NewRegistry()
	executor.Handle(reg, "talk", func(ctx context.Context, t executor.Task[struct{}]) (struct{}, error) {
		t.Output.Progress(50, "half")
		t.Output.Line("a line")
		t.Logger.InfoContext(ctx, "for the log", slog.Int("n", 1))
		return struct{}{}, nil
	})
	log := &fakeTB{ctx: t.Context()}
	a := executortest.New(log, reg).Run(executortest.Task("talk", "talk", nil)).Succeeded().Attempts("talk")[0]
	require.Equal(t, []string{"a line"}, a.Lines())
	require.Len(t, a.Output(), 2)
	require.Equal(t, 50, a.Output()[0].Percent)
	require.Contains(t, log.logged, "for the log")
	require.Contains(t, log.logged, "attempt=1")
}

// fakeTB is a test that fails on its own.
type fakeTB struct {
	ctx            context.Context //nolint:containedctx // a test's
	failed, logged string
}

func (f *fakeTB) Helper()                         {}
func (f *fakeTB) Context() context.Context        { return f.ctx }
func (f *fakeTB) Logf(format string, args ...any) { f.logged += fmt.Sprintf(format, args...) }
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure returns how a test ends.
func failure(t *testing.T, test func(tb executortest.TB)) string {
	t.Helper()
	f := &fakeTB{ctx: t.Context()}
	done := make(chan struct{})
	go func() { defer close(done); test(f) }()
	<-done
	require.NotEmpty(t, f.failed, "the test should have failed")
	return f.failed
}

// What is wrong is said so that one need not look further.
func TestFailuresSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	broken := func() *executor.Registry {
		w := newWorld()
		w.fails["two"] = []error{errors.New("busy"), executor.Fail("quota", ledger.AudienceUser, "no more")}
		executor.Handle(w.Registry, "panics", func(context.Context, executor.Task[struct{}]) (struct{}, error) { panic("oh") })
		return w.Registry
	}
	two := func(kit *executortest.Kit) *executortest.Run {
		return kit.Run(add("one", 1), add("two", 2).MaxAttempts(2), add("three", 3))
	}
	tests := map[string]struct {
		do   func(kit *executortest.Kit)
		want []string
	}{
		"it failed": {func(kit *executortest.Kit) { two(kit).Succeeded() }, []string{
			`run 1 should be succeeded, and failed at task "two": quota: no more`,
			"one    add  attempt 1", `succeeded  {"sum":1}`, "failed: busy (retryable, for the operator)", "quota: no more (for good, for the user)",
			"three  add  not in this run",
		}},
		"it succeeded":              {func(kit *executortest.Kit) { kit.Run(add("one", 1)).Failed("one") }, []string{"run 1 should be failed, and is succeeded"}},
		"it failed elsewhere":       {func(kit *executortest.Kit) { two(kit).Failed("three") }, []string{`should have failed at task "three", and failed at task "two"`}},
		"a wrong name":              {func(kit *executortest.Kit) { two(kit).Attempts("twoo") }, []string{`there is no task "twoo" in the chain`}},
		"no result":                 {func(kit *executortest.Kit) { two(kit).Result("three", nil) }, []string{`task "three" has not succeeded and has no result`}},
		"another result":            {func(kit *executortest.Kit) { kit.Run(add("one", 1)).Result("one", new(string)) }, []string{`the result of task "one", {"sum":1}, does not fit a *string`}},
		"no handler":                {func(kit *executortest.Kit) { kit.Run(executortest.Task("one", "ad", nil)) }, []string{`task "one" has type "ad", for which the registry has no handler; it has add, approve, note, panics, wait`}},
		"args that no JSON has":     {func(kit *executortest.Kit) { kit.Run(executortest.Task("one", "add", func() {})) }, []string{`the args of task "one" cannot be encoded`}},
		"a chain that is not valid": {func(kit *executortest.Kit) { kit.Run(add("one", 1), add("one", 1)) }, []string{"CollectionCreated: /tasks/1/name"}},
		"no tasks":                  {func(kit *executortest.Kit) { kit.Run() }, []string{"CollectionCreated: /tasks"}},
		"nobody gave the outcome":   {func(kit *executortest.Kit) { kit.Run(executortest.Task("approval", "approve", nil)).Succeeded() }, []string{`its task "approval" waits for an outcome from outside: say which with Complete, Reject or Expire`}},
		"nothing waits":             {func(kit *executortest.Kit) { kit.Run(add("one", 1)).Complete("one", nil) }, []string{`task "one" should wait for an outcome from outside, and run 1 is succeeded`}},
		"nothing to retry":          {func(kit *executortest.Kit) { kit.Run(add("one", 1)).Retry() }, []string{"run 1 cannot be retried: it has not failed"}},
		"retried twice": {func(kit *executortest.Kit) {
			r := two(kit)
			r.Retry()
			r.Retry()
		}, []string{"run 1 was retried before"}},
		"retry of what succeeded": {func(kit *executortest.Kit) { two(kit).RetryWith("one", nil) }, []string{`task "one" has succeeded: a retry does not run it`}},
		"cancel after the end":    {func(kit *executortest.Kit) { two(kit).Cancel() }, []string{"run 1 cannot be canceled: it failed"}},
		"a panic":                 {func(kit *executortest.Kit) { kit.Run(executortest.Task("one", "panics", nil)).Succeeded() }, []string{"panic: the handler panicked: oh", "kit_test.go:"}},
		"a handler that hangs": {func(kit *executortest.Kit) {
			kit.Patience = time.Millisecond
			kit.Run(executortest.Task("one", "wait", nil))
		}, []string{`the handler of task "one" (wait) has not returned after 1ms`}},
		"a run within a run": {func(kit *executortest.Kit) {
			kit.During("one", func(*executortest.Run) { kit.Run(add("two", 2)) })
			kit.Run(executortest.Task("one", "add", nil))
		}, []string{`Run was called while the handler of task "one" runs`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := failure(t, func(tb executortest.TB) { tt.do(executortest.New(tb, broken())) })
			for _, want := range tt.want {
				require.Contains(t, got, want)
			}
			require.True(t, strings.HasPrefix(got, "executortest: "))
		})
	}
}
