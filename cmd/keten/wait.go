package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
)

const (
	waitPause = 500 * time.Millisecond // between two tries
	waitLog   = 3 * time.Second        // between two log lines
)

// waiter tries until something can be reached, for as long as it was told to.
type waiter struct {
	logger *slog.Logger
	limit  time.Duration // 0: one try
}

// until calls try until it succeeds, fails for another reason than that the
// service is away, or the limit is over.
func (w waiter) until(ctx context.Context, service string, try func(context.Context) error) error {
	deadline := time.Now().Add(w.limit)
	said := time.Time{}
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !isAway(err) {
			return err
		}
		if time.Now().After(deadline) {
			if w.limit > 0 {
				err = fmt.Errorf("waited %s (--wait): %w", w.limit, err)
			}
			return exitWith(exitUnavailable, err)
		}
		if time.Since(said) >= waitLog {
			said = time.Now()
			w.logger.InfoContext(ctx, "waiting for a service to come up", slog.String("service", service),
				slog.Duration("left", time.Until(deadline).Round(time.Second)), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitPause):
		}
	}
}

// isAway reports whether waiting can help. A ledger that is not initialized
// may be about to be.
func isAway(err error) bool {
	return errors.Is(err, eventlog.ErrUnreachable) || errors.Is(err, eventlog.ErrNotInitialized) || errors.Is(err, readmodel.ErrUnreachable)
}
