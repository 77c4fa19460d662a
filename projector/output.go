package projector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// outputBatch bounds the records of one transaction.
	outputBatch = 2_000
	// outputEvery is the least time between two transactions: people look at
	// output, and many tasks say a little.
	outputEvery = 100 * time.Millisecond
	// outputTimeout bounds a transaction, as writeTimeout does.
	outputTimeout = 30 * time.Second
	// retentionBatch is of how many attempts one statement deletes the output,
	// each with up to 1,000 lines.
	retentionBatch = 100
)

// output tails the topic of what tasks say into the read model. It stands beside
// the projection of the ledger: nothing of that waits for it or fails with it.
type output struct {
	*Projector

	trouble string // what is wrong, as it was logged; "" for nothing
}

// run tails the output and deletes what is old, until ctx ends.
func (o *output) run(ctx context.Context) {
	var deleting sync.WaitGroup
	deleting.Go(func() { o.retain(ctx) })
	defer deleting.Wait()
	pause := retryMin
	for ctx.Err() == nil {
		progressed, err := o.tail(ctx)
		if progressed {
			pause = retryMin
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, readmodel.ErrConflict):
			o.standBy(ctx)
			continue
		}
		o.note(ctx, err)
		if sleep(ctx, jitter(pause)) != nil {
			return
		}
		pause = min(2*pause, retryMax)
	}
}

// tail reads on from where the tables stand, and returns what ended that:
// [readmodel.ErrConflict] when another projector writes.
func (o *output) tail(ctx context.Context) (progressed bool, err error) {
	at, err := o.positions(ctx)
	if err != nil {
		return false, err
	}
	reader, err := o.cfg.Log.NewOutputReader(at) //nolint:contextcheck // a reader lives until it is closed
	if err != nil {
		return false, err
	}
	defer reader.Close()
	for {
		fetched, err := reader.Poll(ctx, outputBatch)
		if err != nil {
			return progressed, err
		}
		if err := o.store(ctx, at, fetched); err != nil {
			return progressed, err
		}
		progressed = true
		o.note(ctx, nil)
		if err := sleep(ctx, outputEvery); err != nil {
			return progressed, err
		}
	}
}

func (o *output) positions(ctx context.Context) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return o.cfg.Store.OutputPositions(ctx, o.info.LedgerID, o.info.Partitions)
}

// store writes what was read, and moves the positions in at.
func (o *output) store(ctx context.Context, at map[int32]int64, fetched []eventlog.OutputFetched) error {
	ahead := make(map[int32]int64)
	var records [][]readmodel.OutputEntry
	unreadable, lag := 0, int64(0)
	for _, f := range fetched {
		ahead[f.Partition] = f.Next
		lag += max(0, f.HighWatermark-f.Next)
		for _, r := range f.Records {
			found, ok := outputEntries(f.Partition, r)
			if !ok {
				unreadable++
				continue
			}
			records = append(records, found)
		}
	}
	moves := make([]readmodel.OutputMove, 0, len(ahead))
	for partition, next := range ahead {
		moves = append(moves, readmodel.OutputMove{Partition: partition, From: at[partition], Next: next})
	}
	refused := 0
	err := o.write(ctx, moves, slices.Concat(records...))
	if refusal, ok := errors.AsType[*readmodel.RefusedError](err); ok {
		if refused, err = o.writeApart(ctx, moves, records); err == nil {
			o.cfg.Logger.WarnContext(ctx, "output of tasks was refused and is left out", slog.Int("records", refused), slog.Any("error", refusal))
		}
	}
	if err != nil {
		return err
	}
	maps.Copy(at, ahead)
	o.metrics.outputRecords.WithLabelValues("stored").Add(float64(len(records) - refused))
	o.metrics.outputRecords.WithLabelValues("refused").Add(float64(refused))
	o.metrics.outputRecords.WithLabelValues("unreadable").Add(float64(unreadable))
	o.metrics.outputLag.Set(float64(lag))
	return nil
}

