package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

const (
	historyWorker = "default/history"
	// historyActive chains of a partition go in step.
	historyActive = 84
	// historyUnacked bounds the records that wait for the broker.
	historyUnacked = 30_000
)

// restart measures the time from the start of a process to its first task, and
// to the first task in every partition, behind histories of growing length. One
// ledger grows; an executor reads what was added, stops as a deployment stops it,
// and is then started some times.
func (b *executorBench) restart(ctx context.Context) error {
	l, err := b.newLedger(ctx)
	if err != nil {
		return err
	}
	defer l.drop(ctx)
	h := &history{ledger: l}
	if h.patterns, err = chainPatterns(ledger.Source(l.log.Info().LedgerID, "executor"), historyWorker); err != nil {
		return err
	}
	var results []map[string]any
	for _, records := range b.cfg.history {
		grown := time.Now()
		if err := h.grow(ctx, records); err != nil {
			return fmt.Errorf("write %d records: %w", records, err)
		}
		writing := time.Since(grown)
		first, all, err := l.restartTimes(ctx)
		if err != nil {
			return fmt.Errorf("behind %d records: %w", records, err)
		}
		folding := first[0]
		first, all = first[1:], all[1:]
		results = append(results, map[string]any{
			"records": h.records, "seconds_to_write_what_was_added": int(writing.Seconds()), "first_start_ms": folding.Milliseconds(),
			"first_task_ms": median(first).Milliseconds(), "all_partitions_ms": median(all).Milliseconds(),
			"first_task_ms_of_starts": millis(first), "all_partitions_ms_of_starts": millis(all),
		})
	}
	return b.report("restart", map[string]any{"starts": b.cfg.restarts}, map[string]any{"histories": results})
}

func millis(ds []time.Duration) []int64 {
	var ms []int64
	for _, d := range ds {
		ms = append(ms, d.Milliseconds())
	}
	return ms
}

// restartTimes starts an executor once more than asked for and returns when it
// ran the first task and one in every partition. The first start folds what was
// added to the history.
func (l *benchLedger) restartTimes(ctx context.Context) (first, all []time.Duration, err error) {
	lines := make(chan processLine, processLines)
	for range l.bench.cfg.restarts + 1 {
		if err := l.create(ctx, defaultPartitions, chainOf{noteType, ledger.DefaultQueue, 1}); err != nil {
			return nil, nil, err
		}
		begin := time.Now()
		p, err := l.startProcess(ctx, defaultPartitions, lines)
		if err != nil {
			return nil, nil, err
		}
		at, err := started(ctx, lines, p, noteType, defaultPartitions)
		if err != nil {
			p.kill()
			return nil, nil, err
		}
		least, most := benchWait, time.Duration(0)
		for _, t := range at {
			least, most = min(least, t.Sub(begin)), max(most, t.Sub(begin))
		}
		first, all = append(first, least), append(all, most)
		if err := p.stop(); err != nil {
			return nil, nil, err
		}
	}
	return first, all, nil
}

// A history writes the records of chains that have come to their end, as an
// executor would have.
type history struct {
	ledger   *benchLedger
	patterns [foldChainRecords]recordPattern
	records  int
	born     int64
}

