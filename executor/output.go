package executor

import "sync"

// An Output takes the progress and the log lines of one attempt, to be seen from
// outside while its handler runs. Neither is state of the ledger: what cannot be
// delivered is lost, and a handler never waits for it. A nil Output takes
// everything and shows nobody. It may be used from any goroutine until the
// handler has returned.
type Output struct {
	mu   sync.Mutex
	sink func(OutputEntry)
	seq  int64
}

// Progress says how far the task has come: percent from 0 to 100 (others are
// brought into that range) and what it is doing, at most 4 KiB of it.
func (o *Output) Progress(percent int, text string) {
	o.say(OutputEntry{Kind: OutputProgress, Percent: min(max(percent, 0), 100), Text: text})
}

// Line adds a line to the attempt's log, at most 4 KiB of it.
func (o *Output) Line(text string) { o.say(OutputEntry{Kind: OutputLine, Text: text}) }
