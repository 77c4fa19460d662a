package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

type addArgs struct {
	N int `json:"n"`
}

type sum struct {
	Sum int `json:"sum"`
}

// adder adds its args to the previous result and notes it.
func adder(reg *executor.Registry, j *journal) {
	executor.Handle(reg, "add", func(_ context.Context, t executor.Task[addArgs]) (sum, error) {
		var before sum
		if len(t.Previous) > 0 {
			if err := t.DecodePrevious(&before); err != nil {
				return sum{}, err
			}
		}
		j.note("%s run %d attempt %d: %d + %d", t.Name, t.Run, t.Attempt, before.Sum, t.Args.N)
		return sum{before.Sum + t.Args.N}, nil
	})
}

// A chain runs in order, each task with the result of the one before.
func TestChainRunsInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, 3, func(t *testing.T, w *world) {
		var j journal
		reg := executor.NewRegistry()
		adder(reg, &j)
		w.start(t, reg)
		id := w.create(t, 1, task("add", args(`{"n":1}`)), task("add", args(`{"n":2}`)), task("add", args(`{"n":3}`)))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		require.Equal(t, []string{"t0 run 1 attempt 1: 0 + 1", "t1 run 1 attempt 1: 1 + 2", "t2 run 1 attempt 1: 3 + 3"}, j.all())
		attempts := w.witness.attempts(id)
		require.Len(t, attempts, 3)
		require.JSONEq(t, `{"sum":6}`, string(attempts[2].Result))
	})
}

// Work that was in the log before any executor is found and done.
func TestWorkFromBeforeIsDone(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		var ids []uuid.UUID
		for i := range 20 {
			ids = append(ids, w.create(t, int32(i%2), task("add"), task("add")))
		}
		reg := executor.NewRegistry()
		adder(reg, &journal{})
		w.start(t, reg, func(c *executor.Config) { c.Slots = 2 })
		for _, id := range ids {
			require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		}
	})
}

// A retry runs the suffix only, with the same ids, and with the result that was
// there before it.
func TestRetryRunsTheSuffix(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		var j journal
		var mended atomic.Bool
		reg := executor.NewRegistry()
		adder(reg, &j)
		executor.Handle(reg, "prove", func(_ context.Context, t executor.Task[addArgs]) (json.RawMessage, error) {
			j.note("%s run %d attempt %d", t.Name, t.Run, t.Attempt)
			if !mended.Load() {
				return nil, executor.Fail("challenge", ledger.AudienceUser, "the challenge was not found")
			}
			return t.Previous, nil
		})
		w.start(t, reg)
		tasks := []ledger.Task{task("add", args(`{"n":1}`)), task("prove"), task("add", args(`{"n":2}`))}
		id := w.create(t, 0, tasks...)
		failed := w.witness.awaitRun(t, id, 1)
		require.Equal(t, ledger.StatusFailed, failed.Status)
		require.Equal(t, ledger.TaskID(id, ledger.KindTask, 1), failed.FailedTask)
		require.Equal(t, &ledger.TaskError{Code: "challenge", Message: "the challenge was not found", Audience: ledger.AudienceUser}, failed.Error)

		mended.Store(true)
		tasks[1].Attempts = 1
		w.retry(t, id, 2, 1, `{"sum":1}`, tasks[1:]...)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 2).Status)
		require.Equal(t, []string{
			"t0 run 1 attempt 1: 0 + 1", "t1 run 1 attempt 1", "t1 run 2 attempt 2", "t2 run 2 attempt 1: 1 + 2",
		}, j.all())
		var ran []uuid.UUID
		for _, a := range w.witness.attempts(id) {
			ran = append(ran, a.TaskID)
		}
		ids := number(id, 0, tasks)
		require.Equal(t, []uuid.UUID{ids[0].ID, ids[1].ID, ids[1].ID, ids[2].ID}, ran)
	})
}

