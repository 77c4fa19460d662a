package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/executor"
)

const (
	countType = "bench.count"
	hopType   = "bench.hop"
	// confirmEvery is how often the executor's counter is read after the last
	// handler has run: for the milliseconds until its outcome is read back.
	confirmEvery = time.Millisecond
)

// throughput measures chains in bulk. That a chain is done its last handler
// counts, one atomic addition; the round ends when the executor has read back the
// outcomes of all tasks, by its own counter, which is read only after that.
func (b *executorBench) throughput(ctx context.Context) error {
	l, err := b.newLedger(ctx)
	if err != nil {
		return err
	}
	defer l.drop(ctx)
	var c chainCount
	metrics := prometheus.NewRegistry()
	stop, err := l.run(ctx, c.registry(), metrics)
	if err != nil {
		return err
	}
	defer func() { _ = stop() }() // what it says was said by then
	round := func(n int) (time.Duration, error) {
		msgs, err := l.creations(ctx, n, defaultChain(countType))
		if err != nil {
			return 0, err
		}
		done := c.expect(n)
		begin := time.Now()
		wait := l.append(msgs) //nolint:contextcheck // a record under way cannot be called back
		if err := await(ctx, done); err != nil {
			return 0, fmt.Errorf("%w: %d of %d chains are done", err, c.done.Load(), c.target.Load())
		}
		if err := confirmed(ctx, metrics, float64(c.target.Load()*benchTasks)); err != nil {
			return 0, err
		}
		return time.Since(begin), wait()
	}
	if _, err := round(b.cfg.warmup); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var took, floors []time.Duration
	for range b.cfg.rounds {
		d, err := round(b.cfg.chains)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	if err := stop(); err != nil {
		return err
	}
	floor, err := b.newFloor(ctx)
	if err != nil {
		return fmt.Errorf("bare log: %w", err)
	}
	defer floor.close(ctx)
	for i := range b.cfg.rounds + 1 {
		d, err := floor.round(ctx, b.cfg.chains)
		if err != nil {
			return fmt.Errorf("bare log: %w", err)
		}
		if i > 0 { // the first warms up
			floors = append(floors, d)
		}
	}
	n, d, bare := b.cfg.chains, median(took), median(floors)
	return b.report("throughput", map[string]any{
		"chains": n, "tasks": benchTasks, "rounds": b.cfg.rounds, "warmup_chains": b.cfg.warmup, "slots": b.cfg.slots,
		"record_bytes": floor.recordBytes(),
	}, map[string]any{"throughput": map[string]any{
		"chains_per_s": perSecond(n, d), "tasks_per_s": perSecond(n*benchTasks, d), "chains_per_s_of_rounds": rates(n, took),
		"bare_log_chains_per_s": perSecond(n, bare), "bare_log_chains_per_s_of_rounds": rates(n, floors),
		"share_of_bare_log": float64(int(1000*bare.Seconds()/d.Seconds())) / 1000,
	}})
}

func rates(n int, took []time.Duration) []int {
	var r []int
	for _, d := range took {
		r = append(r, perSecond(n, d))
	}
	return r
}

// chainCount counts chains whose last task has run.
type chainCount struct {
	done, target atomic.Int64
	reached      atomic.Pointer[chan struct{}]
}

// expect returns a channel that is closed when n more chains are done.
func (c *chainCount) expect(n int) <-chan struct{} {
	reached := make(chan struct{})
	c.reached.Store(&reached)
	c.target.Add(int64(n))
	return reached
}

func (c *chainCount) registry() *executor.Registry {
	r := executor.NewRegistry()
	executor.Handle(r, countType, func(_ context.Context, t executor.Task[noopArgs]) (noopResult, error) {
		if t.Args.Step == benchTasks-1 && c.done.Add(1) == c.target.Load() {
			close(*c.reached.Load())
		}
		return noopResult{Step: t.Args.Step, Text: "a result that is passed on and stored"}, nil
	})
	return r
}

// await waits for a channel, but not for ever.
func await[T any](ctx context.Context, c <-chan T) error {
	ctx, cancel := context.WithTimeoutCause(ctx, benchWait, errors.New("nothing more happens"))
	defer cancel()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// confirmed waits until the executor has read back so many successes.
func confirmed(ctx context.Context, metrics prometheus.Gatherer, tasks float64) error {
	for deadline := time.Now().Add(benchWait); ; time.Sleep(confirmEvery) {
		families, err := metrics.Gather()
		if err != nil {
			return err
		}
		seen := 0.0
		for _, f := range families {
			if f.GetName() != "keten_task_attempts_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				seen += m.GetCounter().GetValue()
			}
		}
		switch {
		case seen >= tasks:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("outcomes of %.0f tasks are read back, want %.0f", seen, tasks)
		}
	}
}

// idleHops measures the time from one task to the next, one chain at a time.
func (b *executorBench) idleHops(ctx context.Context) error {
	l, err := b.newLedger(ctx)
	if err != nil {
		return err
	}
	defer l.drop(ctx)
	var times chainTimes
	done := make(chan struct{}, 1)
	r := executor.NewRegistry()
	executor.Handle(r, hopType, func(_ context.Context, t executor.Task[noopArgs]) (noopResult, error) {
		times.started[t.Args.Step] = time.Now()
		defer func() {
			times.ended[t.Args.Step] = time.Now()
			if t.Args.Step == benchTasks-1 {
				done <- struct{}{}
			}
		}()
		return noopResult{Step: t.Args.Step, Text: "a result that is passed on and stored"}, nil
	})
	stop, err := l.run(ctx, r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = stop() }() // what it says was said by then
	var first, hops []time.Duration
	for i := range b.cfg.warmup/10 + b.cfg.idle {
		msgs, err := l.creations(ctx, 1, defaultChain(hopType), int32(i%defaultPartitions))
		if err != nil {
			return err
		}
		at := time.Now()
		wait := l.append(msgs) //nolint:contextcheck // a record under way cannot be called back
		if err := await(ctx, done); err != nil {
			return err
		}
		if err := wait(); err != nil {
			return err
		}
		if i >= b.cfg.warmup/10 {
			first = append(first, times.started[0].Sub(at))
			for step := 1; step < benchTasks; step++ {
				hops = append(hops, times.started[step].Sub(times.ended[step-1]))
			}
		}
		time.Sleep(benchPause)
	}
	if err := stop(); err != nil {
		return err
	}
	return b.report("idle", map[string]any{"chains": b.cfg.idle, "tasks": benchTasks, "warmup_chains": b.cfg.warmup / 10}, map[string]any{
		"latency_ms": map[string]quantiles{"task_to_task": newQuantiles(hops), "created_to_first_task": newQuantiles(first)},
	})
}
