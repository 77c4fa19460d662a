package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// maxSleep is the longest a task may take at all.
	maxSleep = 24 * time.Hour
	// progressSteps is how often a sleep reports its progress, at most once a
	// second.
	progressSteps = 20
)

// SleepConfig says how long a type's tasks sleep.
type SleepConfig struct {
	// Duration is used by tasks whose args do not say how long: 0 to 24 h, and
	// 0 means that they must.
	Duration time.Duration
	// Audience of its failures; empty means operator.
	Audience ledger.Audience
}

// sleepArgs are a task's args: one of the two, or neither.
type sleepArgs struct {
	Seconds *float64   `json:"seconds"`
	Until   *time.Time `json:"until"`
}

// Sleep returns a handler that waits: for as long as the args say with
// {"seconds": 90}, until a time with {"until": "2030-01-01T00:00:00Z"}, else for
// cfg.Duration. Its result is that of the task before, unchanged. A sleep that
// would go beyond the task's timeout fails at once, for good.
//
// A sleeping task holds a slot of its executor, and one that starts anew after
// its executor was lost sleeps its seconds anew.
//
// The error says what is wrong with the configuration.
func Sleep(cfg SleepConfig) (executor.RawHandler, error) {
	if cfg.Duration < 0 || cfg.Duration > maxSleep {
		return nil, fmt.Errorf("duration is %s, want 0s to %s", cfg.Duration, maxSleep)
	}
	return func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
		now := time.Now()
		wake, err := cfg.wake(t.Args, now)
		if err == nil && !t.Deadline.IsZero() && wake.After(t.Deadline) {
			err = fmt.Errorf("the task would sleep until %s, beyond its timeout", wake.UTC().Format(time.RFC3339))
		}
		if err != nil {
			return nil, &executor.Error{Code: executor.CodeInvalidArgs, Message: err.Error(), Audience: cfg.Audience, Err: err}
		}
		if err := sleepUntil(ctx, now, wake, t.Output); err != nil {
			return nil, err
		}
		return t.Previous, nil
	}, nil
}

// wake reads the args.
func (c SleepConfig) wake(raw json.RawMessage, now time.Time) (time.Time, error) {
	var args sleepArgs
	if len(raw) > 0 {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&args); err != nil {
			return time.Time{}, fmt.Errorf("the args are not those of a sleep: %w", err)
		}
	}
	switch {
	case args.Seconds != nil && args.Until != nil:
		return time.Time{}, errors.New("seconds and until cannot both be given")
	case args.Until != nil:
		return *args.Until, nil
	case args.Seconds == nil && c.Duration == 0:
		return time.Time{}, errors.New("seconds or until is missing, and the type has no duration")
	case args.Seconds == nil:
		return now.Add(c.Duration), nil
	case *args.Seconds < 0 || *args.Seconds > maxSleep.Seconds():
		return time.Time{}, fmt.Errorf("seconds is %v, want 0 to %v", *args.Seconds, maxSleep.Seconds())
	}
	return now.Add(time.Duration(*args.Seconds * float64(time.Second))), nil
}

// sleepUntil returns early with the context's cause.
func sleepUntil(ctx context.Context, from, wake time.Time, out output) error {
	whole := time.Until(wake)
	if whole <= 0 {
		return nil
	}
	timer := time.NewTimer(whole)
	defer timer.Stop()
	tick := time.NewTicker(max(whole/progressSteps, time.Second))
	defer tick.Stop()
	text := "sleeps until " + wake.UTC().Format(time.RFC3339)
	out.Progress(0, text)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			out.Progress(100, text)
			return nil
		case now := <-tick.C:
			out.Progress(int(100*now.Sub(from)/wake.Sub(from)), text)
		}
	}
}
