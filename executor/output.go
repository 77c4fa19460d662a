package executor

import (
	"strings"
	"sync"
	"time"

	"github.com/keten-ledger/keten/internal/eventlog"
)

const (
	// progressEvery is the least time between two progress entries of an
	// attempt; of those that come faster the newest is kept.
	progressEvery = 200 * time.Millisecond
	// progressMany is how many entries an attempt may have at that pace, and
	// progressSlow the pace of the rest: a task may run for a day.
	progressMany = 1_000
	progressSlow = 5 * time.Second
)

// An OutputKind says what an [OutputEntry] is.
type OutputKind string

// The kinds of entries.
const (
	OutputProgress OutputKind = eventlog.OutputProgress // how far the task has come
	OutputLine     OutputKind = eventlog.OutputLine     // a line of its log
	OutputCut      OutputKind = eventlog.OutputCut      // the lines that followed were left out
)

// An OutputEntry is what an [Output] hands on.
type OutputEntry struct {
	Seq     int64 // from 0, grows with every entry of the attempt
	Kind    OutputKind
	Percent int // of a progress, 0 to 100
	Text    string
	At      time.Time
}

// An Output takes the progress and the log lines of one attempt, to be seen from
// outside while its handler runs. Neither is state of the ledger: what cannot be
// delivered is lost, and a handler never waits for it. A nil Output takes
// everything and shows nobody. It may be used from any goroutine until the
// handler has returned; what comes later is lost.
type Output struct {
	sink func(OutputEntry)

	mu       sync.Mutex
	closed   bool
	seq      int64
	lines    int
	bytes    int
	cut      bool
	progress int          // entries so far
	last     OutputEntry  // the newest progress that was handed on
	lastAt   time.Time    // when that was
	waiting  *OutputEntry // a newer one, until its time has come
	timer    *time.Timer  // that brings it
}

// NewOutput returns an Output that hands its entries to sink, in their order and
// one at a time. sink must neither block nor use the Output. Who makes an Output
// closes it when the handler has returned.
func NewOutput(sink func(OutputEntry)) *Output { return &Output{sink: sink} }

// Progress says how far the task has come: percent from 0 to 100 (others are
// brought into that range) and what it is doing, at most 4 KiB of it. It may be
// called as often as is convenient: the newest one is shown, at most five are a
// second.
func (o *Output) Progress(percent int, text string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	now := time.Now()
	e := OutputEntry{Kind: OutputProgress, Percent: min(max(percent, 0), 100), Text: eventlog.ClipOutput(text), At: now}
	wait := o.pace() - now.Sub(o.lastAt)
	switch {
	case o.waiting != nil:
		o.waiting = &e
	case o.progress > 0 && o.last.Percent == e.Percent && o.last.Text == e.Text: // no news
	case o.progress == 0 || wait <= 0:
		o.say(e)
	default:
		o.waiting = &e
		o.wake(wait)
	}
}

// pace is the least time before the next progress.
func (o *Output) pace() time.Duration {
	if o.progress >= progressMany {
		return progressSlow
	}
	return progressEvery
}

// wake brings the progress that waits in its time.
func (o *Output) wake(after time.Duration) {
	if o.timer != nil {
		o.timer.Reset(after)
		return
	}
	o.timer = time.AfterFunc(after, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.flush()
	})
}

// flush hands on the progress that waits. Called with mu held.
func (o *Output) flush() {
	if o.waiting != nil && !o.closed {
		o.say(*o.waiting)
	}
	o.waiting = nil
}

// Line adds to the attempt's log: a line, at most 4 KiB of it, or several that
// are parted by newlines. Of all lines of an attempt the first 1,000, and 256
// KiB, are kept; a mark says that there were more.
func (o *Output) Line(text string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	text = strings.TrimSuffix(text, "\n")
	for more := true; more && !o.cut && !o.closed; {
		var line string
		line, text, more = strings.Cut(text, "\n")
		o.line(strings.TrimSuffix(line, "\r"))
	}
}

// line hands on one line. Called with mu held.
func (o *Output) line(text string) {
	e := OutputEntry{Kind: OutputLine, Text: eventlog.ClipOutput(text), At: time.Now()}
	if o.lines >= eventlog.MaxOutputLines || o.bytes+len(e.Text) > eventlog.MaxOutputBytes {
		o.cut = true
		e.Kind, e.Text = OutputCut, ""
	} else {
		o.lines++
		o.bytes += len(e.Text)
	}
	o.say(e)
}

// say hands on an entry. Called with mu held.
func (o *Output) say(e OutputEntry) {
	e.Seq = o.seq
	o.seq++
	if e.Kind == OutputProgress {
		o.progress++
		o.last, o.lastAt = e, time.Now()
	}
	o.sink(e)
}

// Close hands on the progress that still waits. Nothing is taken afterwards.
func (o *Output) Close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Stop() // should it have begun, it finds nothing to do
	}
	o.flush()
	o.closed = true
}
