package readmodel

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// maxWaiters bounds how many calls wait at once, so that waiting cannot
	// take all of the process's memory.
	maxWaiters = 10_000
	// pollListening is how often the positions are read while somebody waits,
	// in case a notification was lost; pollAlone while nobody listens.
	pollListening = time.Second
	pollAlone     = 50 * time.Millisecond
	// listenIdle is how long a listener hears nothing before it asks whether
	// its connection is alive.
	listenIdle = 10 * time.Second
	// The pauses between attempts to listen.
	listenRetryMin = 100 * time.Millisecond
	listenRetryMax = 5 * time.Second
)

// watch knows the last positions this process has heard of and wakes who waits
// for them.
type watch struct {
	mu        sync.Mutex
	positions map[int32]int64
	waiters   map[int32]map[*waiter]struct{}
	count     int
	listening bool
	polling   bool      // a waiter is reading the positions
	polled    time.Time // when one last began to
}

type waiter struct {
	offset int64
	done   chan struct{} // closed when the position is reached
}

func newWatch() *watch {
	return &watch{positions: make(map[int32]int64), waiters: make(map[int32]map[*waiter]struct{})}
}

// add returns a waiter, whose done is closed at once when the position is
// reached already; nil when too many wait.
func (w *watch) add(p Position) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := &waiter{offset: p.Offset, done: make(chan struct{})}
	// What was heard before is only trusted while a connection stands: behind
	// a broken one the database may have been restored to an older state.
	if w.listening && w.positions[p.Partition] >= p.Offset {
		close(x.done)
		return x
	}
	if w.count >= maxWaiters {
		return nil
	}
	if w.waiters[p.Partition] == nil {
		w.waiters[p.Partition] = make(map[*waiter]struct{})
	}
	w.waiters[p.Partition][x] = struct{}{}
	w.count++
	return x
}

func (w *watch) remove(partition int32, x *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.waiters[partition][x]; ok {
		delete(w.waiters[partition], x)
		w.count--
	}
}

// set takes positions in and wakes who waited for them.
func (w *watch) set(list []Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range list {
		w.positions[p.Partition] = max(w.positions[p.Partition], p.Offset)
		for x := range w.waiters[p.Partition] {
			if x.offset <= p.Offset {
				delete(w.waiters[p.Partition], x)
				w.count--
				close(x.done)
			}
		}
	}
}

func (w *watch) at(partition int32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.positions[partition]
}

func (w *watch) connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listening = true
}

// lost forgets all positions: the server that comes back may have been
// restored to an older state.
func (w *watch) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listening = false
	clear(w.positions)
}

// pollIn returns how long a waiter sleeps before it looks for itself.
func (w *watch) pollIn() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listening {
		return pollListening
	}
	return pollAlone
}

// takePoll reports whether the caller is to read the positions now, and then to
// call donePoll: of many that wait one does it for all.
func (w *watch) takePoll(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := pollAlone
	if w.listening {
		every = pollListening
	}
	if w.polling || now.Sub(w.polled) < every/2 {
		return false
	}
	w.polling, w.polled = true, now
	return true
}

func (w *watch) donePoll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.polling = false
}

// WaitFor returns once the projection has reached p: its next offset in that
// partition is at least p.Offset. When ctx ends first the error wraps
// [ErrBehind] and ctx's error; when too many calls wait it wraps ErrBehind
// alone. It works, more slowly, without [Store.Run].
func (s *Store) WaitFor(ctx context.Context, p Position) error {
	x := s.watch.add(p)
	if x == nil {
		return fmt.Errorf("wait for position %d:%d: %w: too many are waiting", p.Partition, p.Offset, ErrBehind)
	}
	defer s.watch.remove(p.Partition, x)
	for first := true; ; first = false {
		wait := s.watch.pollIn()
		if first && wait == pollAlone {
			wait = 0 // nobody has told this process anything: look before waiting
		}
		timer := time.NewTimer(wait)
		select {
		case <-x.done:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for position %d:%d: %w: %w", p.Partition, p.Offset, ErrBehind, ctx.Err())
		case <-timer.C:
		}
		if s.watch.takePoll(time.Now()) {
			s.look(ctx)
			s.watch.donePoll()
		}
	}
}

