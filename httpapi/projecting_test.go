package httpapi_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/projector"
)

type projecting struct {
	cancel context.CancelFunc
	ended  chan error
}

// project keeps the read model up to date until the test ends or stops it.
func (e *env) project(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &projecting{cancel: cancel, ended: make(chan error, 1)}
	e.projecting.Store(p)
	projector, err := projector.New(projector.Config{Log: e.log, Store: e.store, Logger: logger()})
	require.NoError(t, err)
	go func() { p.ended <- projector.Run(ctx) }()
	t.Cleanup(func() { e.stopProjecting(t) })
}

func (e *env) stopProjecting(t *testing.T) {
	t.Helper()
	if p := e.projecting.Swap(nil); p != nil {
		p.cancel()
		require.NoError(t, <-p.ended)
	}
}
