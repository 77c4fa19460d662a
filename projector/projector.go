package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
)

const (
	// DefaultMaxBatch bounds what one transaction writes: how long it holds
	// its locks and how much is written again after a conflict.
	DefaultMaxBatch = 10_000
	// DefaultTakeover is how long a projector that stands by sees no progress
	// before it writes itself.
	DefaultTakeover = time.Second
	// DefaultRetentionEvery is how often old output of tasks is looked for.
	DefaultRetentionEvery = 10 * time.Minute

	// The pauses between attempts to reach PostgreSQL or the broker.
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// Config says what to project where.
type Config struct {
	Log        *eventlog.Log         // required
	Store      *readmodel.Store      // required, migrated
	Logger     *slog.Logger          // required
	Registerer prometheus.Registerer // nil: no metrics

	MaxBatch int           // records in one transaction, default DefaultMaxBatch
	Takeover time.Duration // default DefaultTakeover

	// RetentionEvery is how often old output of tasks is looked for, default
	// DefaultRetentionEvery.
	RetentionEvery time.Duration
}

// A Projector folds the ledger into a read model. Several may work on the same
// one: one writes, the others stand by.
type Projector struct {
	cfg     Config
	info    eventlog.Info
	metrics *metrics

	mu      sync.Mutex
	caught  bool             // everything that was there at the start is written
	trouble map[string]error // by what is being done: what keeps it from being done
	stopped map[int32]error  // partitions that are over for this process
}

// New checks the configuration. Nothing is read before [Projector.Run].
func New(cfg Config) (*Projector, error) {
	if cfg.Log == nil || cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("projector: Log, Store and Logger are required")
	}
	if cfg.MaxBatch <= 0 {
		cfg.MaxBatch = DefaultMaxBatch
	}
	if cfg.Takeover <= 0 {
		cfg.Takeover = DefaultTakeover
	}
	if cfg.RetentionEvery <= 0 {
		cfg.RetentionEvery = DefaultRetentionEvery
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the projector's metrics: %w", err)
	}
	return &Projector{
		cfg: cfg, info: cfg.Log.Info(), metrics: m, trouble: make(map[string]error), stopped: make(map[int32]error),
	}, nil
}

// Run projects until ctx is canceled, which is not an error. PostgreSQL or a
// broker that is away is waited for; a partition whose history is damaged, or
// that this build cannot judge, stops alone. The error wraps
// [readmodel.ErrOtherLedger] when the tables were made from another ledger.
func (p *Projector) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { (&output{Projector: p}).run(ctx) })
	defer beside.Wait()
	defer cancel()
	for ctx.Err() == nil {
		err := p.session(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errReload):
			p.cfg.Logger.InfoContext(ctx, "folding the ledger again", slog.Any("reason", err))
			_ = sleep(ctx, jitter(p.cfg.Takeover/4))
		case err != nil:
			return fmt.Errorf("project the ledger: %w", err)
		}
	}
	return nil
}

// Ready returns nil when everything up to the start has been written and
// nothing stands in the way of what comes, else the reason.
func (p *Projector) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, partition := range slices.Sorted(maps.Keys(p.stopped)) {
		errs = append(errs, p.stopped[partition])
	}
	for _, doing := range slices.Sorted(maps.Keys(p.trouble)) {
		errs = append(errs, fmt.Errorf("%s: %w", doing, p.trouble[doing]))
	}
	if !p.caught {
		errs = append(errs, errors.New("the projector has not caught up yet"))
	}
	return errors.Join(errs...)
}

func (p *Projector) setCaught() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caught = true
}

// setTrouble notes what keeps something from being done, nil for nothing, and
// logs when that changes, not on every attempt.
func (p *Projector) setTrouble(ctx context.Context, doing string, err error) {
	p.mu.Lock()
	before := p.trouble[doing]
	if err == nil {
		delete(p.trouble, doing)
	} else {
		p.trouble[doing] = err
	}
	p.mu.Unlock()
	switch {
	case err != nil && !sameTrouble(before, err):
		p.cfg.Logger.WarnContext(ctx, "the projection waits", slog.String("doing", doing), slog.Any("error", err))
	case err == nil && before != nil:
		p.cfg.Logger.InfoContext(ctx, "the projection goes on", slog.String("doing", doing))
	}
}

// sameTrouble reports whether err is no news after before. The words of a
// server's absence differ from one attempt to the next.
func sameTrouble(before, err error) bool {
	for _, away := range []error{readmodel.ErrUnreachable, eventlog.ErrUnreachable} {
		if errors.Is(before, away) && errors.Is(err, away) {
			return true
		}
	}
	return before != nil && before.Error() == err.Error()
}

// stop ends a partition for this process. The others go on.
func (p *Projector) stop(ctx context.Context, partition int32, err error) {
	err = fmt.Errorf("partition %d is not projected any more: %w", partition, err)
	p.mu.Lock()
	p.stopped[partition] = err
	n := len(p.stopped)
	p.mu.Unlock()
	p.metrics.stopped.Set(float64(n))
	p.cfg.Logger.ErrorContext(ctx, "partition stopped", slog.Int64("partition", int64(partition)), slog.Any("error", err))
}

func (p *Projector) isStopped(partition int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped[partition] != nil
}

// persist calls f until it succeeds, with a growing pause between the
// attempts. It gives up when ctx ends or when trying again is pointless.
func (p *Projector) persist(ctx context.Context, doing string, f func() error) error {
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		err := f()
		if err == nil {
			p.setTrouble(ctx, doing, nil)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, readmodel.ErrOtherLedger) || errors.Is(err, eventlog.ErrClosed) {
			return err
		}
		p.setTrouble(ctx, doing, err)
		if err := sleep(ctx, jitter(pause)); err != nil {
			return err
		}
	}
}

// jitter returns between d/2 and 3d/2, so that projectors that met once do not
// meet again.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
