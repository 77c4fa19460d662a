package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/ledger"
)

// Append sends a record and never blocks. done is called exactly once, from
// another goroutine, and must return at once: it holds up the callbacks of
// other appends. With a nil error the record is in the log at the offset. With
// [ErrOverloaded] it is not and will not be. Any other error wraps
// [ErrOutcomeUnknown]. Records of one partition land in the order of their
// Append calls, as long as none of them fails.
//
// The bytes of msg must not be changed until done is called.
func (l *Log) Append(msg ledger.Message, done func(offset int64, err error)) {
	r := &kgo.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value, Headers: make([]kgo.RecordHeader, len(msg.Headers))}
	for i, h := range msg.Headers {
		r.Headers[i] = kgo.RecordHeader(h)
	}
	began := time.Now()
	l.client.TryProduce(l.client.Context(), r, func(r *kgo.Record, err error) {
		if err != nil {
			done(-1, l.appendFailed(msg.Partition, err))
			return
		}
		now := time.Now()
		l.ends.learn(r.Partition, r.Offset+1, now)
		l.metrics.acknowledged.Inc()
		l.metrics.duration.Observe(now.Sub(began).Seconds())
		done(r.Offset, nil)
	})
}

func (l *Log) appendFailed(partition int32, err error) error {
	if errors.Is(err, kgo.ErrMaxBuffered) {
		l.metrics.overloaded.Inc()
		return fmt.Errorf("append to partition %d: %w", partition, ErrOverloaded)
	}
	l.metrics.unknown.Inc()
	return fmt.Errorf("append to partition %d: %w: %w", partition, ErrOutcomeUnknown, err)
}

// AppendWait sends a record and waits until it is acknowledged; offset is where
// it landed. When ctx ends first the error is [ErrOutcomeUnknown] with the
// cause: the record is still on its way and may land. Other errors are those of
// [Log.Append].
func (l *Log) AppendWait(ctx context.Context, msg ledger.Message) (offset int64, err error) {
	type result struct {
		offset int64
		err    error
	}
	results := make(chan result, 1)
	l.Append(msg, func(offset int64, err error) { results <- result{offset, err} }) //nolint:contextcheck // a record under way cannot be called back
	select {
	case r := <-results:
		return r.offset, r.err
	case <-ctx.Done():
		return -1, fmt.Errorf("append to partition %d: %w: %w", msg.Partition, ErrOutcomeUnknown, context.Cause(ctx))
	}
}
