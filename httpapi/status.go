package httpapi

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// readyWait bounds the readiness answer: who asks for it must not be held up
// by what is away.
const readyWait = 3 * time.Second

// A Command is what became of a command.
type Command struct {
	EventID      uuid.UUID      `format:"uuid" json:"event_id"`
	CollectionID uuid.UUID      `format:"uuid" json:"collection_id"`
	Type         string         `doc:"The type of its event." example:"keten.v1.CollectionCreated" json:"type"`
	Verdict      ledger.Verdict `doc:"accepted: it is true for everyone. duplicate: the same thing was already there. stale: it came too late. invalid: it broke a rule." enum:"accepted,duplicate,stale,invalid" json:"verdict"`
	Reason       *string        `doc:"Why it was refused." example:"active" json:"reason"`
	Position     string         `doc:"Behind its record." example:"3:1042" json:"position"`
}

type commandInput struct {
	ReadHeaders

	EventID string `doc:"From the header Keten-Command." format:"uuid" path:"event_id"`
}

type commandStatusOutput struct{ Body Command }

// getCommand answers GET /v1/commands/{event_id}.
func (a *API) getCommand(ctx context.Context, in *commandInput) (*commandStatusOutput, error) {
	id, err := parseID("event_id", in.EventID)
	if err != nil {
		return nil, err
	}
	if err := a.waitAtLeast(ctx, in.AtLeast); err != nil {
		return nil, err
	}
	o, err := a.store.CommandOutcome(ctx, id)
	switch {
	case errors.Is(err, readmodel.ErrNotFound), err == nil && o.Tenant != defaultTenant:
		return nil, noSuchCommand()
	case err != nil:
		return nil, err
	}
	return &commandStatusOutput{Body: Command{
		EventID: o.EventID, CollectionID: o.Collection, Type: o.Type, Verdict: o.Verdict,
		Reason: optional(string(o.Reason)), Position: formatPosition(o.Position),
	}}, nil
}

// Positions says how far the read model has got.
type Positions struct {
	LedgerID   uuid.UUID `format:"uuid" json:"ledger_id"`
	Partitions int32     `minimum:"1" json:"partitions"`
	Window     int64     `doc:"How many offsets the read model may be behind before retries and keyed creates are refused." minimum:"1" json:"window"`
	Positions  []string  `doc:"Of each partition it has read from, as partition:offset." example:"[\"0:1017\",\"1:1042\"]" json:"positions" nullable:"false"`
}

type positionsOutput struct{ Body Positions }

// positions answers GET /v1/positions.
func (a *API) positions(ctx context.Context, in *ReadHeaders) (*positionsOutput, error) {
	if err := a.waitAtLeast(ctx, in.AtLeast); err != nil {
		return nil, err
	}
	list, err := a.store.Positions(ctx)
	if err != nil {
		return nil, err
	}
	out := &positionsOutput{Body: Positions{
		LedgerID: a.cfg.LedgerID, Partitions: a.cfg.Partitions, Window: a.cfg.Window, Positions: make([]string, len(list)),
	}}
	for i, p := range list {
		out.Body.Positions[i] = formatPosition(p)
	}
	return out, nil
}

// Health says that the process answers.
type Health struct {
	Status        string `enum:"ok" json:"status"`
	SingleReplica bool   `doc:"Whether the ledger is kept on one broker only: a lost disk loses it." json:"single_replica"`
}

type healthOutput struct{ Body Health }

// health answers GET /healthz.
func (a *API) health(context.Context, *struct{}) (*healthOutput, error) {
	return &healthOutput{Body: Health{Status: "ok", SingleReplica: a.cfg.SingleReplica}}, nil
}

// Readiness says that the process can do its work.
type Readiness struct {
	Status string `enum:"ready" json:"status"`
}

type readyOutput struct{ Body Readiness }

// ready answers GET /readyz.
func (a *API) ready(ctx context.Context, _ *struct{}) (*readyOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	if err := a.cfg.Ready(ctx); err != nil {
		return nil, notReady(err)
	}
	return &readyOutput{Body: Readiness{Status: "ready"}}, nil
}
