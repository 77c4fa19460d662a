package outbox

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// MinLimit is the least limit of an outbox: room for one record of any size.
const MinLimit = int64(headerBytes) + mostBytes

var (
	// ErrFull says that a record found no room below the limit.
	ErrFull = errors.New("outbox is full")
	// ErrClosed says that the outbox was closed before the record was put.
	ErrClosed = errors.New("outbox is closed")
)

// An Outbox is a folder with records, held by one process at a time. It may be
// used from any goroutine.
type Outbox struct {
	dir    string
	limit  int64 // of the file's bytes
	lock   *flock.Flock
	damage Damage
	disk   disk

	wake  chan struct{} // the writer has work
	ended chan struct{} // the writer has ended, and err is its error
	err   error

	mu    sync.Mutex
	queue []job
	seq   uint64
	byID  map[uuid.UUID]*entry // queued, being written and kept ones; no dropped ones
	bytes int64                // their frames
	// keptBytes are those of the kept ones.
	keptBytes int64
	failing   bool // the last try to write failed
	closed    bool

	// All below belongs to the writer's goroutine.
	file     *os.File
	size     int64 // of the file, as far as it counts
	suspect  bool  // the file may not hold what was written to it
	unmarked bool  // some drops were not written
	buf      []byte
	tries    int // without success, in a row
}

// An entry is a record and how far it has come. Its fields, but those that do
// not change, are guarded by Outbox.mu.
type entry struct {
	seq     uint64 // the order of Puts
	msg     ledger.Message
	bytes   int64 // of its frame
	left    bool  // by an earlier process
	state   state
	dropped bool
	waiting []func(error)
}

type state int

const (
	queued  state = iota
	writing       // the writer has taken it
	kept          // it is on the disk
)

// A job is for the writer: a record to write, an event id to mark as dropped, or
// nothing but an answer to give.
type job struct {
	entry *entry
	drop  uuid.UUID
	done  func(error)
	err   error
}

// Damage is what could not be read when an outbox was opened.
type Damage struct {
	// Torn is how many bytes at the end were cut off. A process or machine that
	// died while it wrote leaves them; no record that was safe is in them, unless
	// the disk is broken.
	Torn int64
	// Places is how many unreadable places had readable records behind them, and
	// Bytes their size. Records are lost.
	Places int
	Bytes  int64
	// Copy is the file with a copy of all that was there, empty when Places is 0
	// or it could not be kept.
	Copy string
}

// Open takes the folder, which is made when it is missing, and reads what an
// earlier process has left in it. limit is in bytes, at least [MinLimit], and
// bounds the file; records that an earlier process left under a larger limit
// stay. The errors: [ErrInUse], after a wait of at most a second for a process
// that is ending, [ErrVersion], and those of the file system. What cannot be
// read is no error, see [Outbox.Damage].
func Open(dir string, limit int64) (*Outbox, error) {
	return open(dir, limit, disk{sync: (*os.File).Sync, pause: pauseAfter})
}

func open(dir string, limit int64, d disk) (*Outbox, error) {
	if limit < MinLimit {
		return nil, fmt.Errorf("open outbox: limit is %d bytes, at least %d are needed", limit, MinLimit)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	b := &Outbox{
		dir: dir, limit: limit, lock: lock, disk: d,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), byID: make(map[uuid.UUID]*entry),
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open outbox %s: %w", dir, err), lock.Close())
	}
	go b.run()
	return b, nil
}

// Damage returns what could not be read when the outbox was opened. It is the
// zero Damage when everything could.
func (b *Outbox) Damage() Damage { return b.damage }

// Left returns what an earlier process has left and was not dropped since,
// oldest first. The bytes are shared and must not be changed.
func (b *Outbox) Left() []ledger.Message {
	var msgs []ledger.Message
	for _, e := range b.snapshot(func(e *entry) bool { return e.left }) {
		msgs = append(msgs, e.msg)
	}
	return msgs
}

// Size returns how many records are held, whether on the disk already or not,
// and how many bytes they take there.
func (b *Outbox) Size() (records int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.byID), b.bytes
}

// Put keeps a record. It never blocks; done is called exactly once, from another
// goroutine, with nil once the record is on the disk, or was dropped before it
// came to that, and else with the reason why it cannot be kept: [ErrFull],
// [ErrClosed], or an error of the file system, after which the same Put may
// succeed later. Calls are in the order of the Puts, and done must return at
// once. A record with the event id of one that is held already is not written
// again. The bytes of msg must not be changed until it is dropped.
func (b *Outbox) Put(msg ledger.Message, done func(error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		go done(ErrClosed)
		return
	}
	defer b.wakeWriter()
	if e := b.byID[msg.EventID]; e != nil {
		if e.state == kept {
			b.queue = append(b.queue, job{done: done})
			return
		}
		e.waiting = append(e.waiting, done)
		return
	}
	e := &entry{msg: msg, bytes: recordBytes(&msg), waiting: []func(error){done}}
	if err := b.room(e.bytes); err != nil {
		b.queue = append(b.queue, job{done: done, err: err})
		return
	}
	b.hold(e)
	b.queue = append(b.queue, job{entry: e})
}

func (b *Outbox) room(bytes int64) error {
	if bytes > mostBytes {
		return fmt.Errorf("keep a record: it takes %d bytes, at most %d are allowed", bytes, mostBytes)
	}
	if int64(headerBytes)+b.bytes+bytes > b.limit {
		return fmt.Errorf("keep a record of %d bytes: %w: it holds %d of at most %d bytes", bytes, ErrFull, b.bytes, b.limit)
	}
	return nil
}

func (b *Outbox) hold(e *entry) {
	b.seq++
	e.seq = b.seq
	b.byID[e.msg.EventID] = e
	b.bytes += e.bytes
}

// Drop forgets a record. It never blocks. Event ids of records that are not held
// are ignored.
func (b *Outbox) Drop(eventID uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.byID[eventID]
	if e == nil || b.closed {
		return
	}
	b.release(e)
	if e.state == kept {
		b.keptBytes -= e.bytes
	}
	if e.state != queued {
		b.queue = append(b.queue, job{drop: eventID})
		b.wakeWriter()
	}
}

func (b *Outbox) release(e *entry) {
	e.dropped = true
	delete(b.byID, e.msg.EventID)
	b.bytes -= e.bytes
}

// Full reports whether the next record may find no room: the largest one would
// not fit below the limit, or the last try to write failed.
func (b *Outbox) Full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failing || b.room(mostBytes) != nil
}

// Close writes what was put and dropped before, answers it and gives the folder
// back. It waits for the disk as long as that takes. The error says that the
// last of it may not be on the disk; records that were answered with nil are.
func (b *Outbox) Close() error {
	b.mu.Lock()
	b.closed = true
	b.wakeWriter()
	b.mu.Unlock()
	<-b.ended
	return b.err
}

func (b *Outbox) wakeWriter() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