// What a handler returns decides what is recorded and whether it is tried again.
func TestFailures(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300_000)
	tests := map[string]struct {
		handler  executor.RawHandler
		want     ledger.TaskError
		attempts int
	}{
		"a plain error is tried again": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) { return nil, errors.New("no route") },
			ledger.TaskError{Code: "failed", Message: "no route", Audience: ledger.AudienceOperator, Retryable: true},
			3,
		},
		"a permanent one is not": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) {
				return nil, executor.Permanent(errors.New("no such domain"))
			},
			ledger.TaskError{Code: "failed", Message: "no such domain", Audience: ledger.AudienceOperator},
			1,
		},
		"a wrapped one keeps its words": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) {
				return nil, fmt.Errorf("publish record: %w", executor.Fail("dns", ledger.AudienceUser, "zone is unknown"))
			},
			ledger.TaskError{Code: "dns", Message: "publish record: zone is unknown", Audience: ledger.AudienceUser},
			1,
		},
		"text is made fit to be stored": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) {
				return nil, &executor.Error{Message: "a\x00b\xff", Detail: "é" + long}
			},
			ledger.TaskError{Code: "failed", Message: "a?b?", Detail: "é" + long[:ledger.MaxDetailBytes-2], Audience: ledger.AudienceOperator},
			1,
		},
		"a result that is no JSON": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) { return json.RawMessage(`{"a":`), nil },
			ledger.TaskError{Code: ledger.CodeInvalidResult, Message: "the result cannot be recorded: is not complete JSON", Audience: ledger.AudienceOperator},
			1,
		},
		"a result that is too large": {
			func(context.Context, executor.RawTask) (json.RawMessage, error) {
				return json.RawMessage(`"` + long + `"`), nil
			},
			ledger.TaskError{Code: ledger.CodeInvalidResult, Message: "the result cannot be recorded: is 300002 bytes long, at most 262144 are allowed", Audience: ledger.AudienceOperator},
			1,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 1, func(t *testing.T, w *world) {
				reg := executor.NewRegistry()
				reg.HandleRaw("x", test.handler)
				w.start(t, reg)
				id := w.create(t, 0, task("x", attemptsMost(3)), task("x"))
				ended := w.witness.awaitRun(t, id, 1)
				require.Equal(t, ledger.StatusFailed, ended.Status)
				require.Equal(t, &test.want, ended.Error)
				require.Len(t, w.witness.attempts(id), test.attempts)
			})
		})
	}
}

// Args that do not fit the handler's type fail the task for good.
func TestArgsThatDoNotFit(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		adder(reg, &journal{})
		w.start(t, reg)
		id := w.create(t, 0, task("add", attemptsMost(5), args(`{"n":"many"}`)))
		require.Equal(t, executor.CodeInvalidArgs, w.witness.awaitRun(t, id, 1).Error.Code)
		require.Len(t, w.witness.attempts(id), 1)
	})
}

// A handler that panics, or ends its goroutine, fails its attempt and nothing
// else.
func TestPanic(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		adder(reg, &journal{})
		reg.HandleRaw("panic", func(context.Context, executor.RawTask) (json.RawMessage, error) { panic("out of cheese") })
		reg.HandleRaw("exit", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			runtime.Goexit()
			return nil, nil
		})
		w.start(t, reg, func(c *executor.Config) { c.Slots = 1 })
		panicked := w.witness.awaitRun(t, w.create(t, 0, task("panic")), 1).Error
		require.Equal(t, ledger.CodePanic, panicked.Code)
		require.Equal(t, "the handler panicked: out of cheese", panicked.Message)
		require.Contains(t, panicked.Detail, "TestPanic")
		require.Equal(t, ledger.AudienceOperator, panicked.Audience)
		require.Equal(t, ledger.CodePanic, w.witness.awaitRun(t, w.create(t, 0, task("exit")), 1).Error.Code)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, w.create(t, 0, task("add")), 1).Status)
	})
}

// A retryable failure is followed by another attempt after the back-off, or
// after what the handler asked for.
func TestBackoff(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		executor.Handle(reg, "flaky", func(_ context.Context, t executor.Task[addArgs]) (int, error) {
			switch t.Attempt {
			case 1, 2:
				return 0, errors.New("not yet")
			case 3:
				return 0, executor.RetryAfter(6*time.Minute, errors.New("come back later"))
			}
			return 7, nil
		})
		w.start(t, reg)
		id := w.create(t, 0, task("flaky", attemptsMost(4)))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		a := w.witness.attempts(id)
		require.Len(t, a, 4)
		waits := func(i int) time.Duration {
			return time.Duration(a[i].StartedMS-a[i-1].FinishedMS) * time.Millisecond
		}
		within := func(i int, least, most time.Duration) {
			require.GreaterOrEqual(t, waits(i), least)
			require.Less(t, waits(i), most+50*time.Millisecond)
		}
		within(1, 500*time.Millisecond, time.Second)
		within(2, time.Second, 2*time.Second)
		within(3, 6*time.Minute, 6*time.Minute)
	})
}

