package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// pollMax bounds the records of one poll, so that a transaction that has ended
// is not left waiting for a long fold.
const pollMax = 500

const (
	// writeTimeout bounds a transaction, and with it how long a server that has
	// stopped answering without closing its connections goes unnoticed.
	writeTimeout = time.Minute
	// readTimeout does the same for reading the checkpoints.
	readTimeout = 10 * time.Second
)

// session is one fold of the ledger from its beginning. It ends when the tables
// stand where it cannot continue.
type session struct {
	*Projector

	parts   map[int32]*part
	polls   chan []eventlog.Fetched // from the reader's goroutine
	results chan error              // from the writer's
	writing []*part                 // whose first pending changes are with the writer
	began   time.Time               // when that transaction began
	pace    pace
	alone   []*part     // to be written one by one, because a batch of them was refused
	failed  int         // transactions in a row that failed for no known reason
	pacing  *time.Timer // fires when the next transaction may begin
	ticking *time.Timer // fires when it is time to see where the tables stand
	waits   int         // partitions that stand by
	ready   bool        // everything that was there at the start is written
	running sync.WaitGroup
}

// session reads the checkpoints and projects from there. It returns nil when
// ctx ends and an error that wraps errReload when it cannot continue.
func (p *Projector) session(ctx context.Context) error {
	s := &session{
		Projector: p, parts: make(map[int32]*part),
		polls: make(chan []eventlog.Fetched), results: make(chan error, 1),
		pacing: time.NewTimer(time.Hour), ticking: time.NewTimer(time.Hour),
	}
	defer s.pacing.Stop()
	defer s.ticking.Stop()
	s.countWaits(0)
	if err := s.load(ctx); err != nil {
		return err
	}
	from := make(map[int32]eventlog.Start, len(s.parts))
	for partition := range s.parts {
		from[partition] = eventlog.Start{LeaderEpoch: -1}
	}
	reader, err := p.cfg.Log.NewReader(eventlog.ReaderConfig{From: from}) //nolint:contextcheck // a reader lives until it is closed
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.running.Go(func() { s.poll(ctx, reader) })
	defer func() {
		cancel()
		reader.Close()
		s.running.Wait()
	}()
	return s.loop(ctx)
}

