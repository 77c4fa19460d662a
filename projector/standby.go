package projector

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/keten-ledger/keten/internal/readmodel"
)

// A projector that meets another one's checkpoint stands by in that partition:
// it goes on reading, follows the tables and writes nothing. As long as they
// move, or there is nothing to write, that is all. When they have stood still
// for the takeover time although there is something to write, it writes. Were
// the other one only slow, its next transaction meets a conflict and it is the
// one that stands by: they change places at most once per takeover time.

// errReload ends a session whose folds do not stand where the tables do.
var errReload = errors.New("the tables stand where this fold cannot go on")

// policy says what a checkpoint that has moved means in a partition that this
// projector writes.
type policy int

const (
	// writeWherePossible is for a transaction with an unknown outcome: most
	// likely it moved the checkpoint itself.
	writeWherePossible policy = iota
	// standWhereMoved is for a conflict: another projector moved it.
	standWhereMoved
)

// reconcile takes in where the tables stand, after a transaction that did not
// end well, and stands by where another projector writes.
func (s *session) reconcile(ctx context.Context, then policy) error {
	stored, err := s.checkpoints(ctx)
	if err != nil {
		return err
	}
	for _, c := range stored {
		x := s.parts[c.Partition]
		if x == nil || !x.writes() {
			continue // tick sees to those that stand by
		}
		moved := c.Next != x.stored.Next
		aligned, err := x.advance(c)
		switch {
		case err != nil:
			s.discard(ctx, x, err)
		case !aligned || moved && then == standWhereMoved:
			s.standBy(ctx, x)
		}
	}
	return nil
}

// standBy ends the writing of a partition for the time being.
func (s *session) standBy(ctx context.Context, x *part) {
	if s.waits == 0 {
		s.cfg.Logger.InfoContext(ctx, "standing by where another projector writes")
		s.ticking.Reset(s.tickIn())
	}
	x.standby = time.Now()
	s.countWaits(1)
	s.dropIfOver(x)
}

// goOn begins to write a partition again.
func (s *session) goOn(ctx context.Context, x *part) {
	s.cfg.Logger.InfoContext(ctx, "taking over from another projector", slog.Int64("partition", int64(x.fold.Index())))
	x.standby = time.Time{}
	s.countWaits(-1)
	s.fold(ctx, x, x.take(endOfLog))
}

func (s *session) countWaits(change int) {
	s.waits += change
	s.metrics.standby.Set(float64(s.waits))
}

// tickIn is how long the tables are left alone while standing by.
func (s *session) tickIn() time.Duration { return jitter(s.cfg.Takeover / 10) }

// tick follows the tables of the partitions that stand by.
func (s *session) tick(ctx context.Context) error {
	if s.waits == 0 {
		return nil
	}
	stored, err := s.checkpoints(ctx)
	if err != nil {
		return err
	}
	for _, c := range stored {
		x := s.parts[c.Partition]
		if x == nil || x.writes() {
			continue
		}
		if err := s.follow(ctx, x, c); err != nil {
			return err
		}
	}
	s.ticking.Reset(s.tickIn())
	return nil
}

// follow takes in where the tables of a partition stand, folds up to there, and
// takes over when they stand still. The error is errReload when they do not
// stand where this fold can write on.
func (s *session) follow(ctx context.Context, x *part, c readmodel.Checkpoint) error {
	moved := c.Next != x.stored.Next
	aligned, err := x.advance(c)
	if err != nil {
		s.discard(ctx, x, err)
		return nil
	}
	s.fold(ctx, x, x.take(c.Next))
	now := time.Now()
	switch {
	case moved || !x.unwritten():
		x.standby = now
	case now.Sub(x.standby) < s.cfg.Takeover+jitter(s.cfg.Takeover/4): // lest several take over at once
	case !aligned:
		return errReload
	default:
		s.goOn(ctx, x)
	}
	s.dropIfOver(x)
	return nil
}
