package projector

import (
	"context"
	"time"
)

// A projector that meets another one's checkpoint stands by: it goes on
// reading, follows the tables and writes nothing. As long as the tables move,
// or there is nothing to write, that is all. When they have stood still for the
// takeover time although there is something to write, it writes itself. Were
// the other one only slow, its next transaction meets a conflict and it is the
// one that stands by: they change places at most once per takeover time.

// standBy begins to stand by.
func (s *session) standBy(ctx context.Context) error {
	s.cfg.Logger.InfoContext(ctx, "standing by while another projector writes")
	s.metrics.standby.Set(1)
	s.alone = nil
	s.standby = time.Now()
	return s.tick(ctx)
}

// tick follows the tables while standing by; otherwise the timer only says that
// the next transaction may begin.
func (s *session) tick(ctx context.Context) error {
	if s.standby.IsZero() {
		return nil
	}
	moved, aligned, err := s.reconcile(ctx)
	if err != nil {
		return err
	}
	unwritten := false
	for _, x := range s.parts {
		s.fold(ctx, x, x.take(x.stored.Next))
		unwritten = unwritten || len(x.pending) > 0 || len(x.buffer) > 0
	}
	now := time.Now()
	if moved || !unwritten {
		s.standby = now
	}
	if now.Sub(s.standby) < s.takeover {
		s.timer.Reset(jitter(s.cfg.Takeover / 10))
		return nil
	}
	if !aligned {
		return errReload
	}
	s.goOn(ctx)
	return nil
}

// goOn ends standing by.
func (s *session) goOn(ctx context.Context) {
	s.cfg.Logger.InfoContext(ctx, "the other projector has stopped; writing again")
	s.metrics.standby.Set(0)
	s.standby = time.Time{}
	for _, x := range s.parts {
		s.fold(ctx, x, x.take(endOfLog))
	}
}
