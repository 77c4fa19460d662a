package worker_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/worker"
)

// Handlers of a program of one's own hand out tokens that the API's key verifies.
func TestOutcomeKeyFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "outcome.key")
	_, err := outcometoken.EnsureKeyFile(file)
	require.NoError(t, err)
	key, err := outcometoken.LoadKey(file)
	require.NoError(t, err)
	brokers, log := newLedger(t)
	reg := executor.NewRegistry()
	executor.Handle(reg, "greet", func(_ context.Context, t executor.Task[struct{ Name string }]) (string, error) {
		return t.OutcomeToken()
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Brokers: brokers, Registry: reg, AllowSingleReplica: true, OutcomeKeyFile: file, Logger: slog.New(slog.DiscardHandler),
		})
	}()
	claims, err := key.Verify(greeted(t, log, "you"), time.Now())
	require.NoError(t, err)
	require.Equal(t, "greet", claims.Type)
	cancel()
	require.NoError(t, <-ended)
}
