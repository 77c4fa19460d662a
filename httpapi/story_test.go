package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/ledger"
)

// The whole way once, with a real executor: a collection fails, the cause is
// put right, it is retried, and it succeeds with the ids it had.
func TestStory(t *testing.T) {
	t.Parallel()
	e := setup(t)
	var present atomic.Bool
	registry := executor.NewRegistry()
	registry.HandleRaw(typeGo, func(_ context.Context, task executor.RawTask) (json.RawMessage, error) {
		if string(task.Args) == `{"i":1}` && !present.Load() {
			return nil, errors.New("no challenge")
		}
		return json.RawMessage(`{"args":` + string(task.Args) + `,"previous":` + orNull(task.Previous) + `}`), nil
	})
	e.execute(t, registry)

	c := e.create(t, chain(3))
	wait := func() string { return "/v1/collections/" + c.ID.String() + "?wait=60s" }
	failed := e.call(t, http.MethodGet, wait(), "").collection(t, http.StatusOK)
	require.Equal(t, ledger.StatusFailed, failed.Status)
	require.Equal(t, "no challenge", failed.Error.Message)
	require.Equal(t, ids(c), ids(failed))

	present.Store(true)
	retried := e.call(t, http.MethodPost, retryPath(c.ID), `{"run":1}`)
	retried.collection(t, http.StatusAccepted)
	done := e.call(t, http.MethodGet, wait(), "", "Keten-At-Least", retried.header.Get("Keten-Position")).collection(t, http.StatusOK)
	require.Equal(t, ledger.StatusSucceeded, done.Status)
	require.Equal(t, 2, done.Run)
	require.Equal(t, ids(c), ids(done))
	require.Equal(t, []int{1, 2, 1}, []int{done.Tasks[0].Attempts, done.Tasks[1].Attempts, done.Tasks[2].Attempts})
	require.JSONEq(t, `{"args":{"i":2},"previous":{"args":{"i":1},"previous":{"args":{"i":0},"previous":null}}}`, string(done.Tasks[2].Result))
}

func orNull(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "null"
	}
	return string(raw)
}

// execute runs an executor until the test ends.
func (e *env) execute(t *testing.T, registry *executor.Registry) {
	t.Helper()
	worker := executor.NewWorkerID("default")
	log, err := eventlog.Open(t.Context(), e.config(worker))
	require.NoError(t, err)
	t.Cleanup(log.Close)
	x, err := executor.New(executor.Config{Log: log, Registry: registry, Worker: worker, Logger: logger()})
	require.NoError(t, err)
	background(t, x.Run)
}
