package httpapi_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
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
	go func() { p.ended <- e.run(ctx) }()
	t.Cleanup(func() { e.stopProjecting(t) })
}

func (e *env) stopProjecting(t *testing.T) {
	t.Helper()
	if p := e.projecting.Swap(nil); p != nil {
		p.cancel()
		require.NoError(t, <-p.ended)
	}
}

func (e *env) run(ctx context.Context) error {
	info := e.log.Info()
	from := map[int32]eventlog.Start{}
	folds := map[int32]*ledger.Partition{}
	for p := range info.Partitions {
		from[p], folds[p] = eventlog.Start{LeaderEpoch: -1}, ledger.NewPartition(p)
	}
	checkpoints, err := e.store.Checkpoints(ctx, info.LedgerID, info.Partitions)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := e.log.NewReader(eventlog.ReaderConfig{From: from})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		fetched, err := r.Poll(ctx, 1000)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var all []*readmodel.Changes
		for _, f := range fetched {
			c := readmodel.NewChanges(checkpoints[f.Partition])
			for _, rec := range f.Records {
				o, err := folds[f.Partition].Apply(rec)
				if err != nil {
					return err
				}
				if rec.Offset >= checkpoints[f.Partition].Next {
					c.Add(rec, o)
				}
			}
			c.To = readmodel.CheckpointOf(info.LedgerID, folds[f.Partition])
			if c.To.Next > c.From.Next {
				checkpoints[f.Partition] = c.To
				all = append(all, c)
			}
		}
		if err := e.store.Write(context.WithoutCancel(ctx), all); err != nil {
			return err
		}
	}
}