// writeApart stores a batch that was refused in ever smaller parts, leaves out the
// records that are refused alone, and returns how many those were: they are not
// to be tried for ever, nor to cost others anything. The positions move at the
// end. Who is interrupted before reads the batch again, and what was stored of it
// is passed over.
func (o *output) writeApart(ctx context.Context, moves []readmodel.OutputMove, records [][]readmodel.OutputEntry) (refused int, err error) {
	stay := slices.Clone(moves)
	for i := range stay {
		stay[i].Next = stay[i].From
	}
	left := [][][]readmodel.OutputEntry{records} // the next part stands last
	for len(left) > 0 {
		part := left[len(left)-1]
		left = left[:len(left)-1]
		err := o.write(ctx, stay, slices.Concat(part...))
		_, ok := errors.AsType[*readmodel.RefusedError](err)
		switch {
		case ok && len(part) > 1:
			left = append(left, part[len(part)/2:], part[:len(part)/2])
		case ok:
			refused++
		case err != nil:
			return 0, err
		}
	}
	return refused, o.write(ctx, moves, nil)
}

func (o *output) write(ctx context.Context, moves []readmodel.OutputMove, entries []readmodel.OutputEntry) error {
	ctx, cancel := context.WithTimeout(ctx, outputTimeout)
	defer cancel()
	return o.cfg.Store.WriteOutput(ctx, moves, entries,
		readmodel.OutputCaps{Lines: eventlog.MaxOutputLines, Bytes: eventlog.MaxOutputBytes})
}

// outputEntries reads a record. One that cannot be read, or that stands in
// another partition than its collection, is nobody's.
func outputEntries(partition int32, raw eventlog.OutputRaw) (entries []readmodel.OutputEntry, ok bool) {
	r, err := eventlog.DecodeOutput(raw.Value)
	if err != nil || ledger.PartitionOf(r.CollectionID) != partition {
		return nil, false
	}
	entries = make([]readmodel.OutputEntry, len(r.Entries))
	for i, e := range r.Entries {
		entries[i] = readmodel.OutputEntry{
			Partition: partition, AttemptID: r.AttemptID, CollectionID: r.CollectionID, TaskID: r.TaskID, Run: r.Run,
			Seq: e.Seq, Kind: outputKind(e.Kind), Percent: e.Percent, Text: e.Text, At: e.At, RecordedAt: time.UnixMilli(raw.TimeMS),
		}
	}
	return entries, true
}

func outputKind(kind string) readmodel.OutputKind {
	switch kind {
	case eventlog.OutputProgress:
		return readmodel.OutputProgress
	case eventlog.OutputCut:
		return readmodel.OutputCut
	}
	return readmodel.OutputLine
}

// standBy waits while another projector writes: as long as the positions move.
// Where there is nothing to write both read on, and the first that writes goes
// on alone.
func (o *output) standBy(ctx context.Context) {
	last, err := o.positions(ctx)
	for err == nil && sleep(ctx, o.cfg.Takeover+jitter(o.cfg.Takeover/4)) == nil {
		var now map[int32]int64
		now, err = o.positions(ctx)
		if err == nil && !moved(last, now) {
			return
		}
		last = now
	}
}

func moved(last, now map[int32]int64) bool {
	for partition, next := range now {
		if last[partition] != next {
			return true
		}
	}
	return false
}

// retain deletes output that is past its time, now and then.
func (o *output) retain(ctx context.Context) {
	for sleep(ctx, jitter(o.cfg.RetentionEvery)) == nil {
		before := time.Now().Add(-eventlog.OutputRetention)
		for n := retentionBatch; n == retentionBatch && ctx.Err() == nil; {
			n = o.deleteBefore(ctx, before)
		}
	}
}

// deleteBefore deletes a batch; what fails is tried again with the next round.
func (o *output) deleteBefore(ctx context.Context, before time.Time) int {
	ctx, cancel := context.WithTimeout(ctx, outputTimeout)
	defer cancel()
	n, err := o.cfg.Store.DeleteOutput(ctx, before, retentionBatch)
	if err != nil && !errors.Is(err, readmodel.ErrUnreachable) {
		o.cfg.Logger.WarnContext(ctx, "old output of tasks stays for now", slog.Any("error", err))
	}
	return n
}

// note logs what keeps output from being shown, once, and when it is over.
func (o *output) note(ctx context.Context, err error) {
	switch {
	case err == nil && o.trouble != "":
		o.trouble = ""
		o.cfg.Logger.InfoContext(ctx, "output of tasks is shown again")
	case err == nil:
	case o.trouble == "":
		o.trouble = err.Error()
		o.cfg.Logger.WarnContext(ctx, "output of tasks is not shown for now; nothing else is affected", slog.Any("error", err))
	}
}
