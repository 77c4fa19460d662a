package executor

import (
	"context"
	"log/slog"

	"github.com/keten-ledger/keten/ledger"
)

// attemptLog is the handler of an attempt's logger. It adds the attempt's ids when
// something is logged, and not before: most attempts log nothing, and encoding
// the ids for each was seen in the profile of an executor under load.
type attemptLog struct {
	base    slog.Handler
	attempt *ledger.Attempt
}

// Enabled implements [slog.Handler].
func (l attemptLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.base.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (l attemptLog) Handle(ctx context.Context, r slog.Record) error {
	return l.handler().Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (l attemptLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup implements [slog.Handler].
func (l attemptLog) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }

func (l attemptLog) handler() slog.Handler { return l.base.WithAttrs(attemptAttrs(l.attempt)) }