// WaitChange returns the projection's position in p's partition once it is
// beyond p. Its errors are those of [Store.WaitFor].
func (s *Store) WaitChange(ctx context.Context, p Position) (Position, error) {
	beyond := Position{Partition: p.Partition, Offset: p.Offset + 1}
	if err := s.WaitFor(ctx, beyond); err != nil {
		return Position{}, err
	}
	beyond.Offset = max(beyond.Offset, s.watch.at(p.Partition))
	return beyond, nil
}

// look reads the positions. An error only means that the waiter goes on
// waiting: its own deadline ends it.
func (s *Store) look(ctx context.Context) {
	list, err := s.Positions(ctx)
	if err != nil {
		s.logger.DebugContext(ctx, "positions could not be read", slog.Any("error", err))
		return
	}
	s.watch.set(list)
}

// Run listens for the positions that a projector announces, which makes
// [Store.WaitFor] quick, until ctx is canceled, which is not an error. A server
// that is away is waited for.
func (s *Store) Run(ctx context.Context) error {
	pause := listenRetryMin
	for ctx.Err() == nil {
		heard, err := s.listen(ctx)
		s.watch.lost()
		if ctx.Err() != nil {
			break
		}
		if heard {
			pause = listenRetryMin
		}
		s.logger.WarnContext(ctx, "listening for positions ended; trying again", slog.Any("error", err), slog.Duration("pause", pause))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, listenRetryMax)
	}
	return nil
}

// listen hears notifications until its connection breaks. heard reports
// whether it listened at all.
func (s *Store) listen(ctx context.Context) (heard bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, s.reads.Config().ConnConfig)
	if err != nil {
		return false, failed("connect to listen", err)
	}
	// Not ctx: it has ended when a listener is told to stop.
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, `listen `+s.channel()); err != nil {
		return false, failed("listen", err)
	}
	s.watch.connected()
	s.look(ctx) // what was announced before this connection listened
	for {
		idle, cancel := context.WithTimeout(ctx, listenIdle)
		n, err := conn.WaitForNotification(idle)
		quiet := idle.Err() != nil
		cancel()
		switch {
		case err == nil:
			s.watch.set(parsePositions(n.Payload))
		case ctx.Err() != nil || !quiet || conn.IsClosed():
			return true, failed("wait for a notification", err)
		default:
			if err := ping(ctx, conn); err != nil {
				return true, failed("ask whether the connection is alive", err)
			}
		}
	}
}

// ping must not wait for a server that has stopped answering.
func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return conn.Ping(ctx)
}

// channel is where the schema's positions are announced. Its name is an
// identifier that needs no quotes: Open has checked the schema's.
func (s *Store) channel() string { return s.schema + "_positions" }

// maxNotification is below the 8,000 bytes that PostgreSQL allows.
const maxNotification = 7_900

// formatPositions renders positions as "partition:offset,…" in as many
// payloads as they need.
func formatPositions(list []Position) []string {
	var payloads []string
	var b []byte
	for _, p := range list {
		if len(b) > maxNotification-32 {
			payloads, b = append(payloads, string(b)), b[:0]
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(p.Partition), 10)
		b = strconv.AppendInt(append(b, ':'), p.Offset, 10)
	}
	return append(payloads, string(b))
}

// parsePositions reads a payload; what is not one is left out, because anybody
// who may connect may notify.
func parsePositions(payload string) []Position {
	var list []Position
	for part := range strings.SplitSeq(payload, ",") {
		partition, offset, _ := strings.Cut(part, ":")
		p, err := strconv.ParseInt(partition, 10, 32)
		if err != nil {
			continue
		}
		o, err := strconv.ParseInt(offset, 10, 64)
		if err != nil {
			continue
		}
		list = append(list, Position{Partition: int32(p), Offset: o})
	}
	return list
}