// load reads where the tables and the log stand.
func (s *session) load(ctx context.Context) error {
	stored, err := s.checkpoints(ctx)
	if err != nil {
		return err
	}
	var ends map[int32]int64
	err = s.persist(ctx, "read the log ends", func() (err error) {
		ends, err = s.cfg.Log.Ends(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range stored {
		if s.isStopped(c.Partition) {
			continue
		}
		if end := ends[c.Partition]; end < c.Next {
			s.stop(ctx, c.Partition, fmt.Errorf("%w: it ends at offset %d, the tables stand at %d", errHistory, end, c.Next))
			continue
		}
		s.parts[c.Partition] = newPart(c, ends[c.Partition], s.metrics.lagOf(c.Partition))
	}
	return nil
}

// checkpoints reads where the tables stand, for as long as that takes.
func (s *session) checkpoints(ctx context.Context) (stored []readmodel.Checkpoint, err error) {
	err = s.persist(ctx, "read the checkpoints", func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		stored, err = s.cfg.Store.Checkpoints(ctx, s.info.LedgerID, s.info.Partitions)
		return err
	})
	return stored, err
}

// poll hands over what the reader brings, until ctx ends.
func (s *session) poll(ctx context.Context, reader *eventlog.Reader) {
	for ctx.Err() == nil {
		var fetched []eventlog.Fetched
		err := s.persist(ctx, "read the ledger", func() (err error) {
			fetched, err = reader.Poll(ctx, pollMax)
			return err
		})
		if err != nil {
			return
		}
		select {
		case s.polls <- fetched:
		case <-ctx.Done():
		}
	}
}

// loop is the session's one owner of all parts.
func (s *session) loop(ctx context.Context) error {
	for {
		s.write(ctx)
		s.metrics.observe(s.parts)
		s.noteCaught()
		polls := s.polls
		if !s.hasRoom() {
			polls = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case fetched := <-polls:
			for _, f := range fetched {
				s.take(ctx, f)
			}
		case err := <-s.results:
			if err := s.wrote(ctx, err); err != nil {
				return err
			}
		case <-s.pacing.C:
		case <-s.ticking.C:
			if err := s.tick(ctx); err != nil {
				return err
			}
		}
	}
}

// maxPendingBytes bounds, as MaxBatch does, what a slow server makes this
// process hold: it stands for few large records.
const maxPendingBytes = 32 << 20

// hasRoom reports whether more may be read. What is with the writer does not
// count: beside it another transaction's worth may wait.
func (s *session) hasRoom() bool {
	records, bytes := 0, 0
	for _, x := range s.parts {
		for i, p := range x.pending {
			if i > 0 || !x.writing {
				records += p.Records
				bytes += p.Bytes
			}
		}
	}
	return records < s.cfg.MaxBatch && bytes < maxPendingBytes
}

// hasRoomToWait is the same bound for what waits where another projector
// writes. Should that one be far behind, reading goes on all the same: the
// partitions written here must not wait for it.
func (s *session) hasRoomToWait() bool {
	records, bytes := 0, 0
	for _, x := range s.parts {
		records += len(x.buffer)
		bytes += x.bufferBytes
	}
	return records < s.cfg.MaxBatch && bytes < maxPendingBytes
}

// take folds what was read of one partition, or keeps it for later.
func (s *session) take(ctx context.Context, f eventlog.Fetched) {
	x := s.parts[f.Partition]
	switch {
	case x == nil || x.over:
		return
	case f.Err != nil:
		s.end(ctx, x, f.Err)
		return
	}
	x.high = max(x.high, f.HighWatermark)
	if x.writes() {
		s.fold(ctx, x, f.Records)
		return
	}
	x.keep(f.Records)
	if s.hasRoomToWait() {
		return
	}
	if err := x.skip(); err != nil {
		s.end(ctx, x, err)
	}
}

// fold applies records. A partition that cannot go on ends; what was folded
// before is still written.
func (s *session) fold(ctx context.Context, x *part, records []ledger.Record) {
	for _, r := range records {
		if err := x.apply(r); err != nil {
			s.end(ctx, x, err)
			return
		}
	}
}

// end stops a partition; what it has pending is still written.
func (s *session) end(ctx context.Context, x *part, err error) {
	s.stop(ctx, x.fold.Index(), err)
	x.over = true
	x.take(endOfLog)
	s.dropIfOver(x)
}

// discard stops a partition and gives up what it has pending.
func (s *session) discard(ctx context.Context, x *part, err error) {
	x.pending = nil
	s.end(ctx, x, err)
}

func (s *session) dropIfOver(x *part) {
	if !x.over || len(x.pending) > 0 {
		return
	}
	delete(s.parts, x.fold.Index())
	if !x.writes() {
		s.countWaits(-1)
	}
}

func (s *session) noteCaught() {
	if s.ready {
		return
	}
	for _, x := range s.parts {
		if !x.caught() {
			return
		}
	}
	s.ready = true
	s.setCaught()
}

// write gives all that is pending to the writer, unless it is busy, it is too
// early, or another projector writes the partition.
func (s *session) write(ctx context.Context) {
	if s.writing != nil {
		return
	}
	if len(s.alone) > 0 {
		x := s.alone[0]
		s.alone = s.alone[1:]
		s.start(ctx, []*part{x})
		return
	}
	var batch []*part
	for _, x := range s.parts {
		if len(x.pending) > 0 && x.writes() {
			batch = append(batch, x)
		}
	}
	if len(batch) == 0 {
		return
	}
	if wait := s.pace.wait(time.Now()); wait > 0 && s.hasRoom() {
		s.pacing.Reset(wait)
		return
	}
	s.start(ctx, batch)
}

// start lets the writer write the first pending changes of parts.
func (s *session) start(ctx context.Context, batch []*part) {
	changes := make([]*readmodel.Changes, len(batch))
	records := 0
	for i, x := range batch {
		x.writing = true
		changes[i] = x.pending[0].Changes
		records += changes[i].Records
	}
	s.writing, s.began = batch, time.Now()
	s.pace.wrote(records, s.began)
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		s.results <- s.cfg.Store.Write(ctx, changes)
	})
}

// wrote takes in how a transaction ended.
func (s *session) wrote(ctx context.Context, err error) error {
	batch := s.writing
	s.writing = nil
	for _, x := range batch {
		x.writing = false
	}
	var refused *readmodel.RefusedError
	switch {
	case err == nil:
		s.succeeded(ctx, batch)
		return nil
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &refused):
		s.refused(ctx, batch, refused)
		return nil
	case errors.Is(err, readmodel.ErrConflict):
		s.metrics.conflicts.Inc()
		return s.settle(ctx, standWhereMoved)
	}
	s.setTrouble(ctx, doingWrite, err)
	return s.settle(ctx, writeWherePossible)
}

func (s *session) succeeded(ctx context.Context, batch []*part) {
	s.failed = 0
	s.setTrouble(ctx, doingWrite, nil)
	records := 0
	for _, x := range batch {
		p := x.written()
		records += p.Records
		s.metrics.count(p)
		s.dropIfOver(x)
	}
	s.metrics.batch.Observe(float64(records))
	s.metrics.duration.Observe(time.Since(s.began).Seconds())
}

// refused finds the partition whose rows PostgreSQL refuses and stops it, so
// that the others go on.
func (s *session) refused(ctx context.Context, batch []*part, err *readmodel.RefusedError) {
	if len(batch) > 1 {
		s.cfg.Logger.WarnContext(ctx, "a batch was refused; writing its partitions one by one", slog.Any("error", err))
		s.alone = batch
		return
	}
	x := batch[0]
	p := x.pending[0]
	s.discard(ctx, x, fmt.Errorf("records %d to %d: %w", p.From.Next, p.To.Next-1, err))
}

// doingWrite names the trouble with the tables in logs and readiness.
const doingWrite = "write the read model"

// settle finds out where the tables stand after a transaction that conflicted
// or whose outcome is unknown. What did not happen is tried again, less and
// less often.
func (s *session) settle(ctx context.Context, then policy) error {
	s.alone = nil
	pause := min(retryMin<<min(s.failed, 10), retryMax)
	s.failed++
	if sleep(ctx, jitter(pause)) != nil {
		return nil // the session was told to end
	}
	return s.reconcile(ctx, then)
}
