package executor_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// heard reads the output topic until it has n entries.
func (w *world) heard(t *testing.T, n int) (records []eventlog.OutputRecord, texts []string) {
	t.Helper()
	r, err := w.log.NewOutputReader(nil)
	require.NoError(t, err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for len(texts) < n {
		fetched, err := r.Poll(ctx, 1000)
		require.NoError(t, err, "%v", texts)
		for _, f := range fetched {
			for _, raw := range f.Records {
				record, err := eventlog.DecodeOutput(raw.Value)
				require.NoError(t, err)
				records = append(records, record)
				for _, e := range record.Entries {
					texts = append(texts, e.Kind+" "+e.Text)
				}
			}
		}
	}
	return records, texts
}

// What a handler says is in the topic while it runs, the last of it at its end,
// however it ends.
func TestHandlersAreHeard(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		going := make(chan executor.TaskInfo)
		executor.Handle(reg, "talk", func(_ context.Context, t executor.Task[any]) (any, error) {
			t.Output.Line("begun")
			t.Output.Progress(10, "first")
			t.Output.Progress(20, "second")
			t.Output.Progress(30, "third")
			going <- t.TaskInfo
			t.Output.Progress(40, "last")
			panic("no more")
		})
		w.start(t, reg)
		id := w.create(t, 1, task("talk"))
		info := <-going
		records, texts := w.heard(t, 2)
		require.Equal(t, []string{"line begun", "progress first"}, texts[:2])
		require.Equal(t, id, records[0].CollectionID)
		require.Equal(t, []any{info.TaskID, 1, info.Fence}, []any{records[0].TaskID, records[0].Run, records[0].AttemptID})
		require.Equal(t, ledger.StatusFailed, w.witness.awaitRun(t, id, 1).Status)
		_, texts = w.heard(t, 3)
		require.Equal(t, "progress last", texts[len(texts)-1])
		info.Output.Line("from beyond")
		time.Sleep(time.Second)
		_, after := w.heard(t, 3)
		require.Equal(t, texts, after)
	})
}

// Brokers that are away hold no handler up: what it says meanwhile is lost, what
// it says later is heard, and its outcome is not affected.
func TestHandlersSpeakIntoTheVoid(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		going, on := make(chan time.Duration), make(chan struct{})
		executor.Handle(reg, "talk", func(_ context.Context, t executor.Task[any]) (string, error) {
			t.Output.Line("before")
			going <- 0
			<-on
			began := time.Now()
			for i := range 900 {
				t.Output.Line(fmt.Sprint("lost ", i))
				t.Output.Progress(i, fmt.Sprint("lost ", i))
			}
			going <- time.Since(began)
			<-on
			t.Output.Line("after")
			return "done", nil
		})
		p := w.start(t, reg)
		id := w.create(t, 0, task("talk"))
		<-going
		w.heard(t, 1)
		p.wire.setCut(true)
		on <- struct{}{}
		require.Zero(t, <-going, "nothing is waited for")
		time.Sleep(time.Minute)
		p.wire.setCut(false)
		on <- struct{}{}
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		_, texts := w.heard(t, 2)
		require.Equal(t, []string{"line before", "line after"}, texts)
	})
}
