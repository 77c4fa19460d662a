package httpapi_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

// From a handler in Go to HTTP, on the real servers: what it says is shown while
// it still runs.
func TestOutputIsShownWhileATaskRuns(t *testing.T) {
	t.Parallel()
	e := setup(t, func(s *settings) { s.brokers = func(t *testing.T) []string { return kafkatest.Brokers(t) } })
	next, ended := make(chan struct{}), make(chan struct{})
	registry := executor.NewRegistry()
	executor.Handle(registry, typeGo, func(ctx context.Context, task executor.Task[map[string]int]) (string, error) {
		for i := range 3 {
			task.Output.Progress(10*(i+1), fmt.Sprint("step ", i))
			task.Output.Line(fmt.Sprint("line ", i))
			select {
			case <-next:
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		task.Output.Progress(100, "over")
		close(ended)
		return "done", nil
	})
	worker := executor.NewWorkerID(ledger.DefaultQueue)
	log, err := eventlog.Open(t.Context(), e.config(worker))
	require.NoError(t, err)
	t.Cleanup(log.Close)
	x, err := executor.New(executor.Config{Log: log, Registry: registry, Worker: worker, Logger: logger()})
	require.NoError(t, err)
	background(t, x.Run)

	c := e.create(t, chain(1))
	task, after := c.Tasks[0].ID, ""
	for i := range 3 {
		want := fmt.Sprint("line ", i)
		require.Eventually(t, func() bool {
			page := e.output(t, c.ID, task, after)
			if len(page.Lines) == 0 {
				return false
			}
			require.Equal(t, []string{want}, lineTexts(page))
			after = "after=" + url.QueryEscape(*page.NextAfter)
			return true
		}, patience, 20*time.Millisecond)
		require.Eventually(t, func() bool {
			p := e.get(t, c.ID).Tasks[0].Progress
			return p != nil && p.Percent == 10*(i+1) && p.Text == fmt.Sprint("step ", i)
		}, patience, 20*time.Millisecond)
		require.Equal(t, ledger.StatusRunning, e.get(t, c.ID).Status)
		next <- struct{}{}
	}
	<-ended
	require.Eventually(t, func() bool {
		at := e.getTask(t, c.ID, task).AllAttempts[0]
		return at.Status == ledger.StatusSucceeded && at.Progress.Percent == 100
	}, patience, 20*time.Millisecond, "the last progress is sent at the handler's return")
}
