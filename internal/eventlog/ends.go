package eventlog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// endFresh is how old a log end may be that End returns: far less than it takes
// to append a window of records, far more than asking costs.
const endFresh = time.Second

// ends remembers the log ends that were learnt on the way.
type ends struct {
	asking chan struct{} // holds a token while one caller asks the brokers

	mu sync.Mutex
	at map[int32]learntEnd
}

type learntEnd struct {
	offset int64
	at     time.Time
}

func newEnds() *ends {
	return &ends{asking: make(chan struct{}, 1), at: make(map[int32]learntEnd)}
}

// learn notes a log end. Ends do not move back, but news may arrive late.
func (e *ends) learn(partition int32, offset int64, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.at[partition]; known.offset <= offset {
		e.at[partition] = learntEnd{offset, at}
	}
}

func (e *ends) fresh(partition int32) (int64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known, ok := e.at[partition]
	return known.offset, ok && time.Since(known.at) <= endFresh
}

// End returns the next offset of a partition as it was learnt at most about a
// second ago, from an acknowledged append or from the brokers.
func (l *Log) End(ctx context.Context, partition int32) (int64, error) {
	if partition < 0 || partition >= l.info.Partitions {
		return 0, fmt.Errorf("ask for the end of partition %d: the ledger has %d partitions", partition, l.info.Partitions)
	}
	if end, ok := l.ends.fresh(partition); ok {
		return end, nil
	}
	// One caller asks for all partitions, the others wait for its answer.
	select {
	case l.ends.asking <- struct{}{}:
		defer func() { <-l.ends.asking }()
	case <-ctx.Done():
		return 0, fmt.Errorf("ask for the end of partition %d: %w", partition, context.Cause(ctx))
	}
	if end, ok := l.ends.fresh(partition); ok {
		return end, nil
	}
	all, err := l.Ends(ctx)
	return all[partition], err
}

// Ends asks the brokers for the next offset of every partition.
func (l *Log) Ends(ctx context.Context) (map[int32]int64, error) {
	began := time.Now() // an answer is as old as its question
	all, err := l.listOffsets(ctx, l.admin.ListEndOffsets)
	if err != nil {
		return nil, fmt.Errorf("ask for log ends: %w", err)
	}
	for partition, offset := range all {
		l.ends.learn(partition, offset, began)
	}
	return all, nil
}

// listOffsets is listOffsetsOf for the ledger's topic.
func (l *Log) listOffsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	return l.listOffsetsOf(ctx, l.topic, list)
}

// listOffsetsOf asks for one kind of offset of all partitions of a topic, again
// as long as brokers are electing leaders.
func (l *Log) listOffsetsOf(ctx context.Context, topic string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	var offsets map[int32]int64
	err := l.retry(ctx, func() error {
		listed, err := list(ctx, topic)
		if err != nil {
			return err
		}
		offsets = make(map[int32]int64, l.info.Partitions)
		for partition := range l.info.Partitions {
			o, ok := listed.Lookup(topic, partition)
			switch {
			case !ok:
				return fmt.Errorf("partition %d: %w", partition, errNoAnswer)
			case o.Err != nil:
				return fmt.Errorf("partition %d: %w", partition, o.Err)
			}
			offsets[partition] = o.Offset
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return offsets, nil
}
