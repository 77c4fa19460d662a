package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	all, err := l.Ends(ctx, partition)
	return all[partition], err
}

// Ends asks the brokers for the next offset of every partition, or of those that
// are named, again as long as one of them is without a leader.
func (l *Log) Ends(ctx context.Context, partitions ...int32) (map[int32]int64, error) {
	if len(partitions) == 0 {
		partitions = allPartitions(l.info.Partitions)
	}
	began := time.Now() // an answer is as old as its question
	all, err := l.listOffsets(ctx, l.admin.ListEndOffsets, partitions)
	if err != nil {
		return nil, fmt.Errorf("ask for log ends: %w", err)
	}
	l.ends.learnAll(all, began)
	return all, nil
}

// SomeEnds asks once for the next offset of every partition and returns those
// that were told. The error says why others were not.
func (l *Log) SomeEnds(ctx context.Context) (map[int32]int64, error) {
	began := time.Now()
	told, missing, err := l.listOnce(ctx, l.topic, l.admin.ListEndOffsets)
	if err == nil {
		err = errors.Join(slices.Collect(maps.Values(missing))...)
	}
	if err != nil {
		err = fmt.Errorf("ask for log ends: %w", err)
	}
	l.ends.learnAll(told, began)
	return told, err
}

func (e *ends) learnAll(all map[int32]int64, at time.Time) {
	for partition, offset := range all {
		e.learn(partition, offset, at)
	}
}

// listOffsets is listOffsetsOf for the ledger's topic.
func (l *Log) listOffsets(ctx context.Context, list listing, partitions []int32) (map[int32]int64, error) {
	return l.listOffsetsOf(ctx, l.topic, list, partitions)
}

type listing func(context.Context, ...string) (kadm.ListedOffsets, error)

// listOffsetsOf asks for one kind of offset of partitions of a topic, again as
// long as brokers are electing their leaders.
func (l *Log) listOffsetsOf(ctx context.Context, topic string, list listing, partitions []int32) (map[int32]int64, error) {
	var offsets map[int32]int64
	err := l.retry(ctx, func() error {
		told, missing, err := l.listOnce(ctx, topic, list)
		if err != nil {
			return err
		}
		for _, p := range partitions {
			if missing[p] != nil {
				return missing[p]
			}
		}
		offsets = told
		return nil
	})
	if err != nil {
		return nil, err
	}
	return offsets, nil
}

// listOnce asks once for one kind of offset of all partitions of a topic. missing
// says why some were not told.
func (l *Log) listOnce(ctx context.Context, topic string, list listing) (told map[int32]int64, missing map[int32]error, err error) {
	listed, err := list(ctx, topic)
	// One broker that is away leaves the answers of the others.
	if shards, ok := errors.AsType[*kadm.ShardErrors](err); err != nil && (!ok || shards.AllFailed) {
		return nil, nil, err
	}
	told, missing = make(map[int32]int64, l.info.Partitions), make(map[int32]error)
	for partition := range l.info.Partitions {
		o, ok := listed.Lookup(topic, partition)
		switch {
		case !ok:
			missing[partition] = fmt.Errorf("partition %d: %w", partition, errNoAnswer)
		case o.Err != nil:
			missing[partition] = fmt.Errorf("partition %d: %w", partition, o.Err)
		default:
			told[partition] = o.Offset
		}
	}
	return told, missing, nil
}
