package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/keten-ledger/keten/ledger"
)

const (
	foldActive = 1_000 // collections under way at any time
	foldBatch  = 4_096 // records made, then parsed, then applied
	// foldFirst is the offset of the first chain's creation: all offsets of the
	// scenario have ten digits, so that a record is a copy of a pattern.
	foldFirst   = 1_000_000_000
	foldLimit   = time.Hour
	foldWorker  = "default/bench"
	foldSamples = 10
	statmPage   = 1 // the second number of /proc/self/statm: resident pages
)

func newBenchFold(std stdio) *cobra.Command {
	var records int
	var cpuProfile string
	cmd := &cobra.Command{
		Use:   "fold",
		Short: "Fold synthetic records by itself, and watch the memory",
		Long: `Decode, judge and hash synthetic records of about 400 bytes: chains of 5 tasks, of
which 1,000 are under way at any time. What the fold remembers must not grow with
the history. No broker and no database are needed. One JSON line on standard output.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if records < foldSamples*foldBatch {
				return exitWith(exitUsage, fmt.Errorf("--records: is %d, want at least %d", records, foldSamples*foldBatch))
			}
			return profiled(cpuProfile, func() error { return benchFold(cmd.Context(), std, records) })
		},
	}
	cmd.Flags().IntVar(&records, "records", 100_000_000, "how many")
	cmd.Flags().StringVar(&cpuProfile, "cpu-profile", "", "write a CPU profile of this process to a file, for go tool pprof")
	return cmd
}

// benchFold folds synthetic records, chains of five tasks of which 1,000 are
// under way at any time, and watches the memory: what a fold remembers must not
// grow with the history.
func benchFold(ctx context.Context, std stdio, records int) error {
	ctx, cancel := context.WithTimeout(ctx, foldLimit)
	defer cancel()
	w, err := newFoldWriter()
	if err != nil {
		return err
	}
	fold := ledger.NewPartition(0)
	if err := w.open(fold); err != nil {
		return err
	}
	batch, parsed := make([]ledger.Record, foldBatch), make([]ledger.Parsed, foldBatch)
	var resident, snapshots []float64
	begin := time.Now()
	for n := 0; n < records; n += foldBatch {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("fold: stopped after %d records: %w", n, err)
		}
		for i := range batch {
			batch[i] = w.next()
		}
		parseAll(parsed, batch)
		for i := range parsed {
			out, err := fold.ApplyParsed(&parsed[i])
			if err != nil {
				return fmt.Errorf("fold: %w", err)
			}
			if out.Verdict != ledger.Accepted {
				return fmt.Errorf("fold: record %d, a %s, is %s: %s", out.Offset, out.Type, out.Verdict, out.Reason)
			}
		}
		if n/(records/foldSamples+1) == len(resident) { // at the start and after each tenth
			mib, err := residentMiB()
			if err != nil {
				return err
			}
			resident, snapshots = append(resident, mib), append(snapshots, float64(len(fold.Snapshot()))/(1<<20))
		}
	}
	took := time.Since(begin)
	return printJSON(std, map[string]any{
		"scenario": "fold",
		"config":   map[string]any{"records": records, "window": ledger.DefaultWindow, "active": foldActive, "record_bytes": w.bytes / w.records},
		"throughput": map[string]any{
			"records_per_s": perSecond(records, took), "seconds": int(took.Seconds()),
		},
		"memory_mib": map[string]any{"resident_at_each_tenth": resident, "snapshot_at_each_tenth": snapshots},
	})
}

// parseAll parses on all cores: that needs no record before.
func parseAll(to []ledger.Parsed, from []ledger.Record) {
	n := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for part := range n {
		wg.Go(func() {
			for i := part * len(from) / n; i < (part+1)*len(from)/n; i++ {
				to[i] = ledger.Parse(from[i])
			}
		})
	}
	wg.Wait()
}

// residentMiB is what the process holds of the machine's memory.
func residentMiB() (float64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if errors.Is(err, os.ErrNotExist) { // not Linux
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64((m.Sys-m.HeapReleased)>>10) / 1024, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the process's memory: %w", err)
	}
	fields := strings.Fields(string(b))
	if len(fields) <= statmPage {
		return 0, errors.New("read the process's memory: /proc/self/statm has another form")
	}
	pages, err := strconv.Atoi(fields[statmPage])
	return float64(pages*os.Getpagesize()>>10) / 1024, err
}

// foldWriter writes the records of chains that take turns.
type foldWriter struct {
	offset         int64
	patterns       []foldPattern // one per record of a chain
	chains         []foldChain
	turn, born     int
	bytes, records int
}

type foldChain struct {
	id    uuid.UUID
	tasks [benchTasks]uuid.UUID
	step  int
	start int64 // offset of the last TaskStarted
}

// A foldPattern is an encoded record with the places of what differs.
type foldPattern struct {
	ledger.Message

	collection, offset []int
	tasks              [benchTasks][]int
}

const foldChainRecords = 1 + 2*benchTasks

func newFoldWriter() (*foldWriter, error) {
	w := &foldWriter{offset: foldFirst, chains: make([]foldChain, foldActive)}
	model := foldChain{id: ledger.NewCollectionID(0, time.UnixMilli(1_700_000_000_000), [8]byte{0xee})}
	for i := range model.tasks {
		model.tasks[i] = ledger.TaskID(model.id, ledger.KindTask, i)
	}
	for step := range foldChainRecords {
		event := foldEvent(model, step, foldFirst)
		meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: ledger.Source(uuid.Nil, "bench"), Time: time.UnixMilli(1_700_000_000_000)}
		msg, err := ledger.Encode(0, meta, event)
		if err != nil {
			return nil, fmt.Errorf("fold: %w", err)
		}
		p := foldPattern{Message: msg, collection: places(msg.Value, model.id.String()), offset: places(msg.Value, strconv.Itoa(foldFirst))}
		for i, id := range model.tasks {
			p.tasks[i] = places(msg.Value, id.String())
		}
		w.patterns = append(w.patterns, p)
	}
	for i := range w.chains {
		w.chains[i] = w.chain()
	}
	return w, nil
}

// foldEvent is the event of a chain's step: its creation, then start and success
// of each task.
func foldEvent(c foldChain, step int, at int64) ledger.Event {
	if step == 0 {
		e := ledger.CollectionCreated{CollectionID: c.id, Tenant: "default", Name: "bench", RequestHash: strings.Repeat("0", 64), AsOf: at}
		for i, id := range c.tasks {
			e.Tasks = append(e.Tasks, ledger.Task{
				ID: id, Index: i, Name: "task-" + strconv.Itoa(i), Type: "noop", Queue: ledger.DefaultQueue, Args: json.RawMessage(`{}`),
				OnInterrupt: ledger.OnInterruptRestart, MaxAttempts: ledger.DefaultMaxAttempts, TimeoutMS: ledger.DefaultTimeoutMS,
				Backoff: ledger.Backoff{InitialMS: ledger.DefaultBackoffInitialMS, Multiplier: ledger.DefaultBackoffMultiplier, MaxMS: ledger.DefaultBackoffMaxMS},
			})
		}
		return e
	}
	task := c.tasks[(step-1)/2]
	if step%2 == 1 {
		return ledger.TaskStarted{CollectionID: c.id, Tenant: "default", Run: 1, TaskID: task, Attempt: 1, Claim: 1, Worker: foldWorker}
	}
	return ledger.TaskSucceeded{
		CollectionID: c.id, Tenant: "default", Run: 1, TaskID: task, AttemptID: at, Worker: foldWorker,
		Result: json.RawMessage(`{"text":"` + strings.Repeat("r", 230) + `"}`),
	}
}

// open opens the partition and claims its queue.
func (w *foldWriter) open(fold *ledger.Partition) error {
	for i, e := range []ledger.Event{
		ledger.LedgerOpened{LedgerID: uuid.Must(uuid.NewV7()), Partitions: 1, Rules: ledger.Rules, Window: ledger.DefaultWindow},
		ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: -1, Worker: foldWorker},
	} {
		msg, err := ledger.Encode(0, ledger.Meta{EventID: uuid.Must(uuid.NewV7())}, e)
		if err != nil {
			return fmt.Errorf("fold: %w", err)
		}
		if _, err := fold.Apply(ledger.Record{Offset: int64(i), Key: msg.Key, Value: msg.Value, Headers: msg.Headers}); err != nil {
			return fmt.Errorf("fold: %w", err)
		}
	}
	return nil
}

func (w *foldWriter) chain() foldChain {
	w.born++
	c := foldChain{id: ledger.NewCollectionID(0, time.UnixMilli(1_700_000_000_000+int64(w.born)), [8]byte{1, 2, 3, 4, 5, 6, 7, 8})}
	for i := range c.tasks {
		c.tasks[i] = ledger.TaskID(c.id, ledger.KindTask, i)
	}
	return c
}

// next writes the next record of the chain whose turn it is.
func (w *foldWriter) next() ledger.Record {
	c := &w.chains[w.turn]
	w.turn = (w.turn + 1) % len(w.chains)
	p := &w.patterns[c.step]
	at := c.start
	switch {
	case c.step == 0:
		at = w.offset
	case c.step%2 == 1:
		c.start = w.offset
	}
	id := c.id.String()
	r := ledger.Record{
		Offset: w.offset, LeaderEpoch: 1, TimeMS: 1_700_000_000_000 + w.offset/1000, Key: []byte(id),
		Value: slices.Clone(p.Value), Headers: p.Headers,
	}
	put(r.Value, p.collection, []byte(id))
	put(r.Value, p.offset, strconv.AppendInt(nil, at, 10))
	for i := range c.tasks {
		if len(p.tasks[i]) > 0 {
			put(r.Value, p.tasks[i], []byte(c.tasks[i].String()))
		}
	}
	w.offset++
	w.bytes += len(r.Value)
	w.records++
	if c.step++; c.step == len(w.patterns) {
		*c = w.chain()
	}
	return r
}

// places are where a text stands.
func places(value []byte, text string) []int {
	var at []int
	for from := 0; ; {
		i := bytes.Index(value[from:], []byte(text))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(text)
	}
}

func put(value []byte, at []int, text []byte) {
	for _, i := range at {
		copy(value[i:], text)
	}
}
