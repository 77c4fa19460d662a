package executor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
)

const (
	// watchTick is how often the members of the group are asked, when an owner
	// waits for a lost worker.
	watchTick = time.Second
	// endsPerLease is how often per lease the log ends are asked: knowledge of
	// the log is to be renewed well before it is too old to act on.
	endsPerLease = 5
)

// watch asks the brokers, for all owners: for the log ends, which tell how
// recent the owners' knowledge is, and for the members of the group.
func (x *Executor) watch(ctx context.Context) {
	tick := time.NewTicker(min(watchTick, x.lease/endsPerLease))
	defer tick.Stop()
	var asked, members time.Time
	for {
		kicked := false
		select {
		case <-ctx.Done():
			return
		case <-x.kick:
			kicked = true
		case <-tick.C:
		}
		now := time.Now()
		if x.outbox != nil {
			records, _ := x.outbox.Size()
			x.metrics.outbox.Set(float64(records))
		}
		if kicked || now.Sub(asked) >= x.lease/endsPerLease {
			asked = now
			x.askEnds(ctx)
		}
		if sets := x.setsOfInterest(); now.Sub(members) >= watchTick && len(sets) > 0 {
			members = now
			x.askMembers(ctx, sets)
		}
	}
}

// askEnds tells every owner where its partition ends now.
func (x *Executor) askEnds(ctx context.Context) {
	at := time.Now()
	owners := x.allOwners()
	known := make([]int64, len(owners))
	for i, o := range owners {
		known[i] = o.resume.Load().Offset
	}
	asking, stop := context.WithTimeout(ctx, x.lease/2)
	defer stop()
	ends, err := x.log.Ends(asking)
	if ctx.Err() != nil {
		return
	}
	if x.brokersAnswered(at, err) {
		if err != nil {
			x.logger.WarnContext(ctx, "log ends cannot be read; without them no task is started", slog.Any("error", err))
		} else {
			x.logger.InfoContext(ctx, "log ends can be read again")
		}
	}
	if err != nil {
		return
	}
	for i, o := range owners {
		end, ok := ends[o.partition]
		if !ok {
			continue
		}
		// The reader of a partition notices a lost tail, too. But the partition may
		// be with another process, which has not seen what was lost.
		if end < known[i] {
			err := fmt.Errorf("%w: partition %d was read to offset %d, but the log ends at offset %d", eventlog.ErrDataLoss, o.partition, known[i], end)
			o.mail.put(func(time.Time) { o.stop(ctx, err) })
			continue
		}
		o.mail.put(func(time.Time) { o.fresh.ended(logEnd{offset: end, at: at}, o.fold.Position()) })
	}
}

// brokersAnswered notes the outcome of asking and reports whether it differs
// from the one before.
func (x *Executor) brokersAnswered(at time.Time, err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	changed := (x.away == nil) != (err == nil)
	x.away = err
	if err == nil {
		x.answeredAt = at
	}
	return changed
}

func (x *Executor) brokersAway() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.away != nil
}

// setsOfInterest returns the sets of queues whose members some owner wants to
// know, and this one's.
func (x *Executor) setsOfInterest() []string {
	var sets []string
	for _, o := range x.allOwners() {
		sets = append(sets, o.interest.sets()...)
	}
	if len(sets) == 0 {
		return nil
	}
	slices.Sort(sets)
	return slices.Compact(sets)
}

func (x *Executor) groupOf(set string) string { return x.log.Info().Prefix + ".executor." + set }

// askMembers tells the owners that want to know who is in the groups of sets.
func (x *Executor) askMembers(ctx context.Context, sets []string) {
	at := time.Now()
	asking, stop := context.WithTimeout(ctx, x.lease/2)
	defer stop()
	groups := []string{x.groupOf(x.set)}
	for _, set := range sets {
		if set != x.set {
			groups = append(groups, x.groupOf(set))
		}
	}
	members, err := x.log.Members(asking, groups...)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		x.membersAnswered(ctx, err)
		return
	case !members[groups[0]][x.worker]:
		// Between two generations of the group, or the Kafka client does not
		// carry the worker's name: then nobody's absence means anything.
		return
	}
	x.membersAnswered(ctx, nil)
	m := make(memberships, len(sets))
	for _, set := range sets {
		m[set] = membership{workers: members[x.groupOf(set)], at: at}
	}
	for _, o := range x.allOwners() {
		if len(o.interest.sets()) > 0 {
			o.mail.put(func(now time.Time) { o.membersRead(ctx, m, now) })
		}
	}
}

// membersAnswered logs when the members of groups cannot be read any more.
func (x *Executor) membersAnswered(ctx context.Context, err error) {
	x.mu.Lock()
	changed := (x.membersError == nil) != (err == nil)
	x.membersError = err
	x.mu.Unlock()
	if changed && err != nil {
		x.logger.WarnContext(ctx, "members of the consumer groups cannot be read; lost workers are waited for longer", slog.Any("error", err))
	}
}

// tally counts what a shutdown waits for.
type tally struct {
	mu       sync.Mutex
	handlers int // that run
	outcomes int // sent and not read back
	changed  chan struct{}
}

func newTally() *tally { return &tally{changed: make(chan struct{}, 1)} }

func (t *tally) running(change int) { t.count(&t.handlers, change) }
func (t *tally) unread(change int)  { t.count(&t.outcomes, change) }

func (t *tally) count(n *int, change int) {
	t.mu.Lock()
	*n += change
	t.mu.Unlock()
	if change < 0 {
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
}

func (t *tally) now() (handlers, outcomes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handlers, t.outcomes
}

// wait blocks until done likes the counts, at most for d.
func (t *tally) wait(d time.Duration, done func(handlers, outcomes int) bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !done(t.now()) {
		select {
		case <-t.changed:
		case <-timer.C:
			return
		}
	}
}