// grow makes the ledger as long as wanted.
func (h *history) grow(ctx context.Context, records int) error {
	folds, err := h.ledger.folds(ctx)
	if err != nil {
		return err
	}
	acks := make(chan error, historyUnacked)
	var writers []*historyWriter
	per := max(0, records-h.records) / defaultPartitions
	for _, fold := range folds {
		writers = append(writers, newHistoryWriter(h, fold, per))
	}
	unacked := 0
	take := func(most int) error {
		for unacked > most {
			select {
			case err := <-acks:
				if err != nil {
					return err
				}
				unacked--
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	for busy := true; busy; {
		busy = false
		for _, w := range writers {
			msg, offset, more, err := w.next()
			if err != nil {
				return err
			}
			if !more {
				continue
			}
			busy = true
			h.records++
			unacked++
			h.ledger.log.Append(msg, func(at int64, err error) { //nolint:contextcheck // a record under way cannot be called back
				if err == nil && at != offset {
					err = fmt.Errorf("record of partition %d landed at offset %d, not %d: somebody else writes", msg.Partition, at, offset)
				}
				acks <- err
			})
			if err := take(historyUnacked - 1); err != nil {
				return err
			}
		}
	}
	return take(0)
}

// folds returns the partitions as they stand.
func (l *benchLedger) folds(ctx context.Context) (map[int32]*ledger.Partition, error) {
	ends, err := l.log.Ends(ctx)
	if err != nil {
		return nil, err
	}
	folds, from := make(map[int32]*ledger.Partition), make(map[int32]eventlog.Start)
	for p := range ends {
		fold, start, err := l.log.Resume(ctx, p)
		if err != nil {
			return nil, err
		}
		folds[p] = fold
		if fold.Position() < ends[p] {
			from[p] = start
		}
	}
	if len(from) == 0 {
		return folds, nil
	}
	r, err := l.log.NewReader(eventlog.ReaderConfig{From: from}) //nolint:contextcheck // Poll takes one
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for behind := maps.Clone(from); len(behind) > 0; {
		fetched, err := r.Poll(ctx, historyUnacked)
		if err != nil {
			return nil, err
		}
		for _, f := range fetched {
			if f.Err != nil {
				return nil, f.Err
			}
			for _, record := range f.Records {
				if _, err := folds[f.Partition].Apply(record); err != nil {
					return nil, err
				}
			}
			if folds[f.Partition].Position() >= ends[f.Partition] {
				delete(behind, f.Partition)
			}
		}
	}
	return folds, nil
}

// A historyWriter writes one partition: a claim, then chains that go in step,
// then the release of the claim.
type historyWriter struct {
	h         *history
	partition int32
	offset    int64 // of the next record
	prev      int64 // the claim before ours
	claim     int64 // ours, -1 before it was written
	left      int   // chains to begin
	chains    []benchChain
	starts    []int64 // offsets of the last starts
	turn      int     // records of the chains that go in step, written so far
	released  bool
}

func newHistoryWriter(h *history, fold *ledger.Partition, records int) *historyWriter {
	w := &historyWriter{h: h, partition: fold.Index(), offset: fold.Position(), prev: -1, claim: -1, left: max(records-2, 0) / foldChainRecords}
	if c, ok := fold.Claim(ledger.DefaultQueue); ok {
		w.prev = c.Offset
	}
	w.released = w.left == 0
	return w
}

// next returns the next record and where it must land, or that there is none.
func (w *historyWriter) next() (msg ledger.Message, offset int64, more bool, err error) {
	switch {
	case w.claim < 0 && !w.released:
		w.claim = w.offset
		msg, err = w.encode(ledger.PartitionClaimed{Queue: ledger.DefaultQueue, Prev: w.prev, Worker: historyWorker})
	case w.turn < len(w.chains)*foldChainRecords || w.left > 0:
		msg = w.nextOfChain()
	case !w.released:
		w.released = true
		msg, err = w.encode(ledger.PartitionReleased{Queue: ledger.DefaultQueue, Claim: w.claim, Worker: historyWorker, Running: []int64{}})
	default:
		return msg, 0, false, nil
	}
	w.offset++
	return msg, w.offset - 1, true, err
}

func (w *historyWriter) encode(e ledger.Event) (ledger.Message, error) {
	source := ledger.Source(w.h.ledger.log.Info().LedgerID, "executor")
	return ledger.Encode(w.partition, ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: source, Time: time.Now()}, e)
}

func (w *historyWriter) nextOfChain() ledger.Message {
	if w.turn == len(w.chains)*foldChainRecords {
		w.begin()
	}
	i, step := w.turn%len(w.chains), w.turn/len(w.chains)
	w.turn++
	at := w.starts[i]
	switch {
	case step == 0:
		at = w.offset
	case step%2 == 1:
		w.starts[i] = w.offset
	}
	p, c := &w.h.patterns[step], &w.chains[i]
	return ledger.Message{Partition: w.partition, Key: []byte(c.collection), Value: p.fill(c, at, w.claim), Headers: p.headers}
}

// begin takes the next chains.
func (w *historyWriter) begin() {
	n := min(w.left, historyActive)
	w.left -= n
	w.turn = 0
	w.chains, w.starts = make([]benchChain, n), make([]int64, n)
	for i := range w.chains {
		w.h.born++
		w.chains[i] = newBenchChain(ledger.NewCollectionID(w.partition, time.UnixMilli(1_700_000_000_000+w.h.born), [8]byte{1, 2, 3, 4, 5, 6, 7, 8}))
	}
}
