package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// settleEvery is how often it is looked whether the partitions are shared out.
const settleEvery = 200 * time.Millisecond

// takeover measures how long the running tasks of a process that is killed stand
// still: until they are superseded by starts in another one.
func (b *executorBench) takeover(ctx context.Context) error {
	l, err := b.newLedger(ctx)
	if err != nil {
		return err
	}
	defer l.drop(ctx)
	lines := make(chan processLine, processLines)
	slots := b.cfg.takeover + defaultPartitions
	first, err := l.startProcess(ctx, slots, lines)
	if err != nil {
		return err
	}
	defer first.kill()
	second, err := l.startProcess(ctx, slots, lines)
	if err != nil {
		return err
	}
	defer second.kill()
	owned, err := l.shared(ctx, lines, first)
	if err != nil {
		return err
	}
	if err := l.create(ctx, b.cfg.takeover, chainOf{holdType, ledger.DefaultQueue, benchTasks}, owned...); err != nil {
		return err
	}
	if _, err := started(ctx, lines, first, holdType, b.cfg.takeover); err != nil {
		return fmt.Errorf("before the kill: %w", err)
	}
	killed := time.Now()
	first.kill()
	again, err := started(ctx, lines, second, holdType, b.cfg.takeover)
	if err != nil {
		return fmt.Errorf("after the kill: %w", err)
	}
	var stood []time.Duration
	for _, at := range again {
		stood = append(stood, at.Sub(killed))
	}
	return b.report("takeover", map[string]any{"running_tasks": b.cfg.takeover, "partitions_of_the_killed": len(owned), "processes": 2},
		map[string]any{"latency_ms": map[string]quantiles{"killed_to_running_again": newQuantiles(stood)}})
}

// shared waits until the group has settled, and returns the partitions that p
// owns.
func (l *benchLedger) shared(ctx context.Context, lines <-chan processLine, p *benchProcess) ([]int32, error) {
	for deadline := time.Now().Add(benchWait); time.Now().Before(deadline); time.Sleep(settleEvery) {
		owners, err := l.probes(ctx, lines)
		if err != nil {
			return nil, err
		}
		var owned []int32
		for partition, owner := range owners {
			if owner == p {
				owned = append(owned, partition)
			}
		}
		if len(owned) == defaultPartitions/2 {
			return owned, nil
		}
	}
	return nil, errors.New("the processes do not share the partitions")
}
