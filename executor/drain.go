package executor

import (
	"context"
	"log/slog"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
)

// drainDelay is how long an owner waits before it reads a partition that was
// revoked by a reader of its own: a partition that comes right back needs none.
const drainDelay = time.Second

// drain keeps a revoked partition read as long as attempts of it are held here:
// their outcomes are to be read back, and a handler whose attempt another owner
// has taken over is to be stopped.
func (o *owner) drain(ctx context.Context, now time.Time) {
	needed := o.phase == parked && len(o.held) > 0
	switch {
	case !needed && o.stopDrain != nil:
		o.stopDrain()
		o.stopDrain = nil
	case needed && o.stopDrain == nil && !now.Before(o.drainAt()):
		ctx, stop := context.WithCancel(ctx)
		o.stopDrain = stop
		o.x.loops.Go(func() { o.x.readDrained(ctx, o) })
	}
}

// drainAt is when a parked owner begins to read on. In a shutdown it need not
// wait: nothing comes back.
func (o *owner) drainAt() time.Time {
	if o.stopping {
		return o.parkedAt
	}
	return o.parkedAt.Add(drainDelay)
}

// readDrained feeds a revoked partition to its owner until ctx ends.
func (x *Executor) readDrained(ctx context.Context, o *owner) {
	for ctx.Err() == nil {
		from := map[int32]eventlog.Start{o.partition: *o.resume.Load()}
		r, err := x.log.NewReader(eventlog.ReaderConfig{From: from})
		if err == nil {
			err = x.pollDrained(ctx, r, o)
			r.Close()
		}
		if ctx.Err() == nil {
			o.logger.WarnContext(ctx, "partition cannot be read on after its revocation, trying again", slog.Any("error", err))
			pause(ctx, drainDelay)
		}
	}
}

func (x *Executor) pollDrained(ctx context.Context, r *eventlog.Reader, o *owner) error {
	for {
		fetches, err := r.Poll(ctx, pollMost)
		if err != nil {
			return err
		}
		for _, f := range fetches {
			if !o.deliver(ctx, f) {
				return ctx.Err()
			}
		}
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
