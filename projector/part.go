package projector

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// endOfLog is behind every record.
const endOfLog = math.MaxInt64

// errHistory reports that the log is not the one the tables were made from.
var errHistory = errors.New("the log does not hold the history that was projected: records were lost or replaced")

// part is one partition of a session. One goroutine owns it.
type part struct {
	ledgerID uuid.UUID
	fold     *ledger.Partition
	// stored is where the tables stand as far as this projector knows.
	stored readmodel.Checkpoint
	// pending are changes that are not in the tables, in order, of which the
	// last may still grow; writing says that the first is with the writer.
	pending []*pending
	writing bool
	// standby is zero while this projector writes the partition, else when
	// its tables were last seen to move.
	standby time.Time
	// buffer are records that wait to be folded while another projector
	// writes, because a fold cannot go back to where the tables stand.
	buffer      []ledger.Record
	bufferBytes int
	over        bool // nothing more is folded; what is pending is still written

	high int64 // the log end when last fetched
	goal int64 // the log end when the session began
	lag  prometheus.Gauge
}

// pending are changes with what the metrics want to know of them.
type pending struct {
	*readmodel.Changes

	firstMS  int64 // record time of the first record
	verdicts map[verdictLabels]int
}

func newPart(stored readmodel.Checkpoint, goal int64, lag prometheus.Gauge) *part {
	return &part{
		ledgerID: stored.LedgerID, fold: ledger.NewPartition(stored.Partition), stored: stored, goal: goal, high: goal, lag: lag,
	}
}

// apply folds one record and keeps what it means unless the tables have it
// already. The error is a *[ledger.HaltError], which leaves the fold where it
// was, or wraps errHistory.
func (x *part) apply(r ledger.Record) error {
	if x.fold.Position() < x.stored.Next {
		if _, err := x.fold.Apply(r); err != nil {
			return err
		}
		return x.verify()
	}
	p, fresh := x.open(r)
	o, err := x.fold.Apply(r)
	if err != nil {
		return err
	}
	if fresh {
		x.pending = append(x.pending, p)
	}
	p.Add(r, o)
	p.To = readmodel.CheckpointOf(x.ledgerID, x.fold)
	p.verdicts[labelsOf(o)]++
	return nil
}

// open returns the changes that a record goes into, and whether they are new.
func (x *part) open(r ledger.Record) (p *pending, fresh bool) {
	n := len(x.pending)
	if n > 1 || n == 1 && !x.writing {
		return x.pending[n-1], false
	}
	return &pending{
		Changes: readmodel.NewChanges(readmodel.CheckpointOf(x.ledgerID, x.fold)),
		firstMS: r.TimeMS, verdicts: make(map[verdictLabels]int),
	}, true
}

// verify compares the fold with the checkpoint once it has got there.
func (x *part) verify() error {
	at := x.fold.Position()
	switch {
	case at < x.stored.Next:
		return nil
	case at > x.stored.Next: // a checkpoint is a position behind a record
		return fmt.Errorf("%w: no record ends at offset %d, where the tables stand", errHistory, x.stored.Next)
	case x.fold.ChainHash() != x.stored.ChainHash || x.fold.LastHash() != x.stored.LastHash:
		return fmt.Errorf("%w: the hash of the records before offset %d is not that of the tables", errHistory, at)
	}
	if id, _, _, ok := x.fold.Opened(); ok && id != x.stored.LedgerID {
		return fmt.Errorf("%w: the partition was opened for ledger %s, the tables are of %s", errHistory, id, x.stored.LedgerID)
	}
	return nil
}

// advance takes in where the tables stand and forgets pending changes that are
// in them by now. aligned is false when they stand inside of pending changes or
// before them: this fold cannot write on from there.
func (x *part) advance(to readmodel.Checkpoint) (aligned bool, err error) {
	x.stored = to
	for len(x.pending) > 0 && x.pending[0].To.Next <= to.Next {
		p := x.pending[0]
		x.pending = x.pending[1:]
		if p.To.Next == to.Next && (p.To.ChainHash != to.ChainHash || p.To.LastHash != to.LastHash) {
			return false, fmt.Errorf("%w: another projector read other records before offset %d", errHistory, to.Next)
		}
	}
	if len(x.pending) > 0 {
		return x.pending[0].From.Next == to.Next, nil
	}
	return x.fold.Position() <= to.Next, nil
}

// keep puts records into the buffer.
func (x *part) keep(records []ledger.Record) {
	x.buffer = append(x.buffer, records...)
	for i := range records {
		x.bufferBytes += len(records[i].Value)
	}
}

// take hands out the buffered records that end before an offset.
func (x *part) take(before int64) []ledger.Record {
	n := 0
	for n < len(x.buffer) && x.buffer[n].Offset < before {
		x.bufferBytes -= len(x.buffer[n].Value)
		n++
	}
	taken := x.buffer[:n]
	x.buffer = x.buffer[n:]
	return taken
}

// skip folds the buffered records without keeping what they mean, so that they
// need no room. Should this projector have to write them after all, the fold
// begins again.
func (x *part) skip() error {
	for _, r := range x.take(endOfLog) {
		if _, err := x.fold.Apply(r); err != nil {
			return err
		}
	}
	return nil
}

// writes reports whether this projector writes the partition.
func (x *part) writes() bool { return x.standby.IsZero() }

// unwritten reports whether there is something that the tables lack.
func (x *part) unwritten() bool {
	return len(x.pending) > 0 || len(x.buffer) > 0 || x.fold.Position() > x.stored.Next
}

// written takes in that the first pending changes are in the tables.
func (x *part) written() *pending {
	p := x.pending[0]
	x.pending, x.writing, x.stored = x.pending[1:], false, p.To
	return p
}

// caught reports whether all is written that was there when the session began.
func (x *part) caught() bool { return x.stored.Next >= x.goal && x.fold.Position() >= x.goal }

// firstMS is the record time of the oldest record that is known and not in the
// tables, 0 for none.
func (x *part) firstMS() int64 {
	switch {
	case len(x.pending) > 0:
		return x.pending[0].firstMS
	case len(x.buffer) > 0:
		return x.buffer[0].TimeMS
	}
	return 0
}
