package executor

import (
	"log/slog"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// newOutput returns the Output of an attempt whose handler is about to start. It
// is to be closed when the handler has returned. Its records are sent by a client
// of their own, which drops them rather than wait.
func (x *Executor) newOutput(a ledger.Attempt) *Output {
	record := eventlog.OutputRecord{CollectionID: a.Collection, TaskID: a.Task.ID, Run: a.Run, AttemptID: a.ID}
	return NewOutput(func(e OutputEntry) {
		r := record
		r.Entries = []eventlog.OutputEntry{{Seq: e.Seq, Kind: string(e.Kind), Percent: e.Percent, Text: e.Text, At: e.At.UTC()}}
		value, err := eventlog.EncodeOutput(r)
		if err != nil { // cannot be: all texts are valid
			slog.New(attemptLog{x.logger.Handler(), &a}).Error("output cannot be encoded", slog.Any("error", err))
			return
		}
		x.log.AppendOutput(ledger.PartitionOf(r.CollectionID), []byte(r.CollectionID.String()), value)
	})
}