// A back-off counts from the failure, also for an owner that comes later.
func TestBackoffOutlivesTheExecutor(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		executor.Handle(reg, "flaky", func(_ context.Context, t executor.Task[addArgs]) (int, error) {
			if t.Attempt == 1 {
				return 0, executor.RetryAfter(6*time.Minute, errors.New("come back later"))
			}
			return 7, nil
		})
		first := w.start(t, reg)
		id := w.create(t, 0, task("flaky", attemptsMost(2)))
		w.witness.await(t, "the failure", func([]fact) bool {
			return first.metric("keten_task_attempts_total", "type", "flaky", "result", "failed") == 1
		})
		first.stop()
		require.NoError(t, first.wait(t))
		time.Sleep(4 * time.Minute)
		w.start(t, reg)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		a := w.witness.attempts(id)
		require.InDelta(t, (6 * time.Minute).Seconds(), float64(a[1].StartedMS-a[0].FinishedMS)/1000, 1)
	})
}

// A task's timeout ends the handler's context and fails the attempt, retryable.
// A handler that does not heed it keeps its attempt until it returns.
func TestTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("hang", func(ctx context.Context, task executor.RawTask) (json.RawMessage, error) {
			deadline, _ := ctx.Deadline()
			if !deadline.Equal(task.Deadline) {
				return nil, executor.Fail("deadline", ledger.AudienceUser, "differs")
			}
			<-ctx.Done()
			return nil, fmt.Errorf("fetch order: %w", ctx.Err())
		})
		reg.HandleRaw("deaf", func(context.Context, executor.RawTask) (json.RawMessage, error) {
			time.Sleep(5 * time.Minute)
			return json.RawMessage(`"late"`), nil
		})
		w.start(t, reg)
		quick := func(d *ledger.Task) { d.TimeoutMS = 30_000 }
		id := w.create(t, 0, task("hang", quick, attemptsMost(2)))
		deaf := w.create(t, 0, task("deaf", quick))
		ended := w.witness.awaitRun(t, id, 1)
		require.Equal(t, &ledger.TaskError{
			Code: ledger.CodeTimeout, Message: "the attempt did not end within 30s",
			Detail: "fetch order: context deadline exceeded", Audience: ledger.AudienceOperator, Retryable: true,
		}, ended.Error)
		a := w.witness.attempts(id)
		require.Len(t, a, 2)
		require.InDelta(t, 30_000, a[0].FinishedMS-a[0].StartedMS, 100)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, deaf, 1).Status, "it came to its end, and nobody else had begun")
	})
}

// A cancel ends the context of the handler that runs; nothing more of the run
// is started.
func TestCancel(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		var j journal
		running := make(chan error, 1)
		reg := executor.NewRegistry()
		adder(reg, &j)
		reg.HandleRaw("wait", func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			running <- nil
			<-ctx.Done()
			running <- context.Cause(ctx)
			return nil, ctx.Err()
		})
		p := w.start(t, reg)
		id := w.create(t, 0, task("wait"), task("add"))
		require.NoError(t, <-running)
		w.cancel(t, id, 1)
		require.ErrorIs(t, <-running, executor.ErrCanceled)
		require.Equal(t, ledger.StatusCanceled, w.witness.awaitRun(t, id, 1).Status)
		require.Empty(t, j.all())
		a := w.witness.attempts(id)
		require.Len(t, a, 1)
		require.Equal(t, &ledger.TaskError{
			Code: ledger.CodeCanceled, Message: "the run was canceled", Detail: "context canceled", Audience: ledger.AudienceUser,
		}, a[0].Error)
		require.Eventually(t, func() bool { return p.metric("keten_task_attempts_total", "type", "wait", "result", "canceled") == 1 }, time.Minute, time.Second)
	})
}

// No more handlers run at a time than there are slots, and all partitions get
// their share of them.
func TestSlots(t *testing.T) {
	t.Parallel()
	bubble(t, 4, func(t *testing.T, w *world) {
		var now, most atomic.Int64
		var order journal
		reg := executor.NewRegistry()
		reg.HandleRaw("slow", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				continue
			}
			order.note("%d", ledger.PartitionOf(t.Collection))
			time.Sleep(time.Second)
			return nil, nil
		})
		var ids []uuid.UUID
		for range 60 {
			ids = append(ids, w.create(t, 0, task("slow")))
		}
		for p := range int32(3) {
			ids = append(ids, w.create(t, p+1, task("slow")))
		}
		p := w.start(t, reg, func(c *executor.Config) { c.Slots = 3 })
		for _, id := range ids {
			w.witness.awaitRun(t, id, 1)
		}
		require.EqualValues(t, 3, most.Load())
		early := order.all()[:12]
		for p := range 4 {
			require.Contains(t, early, strconv.Itoa(p), "a partition with much to do starves none")
		}
		require.Zero(t, p.metric("keten_executor_slots", "state", "busy"))
		require.Equal(t, 3, p.metric("keten_executor_slots", "state", "free"))
	})
}

