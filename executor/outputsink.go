package executor

import (
	"time"

	"github.com/keten-ledger/keten/ledger"
)

// An OutputKind says what an [OutputEntry] is.
type OutputKind string

// The kinds of entries.
const (
	OutputProgress OutputKind = "progress" // how far the task has come
	OutputLine     OutputKind = "line"     // a line of its log
)

// An OutputEntry is what an [Output] hands on.
type OutputEntry struct {
	Seq     int64 // from 0, grows with every entry of the attempt
	Kind    OutputKind
	Percent int // of a progress, 0 to 100
	Text    string
	At      time.Time
}

// NewOutput returns an Output that hands its entries to sink, in their order and
// one at a time. sink must neither block nor use the Output. Who makes an Output
// closes it when the handler has returned.
func NewOutput(sink func(OutputEntry)) *Output { return &Output{sink: sink} }

// Close hands on the progress that still waits. Nothing is taken afterwards.
func (o *Output) Close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink = nil
}

func (o *Output) say(e OutputEntry) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sink == nil {
		return
	}
	e.Seq, e.Text, e.At = o.seq, clip(e.Text, ledger.MaxMessageBytes), time.Now()
	o.seq++
	o.sink(e)
}
