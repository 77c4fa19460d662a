package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// faultLogAfter is how long a partition may be unreadable before it is
	// logged: a change of leader heals sooner.
	faultLogAfter = time.Second
	// faultPatience is how long a topic may seem to be gone, or a broker may
	// call its own log corrupt, before that is believed. Brokers that start say
	// such things of partitions they have not loaded.
	faultPatience = 15 * time.Second
	// corruptTries is how often a batch is fetched again that cannot be decoded
	// here: the network may have damaged it.
	corruptTries = 3
	// sessionLogEvery bounds how often a group's trouble is logged.
	sessionLogEvery = 30 * time.Second
)

// fault is what keeps one partition from being read.
type fault struct {
	since  time.Time
	tries  int
	logged bool
}

// fault notes an error of a partition that may pass, and ends the partition
// when it will not.
func (r *Reader) fault(ctx context.Context, partition int32, err error) {
	f := r.faults[partition]
	if f == nil {
		f = &fault{since: time.Now()}
		r.faults[partition] = f
	}
	f.tries++
	lasted := time.Since(f.since)
	switch {
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		if r.log.recreated(ctx) || lasted >= faultPatience {
			r.stopAt(partition, fmt.Errorf("%w: the topic was deleted: %w", ErrDataLoss, err))
			return
		}
	case errors.Is(err, kerr.UnknownTopicOrPartition) && lasted >= faultPatience:
		r.stopAt(partition, fmt.Errorf("%w: the topic was deleted: %w", ErrDataLoss, err))
		return
	case errors.Is(err, kerr.CorruptMessage) && lasted >= faultPatience,
		isUndecodable(err) && f.tries >= corruptTries:
		r.stopAt(partition, fmt.Errorf("%w: %w", ErrCorrupt, err))
		return
	}
	if !f.logged && lasted >= faultLogAfter {
		f.logged = true
		r.log.cfg.Logger.WarnContext(ctx, "partition cannot be read at the moment",
			slog.Int64("partition", int64(partition)), slog.Any("error", err))
	}
}

// healed forgets what kept a partition from being read.
func (r *Reader) healed(ctx context.Context, partition int32) {
	f := r.faults[partition]
	if f == nil {
		return
	}
	delete(r.faults, partition)
	if f.logged {
		r.log.cfg.Logger.InfoContext(ctx, "partition is read again", slog.Int64("partition", int64(partition)))
	}
}

// isUndecodable reports whether err is about the bytes of a batch. The library
// gives those errors no type; all others have one.
func isUndecodable(err error) bool {
	var (
		tooLarge *kgo.ErrDecompressTooLarge
		answer   *kerr.Error
		session  *kgo.ErrGroupSession
		shards   *kadm.ShardErrors
	)
	if errors.As(err, &tooLarge) {
		return true
	}
	return !errors.As(err, &answer) && !errors.As(err, &session) && !errors.As(err, &shards) &&
		!isNetwork(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// sessionFault logs an error that is not about a partition: the group cannot be
// joined or a broker not be asked. It reports whether there was one.
func (r *Reader) sessionFault(ctx context.Context, err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false // Poll was woken
	}
	if now := time.Now(); now.After(r.quiet) {
		r.quiet = now.Add(sessionLogEvery)
		r.log.cfg.Logger.WarnContext(ctx, "ledger cannot be read at the moment", slog.Any("error", err))
	}
	return true
}

// recreated asks the brokers whether the topic is another one by now.
func (l *Log) recreated(ctx context.Context) bool {
	t, err := l.describe(ctx, l.topic)
	return err == nil && t.id != l.topicID && t.id != uuid.Nil
}

// Verify checks that the log still holds what was read of a partition before a
// start. [ErrDataLoss] says that it does not; other errors, that the brokers
// cannot be asked.
func (l *Log) Verify(ctx context.Context, partition int32, start Start) error {
	bad, err := l.verify(ctx, map[int32]Start{partition: start})
	if err != nil {
		return err
	}
	return bad[partition]
}

// verify checks that the log still holds what was read of it before each start.
// bad has an ErrDataLoss for each start that does not fit. The library checks
// this too, except where it would choose another offset in silence: when a
// broker does not know the epoch at all, and before it knows the partition.
func (l *Log) verify(ctx context.Context, starts map[int32]Start) (bad map[int32]error, err error) {
	// Of these partitions only: one without a leader is not to hold up others.
	partitions := slices.Collect(maps.Keys(starts))
	if len(partitions) == 0 {
		return nil, nil
	}
	first, err := l.listOffsets(ctx, l.admin.ListStartOffsets, partitions)
	if err != nil {
		return nil, fmt.Errorf("ask for log starts: %w", err)
	}
	ends, err := l.Ends(ctx, partitions...)
	if err != nil {
		return nil, err
	}
	epochs, err := l.epochEnds(ctx, starts)
	if err != nil {
		return nil, fmt.Errorf("ask for leader epochs: %w", err)
	}
	bad = make(map[int32]error)
	for partition, start := range starts {
		why := ""
		epochEnd, asked := epochs[partition]
		switch {
		case start.Offset < first[partition]:
			why = fmt.Sprintf("the log begins at offset %d", first[partition])
		case start.Offset > ends[partition]:
			why = fmt.Sprintf("the log ends at offset %d", ends[partition])
		case asked && epochEnd < 0:
			why = fmt.Sprintf("leader epoch %d is unknown", start.LeaderEpoch)
		case asked && epochEnd < start.Offset:
			why = fmt.Sprintf("leader epoch %d ended at offset %d", start.LeaderEpoch, epochEnd)
		}
		if why != "" {
			bad[partition] = fmt.Errorf("%w: partition %d was read to offset %d, but %s", ErrDataLoss, partition, start.Offset, why)
		}
	}
	return bad, nil
}

// epochEnds asks where the leader epochs of starts ended; -1: unknown. Starts
// without an epoch, and those with nothing before them, are left out.
func (l *Log) epochEnds(ctx context.Context, starts map[int32]Start) (map[int32]int64, error) {
	var req kadm.OffsetForLeaderEpochRequest
	for partition, start := range starts {
		if start.LeaderEpoch >= 0 && start.Offset > 0 {
			req.Add(l.topic, partition, start.LeaderEpoch)
		}
	}
	if len(req) == 0 {
		return nil, nil
	}
	var ends map[int32]int64
	err := l.retry(ctx, func() error {
		answers, err := l.admin.OffsetForLeaderEpoch(ctx, req)
		if err != nil {
			return err
		}
		ends = make(map[int32]int64)
		for partition := range req[l.topic] {
			answer, ok := answers[l.topic][partition]
			switch {
			case !ok:
				return fmt.Errorf("partition %d: %w", partition, errNoAnswer)
			case answer.Err != nil:
				return fmt.Errorf("partition %d: %w", partition, answer.Err)
			}
			ends[partition] = answer.EndOffset
		}
		return nil
	})
	return ends, err
}
