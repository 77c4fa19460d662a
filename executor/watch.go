package executor

import (
	"context"
	"errors"
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
	watchTick = 500 * time.Millisecond
	// memberCheck is how often a process looks whether it is in its group.
	memberCheck = 5 * time.Second
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
		sets := x.setsOfInterest()
		if since := now.Sub(members); since >= watchTick/2 && len(sets) > 0 || since >= memberCheck {
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
	ends, err := x.log.SomeEnds(asking)
	if ctx.Err() != nil {
		return
	}
	if x.brokersAnswered(at, len(ends) > 0, err) {
		if err != nil {
			x.logger.WarnContext(ctx, "log ends cannot be read; without them no task is started", slog.Any("error", err))
		} else {
			x.logger.InfoContext(ctx, "log ends can be read again")
		}
	}
	for i, o := range owners {
		end, ok := ends[o.partition]
		switch {
		case !ok:
		case end < known[i]:
			x.doubt(ctx, o, end)
		default:
			o.mail.put(func(time.Time) {
				o.doubts = 0
				o.fresh.ended(logEnd{offset: end, at: at}, o.fold.Position())
			})
		}
	}
}

// mostDoubts is how often in a row a log end may lie before what was read, before
// that is looked into: a broker that does not know yet that it no longer is the
// leader may say so once.
const mostDoubts = 3

// doubt looks into a log that seems to end before what was read of it. The reader
// of a partition notices a lost tail, too. But the partition may be with another
// process, which has not seen what was lost.
func (x *Executor) doubt(ctx context.Context, o *owner, end int64) {
	o.mail.put(func(time.Time) {
		if o.doubts++; o.doubts < mostDoubts || o.doubting {
			return
		}
		o.doubting = true
		start := *o.resume.Load()
		x.loops.Go(func() {
			asking, stop := context.WithTimeout(ctx, x.lease/2)
			defer stop()
			err := x.log.Verify(asking, o.partition, start)
			o.mail.put(func(time.Time) {
				o.doubting, o.doubts = false, 0
				if errors.Is(err, eventlog.ErrDataLoss) {
					o.stop(ctx, fmt.Errorf("%w (seen at offset %d)", err, end))
				}
			})
		})
	})
}

// brokersAnswered notes the outcome of asking and reports whether it differs
// from the one before. some reports that at least one partition's end was told.
func (x *Executor) brokersAnswered(at time.Time, some bool, err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	changed := (x.away == nil) != (err == nil)
	x.away = err
	if err == nil {
		x.answeredAt = at
	}
	x.allAway = !some
	return changed
}

func (x *Executor) brokersAway() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.allAway
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
	if ctx.Err() != nil {
		return
	}
	x.membersAnswered(ctx, err)
	own, told := members[groups[0]]
	if !told || !x.memberSeen(own[x.worker], at) {
		// Between two generations of the group, or the Kafka client does not
		// carry the worker's name: then nobody's absence means anything.
		return
	}
	m := make(memberships, len(sets))
	for _, set := range sets {
		if workers, ok := members[x.groupOf(set)]; ok {
			m[set] = membership{workers: workers, at: at}
		}
	}
	for _, o := range x.allOwners() {
		if len(o.interest.sets()) > 0 {
			o.mail.put(func(now time.Time) { o.membersRead(ctx, m, now) })
		}
	}
}

// memberSeen notes whether this process is in its group.
func (x *Executor) memberSeen(member bool, at time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case member:
		x.outsideSince = time.Time{}
	case x.outsideSince.IsZero():
		x.outsideSince = at
	}
	return member
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