// A type without a handler waits and holds nothing else up.
func TestTypeWithoutHandlerWaits(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		adder(reg, &journal{})
		p := w.start(t, reg)
		first := w.create(t, 0, task("unknown"))
		second := w.create(t, 0, task("add"), task("unknown"))
		third := w.create(t, 0, task("add"), task("add"))
		w.witness.awaitRun(t, third, 1)
		time.Sleep(time.Minute)
		require.Empty(t, w.witness.attempts(first))
		require.Len(t, w.witness.attempts(second), 1)
		unserved := func() int { return p.metric("keten_executor_unserved_tasks", "type", "unknown") }
		require.Equal(t, 2, unserved())
		w.cancel(t, first, 1)
		w.witness.awaitRun(t, first, 1)
		p.stop()
		require.NoError(t, p.wait(t))
		require.Zero(t, unserved())

		executor.Handle(reg, "unknown", func(context.Context, executor.Task[addArgs]) (int, error) { return 1, nil })
		w.start(t, reg)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, second, 1).Status)
	})
}

// A handler gets what the design promises.
func TestWhatAHandlerGets(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		got := make(chan executor.RawTask, 3)
		reg := executor.NewRegistry()
		reg.HandleRaw("look", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
			got <- t
			return json.RawMessage(`{"from":"look"}`), nil
		})
		w.start(t, reg)
		id := w.create(t, 1, task("look", args(`{"a":1}`)), task("look"), task("look", func(d *ledger.Task) { d.Immutable = true }))
		w.witness.awaitRun(t, id, 1)
		first, second, third := <-got, <-got, <-got
		attempts := w.witness.attempts(id)
		require.Equal(t, id, first.Collection)
		require.Equal(t, "default", first.Tenant)
		require.Equal(t, ledger.TaskID(id, ledger.KindTask, 0), first.TaskID)
		require.Equal(t, "look", first.Type)
		require.Equal(t, "t0", first.Name)
		require.Equal(t, 1, first.Run)
		require.Equal(t, 1, first.Attempt)
		require.Equal(t, attempts[0].ID, first.Fence)
		require.NotNil(t, first.Logger)
		require.JSONEq(t, `{"a":1}`, string(first.Args))
		require.Nil(t, first.Previous)
		require.JSONEq(t, `{"from":"look"}`, string(second.Previous))
		require.Nil(t, third.Previous, "it is immutable")
		require.True(t, slices.IsSorted([]int64{first.Fence, second.Fence, third.Fence}))
	})
}

// A registry refuses a second handler for a type, and a Config what cannot work.
func TestMistakesAreSeenEarly(t *testing.T) {
	t.Parallel()
	reg := executor.NewRegistry()
	nothing := func(context.Context, executor.RawTask) (json.RawMessage, error) { return nil, nil }
	reg.HandleRaw("a", nothing)
	require.Panics(t, func() { reg.HandleRaw("a", nothing) })
	require.Panics(t, func() { reg.HandleRaw("", nothing) })
	require.Equal(t, []string{"a"}, reg.Types())

	_, err := executor.New(executor.Config{})
	require.EqualError(t, err, "make executor: log, registry, worker and logger are required")
	bubble(t, 1, func(t *testing.T, w *world) {
		cfg := executor.Config{Log: w.log, Registry: reg, Worker: executor.NewWorkerID("slow"), Logger: logger(), Queues: []string{"fast"}}
		_, err := executor.New(cfg)
		require.ErrorContains(t, err, "does not begin with the set of its queues, fast")
		cfg.Queues = []string{"fast", ""}
		_, err = executor.New(cfg)
		require.ErrorContains(t, err, `queue ""`)
		for i := range ledger.MaxQueues + 1 {
			cfg.Queues = append(cfg.Queues, strconv.Itoa(i))
		}
		_, err = executor.New(cfg)
		require.ErrorContains(t, err, "at most 64 can be served")
		cfg.Queues, cfg.Slots, cfg.Worker = nil, -1, executor.NewWorkerID()
		_, err = executor.New(cfg)
		require.ErrorContains(t, err, "must not be negative")
	})
	one, two := executor.NewWorkerID("default"), executor.NewWorkerID("default")
	require.NotEqual(t, one, two)
	require.True(t, strings.HasPrefix(executor.NewWorkerID(), "default/"))
	require.True(t, strings.HasPrefix(executor.NewWorkerID("b/c", "a", "b/c"), "a+b%2Fc/"), "the set does not depend on the order")
	long := executor.NewWorkerID(strings.Repeat("q", 65), "r")
	require.True(t, strings.HasPrefix(long, "set-"))
	require.Less(t, len(long), ledger.MaxKeyBytes)
}
