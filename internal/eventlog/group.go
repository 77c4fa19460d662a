package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// sessionTimeout is how long a member may be silent before its partitions
	// go to others: the least that brokers allow by default.
	sessionTimeout = 6 * time.Second
	// heartbeatInterval is how late a member learns of a rebalance.
	heartbeatInterval = 500 * time.Millisecond
)

// GroupConfig says how a Reader shares the partitions with others.
type GroupConfig struct {
	// Group is the name of the consumer group. Required.
	Group string
	// From says where to read a partition from that was assigned. It is called
	// after Assigned, from other goroutines, for all that came at once side by
	// side; nothing of them is read before the last one has returned. It may
	// wait for the brokers until ctx ends, which is when the assignment does.
	// [ErrDataLoss] and [ErrCorrupt] are handed out by Poll and end the
	// partition; after other errors it is called again. Required.
	From func(ctx context.Context, partition int32) (Start, error)
	// Assigned and Revoked tell which partitions came and which went; Revoked
	// also when they were lost because this member seemed dead. They are called
	// from another goroutine, one at a time, only while Poll or Close runs, and
	// must return at once. Either may be nil.
	Assigned, Revoked func(partitions []int32)
}

// NewGroupReader returns a reader that shares the partitions with the other
// members of a consumer group, cooperatively: what does not move is read on.
// The assignment only suggests owners, and committed offsets play no part.
func (l *Log) NewGroupReader(cfg GroupConfig) (*Reader, error) {
	if cfg.Group == "" || cfg.From == nil {
		return nil, errors.New("read ledger in a group: group and from are required")
	}
	r := l.emptyReader()
	err := r.connect(
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(l.topic),
		kgo.Balancers(retiring{kgo.CooperativeStickyBalancer(), &r.retired}),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.DisableAutoCommit(),
		// Without it a partition could be revoked, assigned again and begun
		// anew while records of before are on their way to their owner, who
		// would take them for the beginning.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			r.assigned(assigned[l.topic], cfg.Assigned)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			r.revoked(revoked[l.topic], cfg.Revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			r.revoked(lost[l.topic], cfg.Revoked)
		}),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			chosen, err := r.choose(ctx, offsets[l.topic], cfg.From)
			return map[string]map[int32]kgo.Offset{l.topic: chosen}, err
		}),
	)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// retiring is a balancer for a member that wants no partitions any more but to
// be seen in the group.
type retiring struct {
	kgo.GroupBalancer

	retired *atomic.Bool
}

// JoinGroupMetadata implements [kgo.GroupBalancer].
func (b retiring) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	if b.retired.Load() {
		topics = nil
	}
	return b.GroupBalancer.JoinGroupMetadata(topics, current, generation)
}

// Retire gives all partitions of a group's reader to the other members, who see
// this one among the [Log.Members] until it is closed. Revoked tells when a
// partition is gone; without other members nobody takes it. Poll must go on.
func (r *Reader) Retire() {
	r.retired.Store(true)
	r.client.ForceRebalance()
}

func (r *Reader) assigned(partitions []int32, tell func([]int32)) {
	partitions = r.log.known(partitions)
	if len(partitions) > 0 && tell != nil {
		tell(partitions)
	}
}

func (r *Reader) revoked(partitions []int32, tell func([]int32)) {
	r.mu.Lock()
	for _, p := range partitions {
		delete(r.next, p)
	}
	r.pending = slices.DeleteFunc(r.pending, func(f Fetched) bool { return slices.Contains(partitions, f.Partition) })
	r.mu.Unlock()
	partitions = r.log.known(partitions)
	if len(partitions) > 0 && tell != nil {
		tell(partitions)
	}
}

// known returns those of the partitions that the ledger has, in order. Somebody
// may have added partitions to the topic; the owners of the ledger's own are
// not told of them.
func (l *Log) known(partitions []int32) []int32 {
	partitions = slices.DeleteFunc(partitions, func(p int32) bool { return p >= l.info.Partitions })
	slices.Sort(partitions)
	return partitions
}

// choose decides where newly assigned partitions are read from. Those left out
// are not fetched.
func (r *Reader) choose(ctx context.Context, offsets map[int32]kgo.Offset, from func(context.Context, int32) (Start, error)) (map[int32]kgo.Offset, error) {
	starts, bad, err := r.starting(ctx, offsets, from)
	if err != nil || len(starts)+len(bad) == 0 {
		return nil, err
	}
	if len(starts) > 0 {
		cut, err := r.log.verify(ctx, starts)
		if err != nil {
			return nil, err
		}
		maps.Copy(bad, cut)
	}
	chosen := make(map[int32]kgo.Offset, len(starts))
	r.mu.Lock()
	defer r.mu.Unlock()
	for partition := range offsets {
		// What this reader gave up stays so: another start does not mend the log.
		err := r.over[partition]
		if err == nil {
			err = bad[partition]
		}
		if err != nil {
			r.giveUp(partition, err)
			continue
		}
		if start, ok := starts[partition]; ok {
			chosen[partition] = start.offset()
			r.next[partition] = start.Offset
		}
	}
	return chosen, nil
}

// starting asks for the starts of partitions. bad are those that are damaged.
func (r *Reader) starting(ctx context.Context, offsets map[int32]kgo.Offset, from func(context.Context, int32) (Start, error)) (starts map[int32]Start, bad map[int32]error, err error) {
	starts, bad = make(map[int32]Start, len(offsets)), make(map[int32]error)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for partition := range offsets {
		if partition >= r.log.info.Partitions {
			r.log.cfg.Logger.ErrorContext(ctx, "topic has more partitions than the ledger",
				slog.Int64("partition", int64(partition)), slog.Int64("partitions", int64(r.log.info.Partitions)))
			continue
		}
		asking.Go(func() {
			start, fromErr := from(ctx, partition)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case fromErr == nil:
				starts[partition] = start
			case errors.Is(fromErr, ErrDataLoss), errors.Is(fromErr, ErrCorrupt):
				bad[partition] = fromErr
			default:
				err = fromErr
			}
		})
	}
	asking.Wait()
	return starts, bad, err
}

// Members returns the client ids of the live members of consumer groups. A
// member that died is among them until its session has expired; a group that is
// not there has none. The error says which groups are left out, and why.
func (l *Log) Members(ctx context.Context, groups ...string) (map[string]map[string]bool, error) {
	described, err := l.admin.DescribeGroups(ctx, groups...)
	if err != nil && len(described) == 0 {
		return nil, fmt.Errorf("list members of groups: %w", err)
	}
	var errs []error
	all := make(map[string]map[string]bool, len(groups))
	for _, name := range groups {
		group, ok := described[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("list members of group %s: %w", name, errNoAnswer))
			continue
		case group.Err != nil && !errors.Is(group.Err, kerr.GroupIDNotFound):
			errs = append(errs, fmt.Errorf("list members of group %s: %w", name, group.Err))
			continue
		}
		members := make(map[string]bool, len(group.Members))
		for _, m := range group.Members {
			members[m.ClientID] = true
		}
		all[name] = members
	}
	return all, errors.Join(errs...)
}
