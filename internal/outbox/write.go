package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

const (
	// flushBytes bounds the memory that a batch takes beside its records.
	flushBytes = 1 << 20
	// deadBytes are worth rewriting a file for.
	deadBytes = 1 << 20
	// The pauses between tries to write, while no Put comes.
	pauseFirst = time.Second
	pauseMost  = 30 * time.Second
)

// disk is what tests replace: syncing, and how long to wait before writing is
// tried without a Put, after so many failures in a row.
type disk struct {
	sync  func(*os.File) error
	pause func(failures int) time.Duration
}

func pauseAfter(failures int) time.Duration {
	return min(pauseFirst<<min(failures-1, 10), pauseMost)
}

// run is the writer's goroutine. It ends when the outbox was closed.
func (b *Outbox) run() {
	defer close(b.ended)
	retry := time.NewTimer(b.disk.pause(max(b.tries, 1)))
	defer retry.Stop()
	armed := true
	for {
		select {
		case <-b.wake:
		case <-retry.C:
			armed = false
			b.probe()
		}
		p, more := b.take()
		for ; len(p.jobs) > 0; p, more = b.take() {
			b.settle(&p, b.write(&p))
		}
		if !more {
			b.err = b.end()
			return
		}
		// Drops alone wake the writer without trying anything: they must not put
		// the next try off.
		if b.tries > 0 && !armed {
			retry.Reset(b.disk.pause(b.tries))
			armed = true
		}
	}
}

// A plan is a batch of jobs and what the file holds before them.
type plan struct {
	jobs  []job
	puts  int
	bytes int64 // to be written for the jobs
	kept  int64 // bytes of records in the file that were not dropped
}

// take returns the jobs that wait, and whether others may come.
func (b *Outbox) take() (plan, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := plan{jobs: b.queue, kept: b.keptBytes}
	b.queue = nil
	for _, j := range p.jobs {
		switch {
		case j.entry != nil && !j.entry.dropped:
			j.entry.state = writing
			p.puts++
			p.bytes += j.entry.bytes
		case j.entry == nil && j.done == nil:
			p.bytes += dropBytes
		}
	}
	return p, !b.closed
}

// settle notes how a batch ended and gives the answers.
func (b *Outbox) settle(p *plan, err error) {
	type answer struct {
		done func(error)
		err  error
	}
	var answers []answer
	b.mu.Lock()
	if err != nil || p.puts > 0 {
		b.tried(err)
	}
	for _, j := range p.jobs {
		e := j.entry
		if e == nil {
			if j.done != nil {
				answers = append(answers, answer{j.done, j.err})
			}
			continue
		}
		failed := err
		switch {
		case e.dropped:
			failed = nil // nobody needs it any more
		case err != nil:
			b.release(e)
		default:
			e.state = kept
			b.keptBytes += e.bytes
		}
		for _, done := range e.waiting {
			answers = append(answers, answer{done, failed})
		}
		e.waiting = nil
	}
	b.mu.Unlock()
	for _, a := range answers {
		a.done(a.err)
	}
}

// tried notes whether writing works. Needs b.mu.
func (b *Outbox) tried(err error) {
	b.failing = err != nil
	if b.failing {
		b.tries++
	} else {
		b.tries = 0
	}
}

// write brings a batch to the disk.
func (b *Outbox) write(p *plan) error {
	if p.bytes == 0 {
		return nil
	}
	if p.kept == 0 && !b.suspect && b.empty() && p.puts == 0 {
		return nil
	}
	crowded := b.size+p.bytes > b.limit
	wasteful := b.size-int64(headerBytes)-p.kept > max(p.kept, deadBytes)
	switch {
	case p.puts == 0 && (b.suspect || crowded || b.tries > 0):
		b.unmarked = true // a drop can wait, and is done with the next rewriting
		return nil
	case b.suspect || crowded || wasteful:
		return b.rewrite(0)
	default:
		return b.append(p)
	}
}

// empty cuts the file, in which nothing counts any more, to its header.
func (b *Outbox) empty() bool {
	if b.size > int64(headerBytes) {
		if err := b.file.Truncate(int64(headerBytes)); err != nil {
			b.suspect = true
			return false
		}
	}
	b.size, b.unmarked = int64(headerBytes), false
	return true
}

