package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// outboxBytes bounds the outbox. No task is started while the next outcome
	// may find no room in it.
	outboxBytes = 256 << 20
	// leftTick is how often the brokers are asked while what was left in outboxes
	// is being appended, and leftTicks how often they answer before the rest is
	// not waited for.
	leftTick  = time.Second
	leftTicks = 10
	// keepAfter is how long an outcome may go without acknowledgment before it is
	// put into the outbox. It is far longer than brokers take that are there:
	// then nothing touches the disk.
	keepAfter = 500 * time.Millisecond
	// mostOutboxes bounds the processes that share a folder for their outboxes.
	mostOutboxes = 64
)

// keeping is an owner's outcomes whose append has not been acknowledged, oldest
// first. Those that wait too long go to the outbox; while the brokers are away
// all others do so at once.
type keeping struct {
	unacked fifo[unacked]
	// stuck is the last outcome put into the outbox, as long as it is not
	// acknowledged: the brokers are away. Nil while they are there.
	stuck *sent
}

type unacked struct {
	s     *sent
	at    time.Time
	again bool // the outbox could not take it at that time
}

func (k *keeping) sent(s *sent, now time.Time) { k.unacked.push(unacked{s: s, at: now}) }

// nextTime returns when the oldest outcome has waited too long, zero for none.
func (k *keeping) nextTime() time.Time {
	if k.unacked.len() == 0 {
		return time.Time{}
	}
	return k.unacked.first().at.Add(keepAfter)
}

// keepOutcomes puts outcomes into the outbox that the brokers do not take.
func (o *owner) keepOutcomes(now time.Time) {
	k := &o.keeping
	if k.stuck != nil && o.isOver(k.stuck) {
		k.stuck = nil
	}
	for k.unacked.len() > 0 {
		u := k.unacked.first()
		over := o.isOver(u.s)
		if !over && (k.stuck == nil || u.again) && now.Sub(u.at) < keepAfter {
			return
		}
		k.unacked.pop()
		if !over && o.x.outbox != nil {
			k.stuck = u.s
			o.keep(u.s)
		}
	}
}

// isOver reports whether an outcome needs no outbox: it is in the log.
func (o *owner) isOver(s *sent) bool { return s.acked.Load() || o.sent[s.msg.EventID] != s }

// keep puts an outcome into the outbox, and tries again later when that cannot
// take it.
func (o *owner) keep(s *sent) {
	s.kept = true
	o.x.outbox.Put(s.msg, func(err error) {
		o.x.outboxAnswered(err)
		if err == nil {
			return
		}
		o.mail.put(func(now time.Time) {
			if o.sent[s.msg.EventID] == s {
				s.kept = false
				o.keeping.unacked.push(unacked{s: s, at: now, again: true})
			}
		})
	})
}

// DefaultOutboxDir is where the programs of this module keep outboxes unless they
// are told: outbox in the service's $STATE_DIRECTORY (systemd), else keten/outbox
// in $XDG_STATE_HOME or ~/.local/state. It is empty when there is none of these.
func DefaultOutboxDir() string {
	if dirs := os.Getenv("STATE_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":")
		return filepath.Join(first, "outbox")
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "keten", "outbox")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "keten", "outbox")
}

// MakeDefaultOutboxDir makes DefaultOutboxDir and returns it. Where it cannot be, for
// instance in a container without a home, it logs a warning and returns "": nobody
// asked for an outbox.
func MakeDefaultOutboxDir(ctx context.Context, logger *slog.Logger) string {
	dir := DefaultOutboxDir()
	err := errors.New("there is no home folder")
	if dir != "" {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		logger.WarnContext(ctx, "no folder for an outbox (--outbox-dir): outcomes are lost if this process ends while Kafka is away", slog.Any("error", err))
		return ""
	}
	return dir
}

// openOutboxes takes the first folder below dir that no other process holds, and
// those behind it that a process has left records in and nobody holds any more.
// Folders are per ledger: what is for another one stays where it is.
func openOutboxes(dir string, ledgerID uuid.UUID) (own *outbox.Outbox, abandoned []*outbox.Outbox, err error) {
	folder := func(n int) string { return filepath.Join(dir, ledgerID.String(), strconv.Itoa(n)) }
	n := 1
	for ; own == nil; n++ {
		if n > mostOutboxes {
			return nil, nil, fmt.Errorf("open the outbox: %d processes use %s: %w", mostOutboxes, dir, outbox.ErrInUse)
		}
		own, err = outbox.Open(folder(n), outboxBytes)
		if err != nil && !errors.Is(err, outbox.ErrInUse) {
			return nil, nil, fmt.Errorf("open the outbox: %w", err)
		}
	}
	var mu sync.Mutex
	var looking sync.WaitGroup
	for ; n <= mostOutboxes; n++ {
		next := folder(n)
		if _, err := os.Stat(next); err != nil {
			break
		}
		looking.Go(func() {
			box, err := outbox.Open(next, outboxBytes)
			if err != nil {
				return // held, or for somebody else to mend
			}
			mu.Lock()
			defer mu.Unlock()
			abandoned = append(abandoned, box)
		})
	}
	looking.Wait()
	return own, abandoned, nil
}

