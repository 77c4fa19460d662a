package handlers

import "io"

// NewCommandLog makes the log of a command; last returns a failure's message.
func NewCommandLog(out output) (w io.Writer, flush func(), last, detail func() string) {
	l := &commandLog{out: out}
	return l, l.flush, l.lastLine, l.String
}

// IdleSupervisors counts those without a command.
func IdleSupervisors() int { return supervisors.countIdle() }
