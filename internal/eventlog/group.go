package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	// after Assigned, from another goroutine, and must return at once.
	// Required.
	From func(partition int32) Start
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
	r.group = cfg.Group
	err := r.connect(
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(l.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
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
func (r *Reader) choose(ctx context.Context, offsets map[int32]kgo.Offset, from func(int32) Start) (map[int32]kgo.Offset, error) {
	starts := make(map[int32]Start, len(offsets))
	for partition := range offsets {
		if partition >= r.log.info.Partitions {
			r.log.cfg.Logger.ErrorContext(ctx, "topic has more partitions than the ledger",
				slog.Int64("partition", int64(partition)), slog.Int64("partitions", int64(r.log.info.Partitions)))
			continue
		}
		starts[partition] = from(partition)
	}
	if len(starts) == 0 {
		return nil, nil
	}
	bad, err := r.log.verify(ctx, starts)
	if err != nil {
		return nil, err
	}
	chosen := make(map[int32]kgo.Offset, len(starts))
	r.mu.Lock()
	defer r.mu.Unlock()
	for partition, start := range starts {
		// What this reader gave up stays so: another start does not mend the log.
		err := r.over[partition]
		if err == nil {
			err = bad[partition]
		}
		if err != nil {
			r.giveUp(partition, err)
			continue
		}
		chosen[partition] = start.offset()
		r.next[partition] = start.Offset
	}
	return chosen, nil
}

// Members returns the client ids of the group's live members. A member that
// died is among them until its session has expired.
func (r *Reader) Members(ctx context.Context) (map[string]bool, error) {
	if r.group == "" {
		return nil, errors.New("list members: the reader is not in a group")
	}
	groups, err := r.log.admin.DescribeGroups(ctx, r.group)
	if err != nil {
		return nil, fmt.Errorf("list members of group %s: %w", r.group, err)
	}
	described, ok := groups[r.group]
	switch {
	case !ok:
		return nil, fmt.Errorf("list members of group %s: %w", r.group, errNoAnswer)
	case errors.Is(described.Err, kerr.GroupIDNotFound):
		return map[string]bool{}, nil
	case described.Err != nil:
		return nil, fmt.Errorf("list members of group %s: %w", r.group, described.Err)
	}
	members := make(map[string]bool, len(described.Members))
	for _, m := range described.Members {
		members[m.ClientID] = true
	}
	return members, nil
}