// append writes a batch behind what is there.
func (b *Outbox) append(p *plan) error {
	w := &appender{file: b.file, at: b.size, buf: b.buf[:0]}
	for _, j := range p.jobs {
		switch {
		case j.entry != nil && j.entry.state == writing:
			w.record(j.entry)
		case j.entry == nil && j.done == nil:
			w.drop(j)
		}
	}
	w.flush()
	b.buf = w.buf
	if w.err != nil {
		// Part of the batch may be in the file, perhaps half a frame.
		b.suspect = b.file.Truncate(b.size) != nil
		return fmt.Errorf("write records: %w", w.err)
	}
	b.size = w.at
	if p.puts == 0 {
		return nil
	}
	if err := b.disk.sync(b.file); err != nil {
		b.suspect = true
		return fmt.Errorf("sync records: %w", err)
	}
	return nil
}

// rewrite writes all records that count into a new file that takes the place of
// the old one. It also makes sure that there is room for reserve bytes more.
func (b *Outbox) rewrite(reserve int64) error {
	entries := b.snapshot(func(e *entry) bool { return e.state != queued })
	f, size, err := b.writeNew(entries, reserve)
	if err != nil {
		return fmt.Errorf("write records anew: %w", errors.Join(err, remove(b.path(newName))))
	}
	if err := os.Rename(b.path(newName), b.path(recordsName)); err != nil {
		return fmt.Errorf("replace records: %w", errors.Join(err, f.Close(), remove(b.path(newName))))
	}
	if b.file != nil {
		_ = b.file.Close() // nothing in it counts any more
	}
	b.file, b.size = f, size
	// Until its name is on the disk, what is appended to it is not safe.
	if err := b.syncFolder(); err != nil {
		b.suspect = true
		return fmt.Errorf("replace records: sync folder: %w", err)
	}
	b.suspect, b.unmarked = false, false
	return nil
}

func (b *Outbox) writeNew(entries []*entry, reserve int64) (*os.File, int64, error) {
	f, err := os.OpenFile(b.path(newName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return nil, 0, err
	}
	w := &appender{file: f, buf: appendHeader(b.buf[:0])}
	for _, e := range entries {
		w.record(e)
	}
	w.flush()
	b.buf = w.buf
	err = w.err
	if err == nil && reserve > 0 {
		if _, err = f.WriteAt(make([]byte, reserve), w.at); err == nil {
			err = errors.Join(b.disk.sync(f), f.Truncate(w.at))
		}
	}
	if err == nil {
		err = b.disk.sync(f)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, w.at, nil
}

// snapshot returns the records that are held and wanted, in the order of their
// Puts.
func (b *Outbox) snapshot(wanted func(*entry) bool) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var entries []*entry
	for _, e := range b.byID {
		if wanted(e) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	return entries
}

// probe tries whether writing works again, with room for a record of any size.
func (b *Outbox) probe() {
	if b.tries == 0 {
		return
	}
	err := b.rewrite(mostBytes)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tried(err)
}

// end brings the last drops to the disk and gives the folder back.
func (b *Outbox) end() error {
	var err error
	if b.suspect || b.unmarked {
		err = b.rewrite(0)
	} else if err = b.disk.sync(b.file); err != nil {
		err = fmt.Errorf("sync records: %w", err)
	}
	if err = errors.Join(err, b.file.Close(), b.lock.Close()); err != nil {
		return fmt.Errorf("close outbox %s: %w", b.dir, err)
	}
	return nil
}

// An appender writes frames to a file. After an error it writes nothing more.
type appender struct {
	file io.WriterAt
	at   int64
	buf  []byte
	err  error
}

func (w *appender) record(e *entry) {
	w.buf = appendRecord(w.buf, &e.msg)
	w.flushAbove(flushBytes)
}

func (w *appender) drop(j job) {
	w.buf = appendDrop(w.buf, j.drop)
	w.flushAbove(flushBytes)
}

func (w *appender) flush() { w.flushAbove(0) }

func (w *appender) flushAbove(bytes int) {
	if len(w.buf) <= bytes || w.err != nil {
		if w.err != nil {
			w.buf = w.buf[:0]
		}
		return
	}
	n, err := w.file.WriteAt(w.buf, w.at)
	w.at, w.err = w.at+int64(n), err
	w.buf = w.buf[:0]
}
