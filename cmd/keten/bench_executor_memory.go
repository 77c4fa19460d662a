package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/keten-ledger/keten/ledger"
)

func heapMiB() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc>>10) / 1024
}

// memory measures what active collections take in an executor: those that wait
// in a queue nobody serves, and those with a task that runs.
func (b *executorBench) memory(ctx context.Context) error {
	l, err := b.newLedger(ctx)
	if err != nil {
		return err
	}
	defer l.drop(ctx)
	lines := make(chan processLine, processLines)
	p, err := l.startProcess(ctx, b.cfg.memory+defaultPartitions, lines)
	if err != nil {
		return err
	}
	defer p.kill()
	measure := func() (processLine, error) {
		// A probe in every partition runs after all before it was folded.
		if _, err := l.probes(ctx, lines); err != nil {
			return processLine{}, err
		}
		if _, err := io.WriteString(p.in, "memory\n"); err != nil {
			return processLine{}, err
		}
		for {
			line, err := nextLine(ctx, lines)
			if err != nil || line.ResidentMiB > 0 {
				return line, err
			}
		}
	}
	empty, err := measure()
	if err != nil {
		return err
	}
	if err := l.create(ctx, b.cfg.memory, chainOf{noteType, nobodysQueue, benchTasks}); err != nil {
		return err
	}
	waiting, err := measure()
	if err != nil {
		return err
	}
	if err := l.create(ctx, b.cfg.memory, chainOf{holdType, ledger.DefaultQueue, benchTasks}); err != nil {
		return err
	}
	if _, err := started(ctx, lines, p, holdType, b.cfg.memory); err != nil {
		return fmt.Errorf("running: %w", err)
	}
	running, err := measure()
	if err != nil {
		return err
	}
	mib := func(before, after processLine) map[string]any {
		return map[string]any{"heap": tenths(after.HeapMiB - before.HeapMiB), "resident": tenths(after.ResidentMiB - before.ResidentMiB)}
	}
	return b.report("memory", map[string]any{"collections": b.cfg.memory, "tasks": benchTasks}, map[string]any{"memory_mib": map[string]any{
		"process_without_collections": mib(processLine{}, empty), "of_waiting_collections": mib(empty, waiting), "of_running_collections": mib(waiting, running),
	}})
}

func tenths(mib float64) float64 { return float64(int(mib*10)) / 10 }