// takeOutbox opens the outbox and appends what earlier processes have left: until
// ctx ends before it returns, and until life ends after that.
func (x *Executor) takeOutbox(ctx, life context.Context) error {
	if x.outboxDir == "" {
		return nil
	}
	own, abandoned, err := openOutboxes(x.outboxDir, x.log.Info().LedgerID)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.outbox = own // Ready may look already
	x.mu.Unlock()
	var sending sync.WaitGroup
	for _, box := range append(abandoned, own) {
		if d := box.Damage(); d != (outbox.Damage{}) {
			x.logger.ErrorContext(ctx, "outbox was damaged", slog.Int64("torn_bytes", d.Torn), slog.Int("unreadable_places", d.Places),
				slog.Int64("unreadable_bytes", d.Bytes), slog.String("copy", d.Copy))
		}
		sending.Add(1)
		x.loops.Go(func() {
			defer sending.Done()
			x.sendLeft(life, box)
			if box != own {
				x.closeOutbox(life, box)
			}
		})
	}
	sent := make(chan struct{})
	x.loops.Go(func() {
		sending.Wait()
		close(sent)
	})
	x.awaitLeft(ctx, sent)
	return nil
}

// awaitLeft waits until what was left is in the ledger. Once the brokers have
// been there for long enough the rest is not waited for: it belongs to partitions
// that take no records, and must not keep this process from owning others.
func (x *Executor) awaitLeft(ctx context.Context, sent <-chan struct{}) {
	tick := time.NewTicker(leftTick)
	defer tick.Stop()
	answered := 0
	for answered < leftTicks {
		select {
		case <-sent:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, stop := context.WithTimeout(ctx, leftTick)
		if ends, _ := x.log.SomeEnds(asking); len(ends) > 0 { // without an answer the brokers are away
			answered++
		}
		stop()
	}
	x.logger.WarnContext(ctx, "not all outcomes of the earlier process could be appended; it is tried on")
}

func (x *Executor) closeOutbox(ctx context.Context, box *outbox.Outbox) {
	if err := box.Close(); err != nil {
		x.logger.ErrorContext(ctx, "outbox was not closed", slog.Any("error", err))
	}
}

func (x *Executor) outboxFull() bool { return x.outbox != nil && x.outbox.Full() }

func (x *Executor) dropKept(s *sent) {
	if s.kept {
		x.outbox.Drop(s.msg.EventID)
	}
}

// outboxAnswered logs when the outbox begins or ceases to work.
func (x *Executor) outboxAnswered(err error) {
	x.mu.Lock()
	changed := (x.outboxError == nil) != (err == nil)
	x.outboxError = err
	x.mu.Unlock()
	switch {
	case changed && err != nil:
		x.logger.Error("outcomes cannot be kept on the disk; they are lost if this process ends before the brokers are back", slog.Any("error", err))
	case changed:
		x.logger.Info("outcomes are kept on the disk again")
	}
}

// sendLeft appends what an earlier process has left in the outbox, before this
// one joins the group: whoever owns the partitions finds the outcomes in the log
// before it takes the attempts for lost.
func (x *Executor) sendLeft(ctx context.Context, box *outbox.Outbox) {
	left := box.Left()
	if len(left) == 0 {
		return
	}
	x.logger.InfoContext(ctx, "outcomes that an earlier process could not append are appended now", slog.Int("outcomes", len(left)))
	failed := make(chan ledger.Message, len(left)) // of a message that was not acknowledged; else empty
	send := func(msg ledger.Message) {
		x.log.Append(msg, func(_ int64, err error) {
			if err == nil {
				box.Drop(msg.EventID)
				msg = ledger.Message{}
			}
			failed <- msg
		})
	}
	for _, msg := range left {
		send(msg)
	}
	for n := len(left); n > 0; {
		select {
		case <-ctx.Done():
			return
		case msg := <-failed:
			if msg.EventID == uuid.Nil {
				n--
				continue
			}
			pause(ctx, resendFirst)
			send(msg)
		}
	}
	x.logger.InfoContext(ctx, "outcomes of the earlier process are in the ledger")
}
