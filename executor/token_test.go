package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/ledger"
)

func outcomeKey(t *testing.T) *outcometoken.Key {
	t.Helper()
	k, err := outcometoken.ParseKey(outcometoken.GenerateKey())
	require.NoError(t, err)
	return k
}

// A handler hands out the token of its attempt and returns. The token names all
// that an outcome needs, is the same whenever it is asked for, and is good for as
// long as the attempt may be open; what is reported with it goes on from there.
func TestOutcomeTokenOfADeferredAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		key := outcomeKey(t)
		reg, starts := newStarts()
		tokens := make(chan string, 2)
		reg.HandleRaw("approve", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
			for range cap(tokens) {
				token, err := t.OutcomeToken()
				if err != nil {
					return nil, err
				}
				tokens <- token
				time.Sleep(20 * time.Second)
			}
			return nil, fmt.Errorf("somebody was asked: %w", executor.ErrPending)
		})
		p := w.start(t, reg, func(c *executor.Config) { c.OutcomeKey = key })
		id := w.create(t, 0, task("approve", timeoutAfter(time.Minute)), task("hold"))
		began := time.Now()
		token := await(t, tokens)
		require.Equal(t, token, await(t, tokens))
		w.witness.await(t, "the deferral", func([]fact) bool { return w.witness.count("TaskDeferred", ledger.Accepted) == 1 })

		c, err := key.Verify(token, time.Now())
		require.NoError(t, err)
		require.WithinDuration(t, began, c.Issued, 2*time.Second)
		require.Equal(t, outcometoken.Claims{
			Ledger: w.log.Info().LedgerID, Tenant: "default", Collection: id, Run: 1, Task: ledger.TaskID(id, ledger.KindTask, 0),
			Type: "approve", AttemptID: w.witness.attempts(id)[0].ID, Worker: p.worker, Issued: c.Issued, Expiry: c.Expiry,
		}, c)
		_, err = key.Verify(token, began.Add(2*time.Minute+time.Hour))
		require.NoError(t, err, "the attempt may be open for a timeout after a handler that took as long")

		w.append(t, 0, ledger.TaskSucceeded{
			CollectionID: c.Collection, Tenant: c.Tenant, Run: c.Run, TaskID: c.Task, AttemptID: c.AttemptID, Worker: c.Worker,
			Result: json.RawMessage(`"approved"`),
		})
		b := await(t, starts)
		require.JSONEq(t, `"approved"`, string(b.task.Previous))
		b.end <- nil
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
	})
}

// Without a key there is no token, which a handler's operator learns at once and
// not after the task's timeout.
func TestNoOutcomeTokenWithoutKey(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		reg := executor.NewRegistry()
		reg.HandleRaw("approve", func(_ context.Context, t executor.RawTask) (json.RawMessage, error) {
			if _, err := t.OutcomeToken(); err != nil {
				return nil, err
			}
			return nil, errors.New("there was a token")
		})
		w.start(t, reg)
		id := w.create(t, 0, task("approve", attemptsMost(3)))
		ended := w.witness.awaitRun(t, id, 1)
		require.Equal(t, ledger.CodeConfig, ended.Error.Code)
		require.Contains(t, ended.Error.Message, "no key for outcome tokens")
		require.Len(t, w.witness.attempts(id), 1)
	})
}
