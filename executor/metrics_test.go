package executor_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// Names and help texts are as Prometheus wants them, and failures are counted
// by the codes of this project: one that a handler made up is no label.
func TestMetrics(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("panics", panicking)
		reg.HandleRaw("chooses", raw("", executor.Fail("made up", ledger.AudienceUser, "no")))
		reg.HandleRaw("works", raw("", nil))
		p := w.start(t, reg)
		for _, taskType := range []string{"panics", "chooses", "works"} {
			w.witness.awaitRun(t, w.create(t, 0, task(taskType)), 1)
		}
		w.witness.all()
		require.Equal(t, 1, p.metric("keten_task_attempts_total", "type", "works", "result", "succeeded"))
		require.Equal(t, 1, p.metric("keten_task_attempts_total", "type", "panics", "result", "failed"))
		require.Equal(t, 1, p.metric("keten_task_failures_total", "type", "panics", "code", "panic"))
		require.Equal(t, 1, p.metric("keten_task_failures_total", "type", "chooses", "code", "other"))
		require.Equal(t, 0, p.metric("keten_task_running", "type", "works"))
		problems, err := testutil.GatherAndLint(p.metrics)
		require.NoError(t, err)
		require.Empty(t, problems)
		n, err := testutil.GatherAndCount(p.metrics, "keten_task_duration_seconds", "keten_task_wait_seconds", "keten_task_running")
		require.NoError(t, err)
		require.Equal(t, 3+1+3, n)
	})
}
