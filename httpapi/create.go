package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

type createInput struct {
	CommandHeaders
}

type templateInput struct {
	CommandHeaders

	Template string `doc:"The template's name in the catalog." maxLength:"200" path:"template"`
}

// CommandHeaders are the headers that every command takes.
type CommandHeaders struct {
	Key    string `doc:"Makes the request safe to repeat: the same key with the same body gives the same collection, with another body 422. At most 255 bytes." example:"order-4711" header:"Idempotency-Key" maxLength:"255"`
	Prefer string `doc:"wait=n: wait at most n seconds (0 to 60, default 2) for the ledger's verdict." example:"wait=10" header:"Prefer"`
}

// create answers POST /v1/collections.
func (a *API) create(ctx context.Context, in *createInput) (*commandOutput, error) {
	request, err := decode[CreateRequest](ctx)
	if err != nil {
		return nil, err
	}
	d, err := a.fromTasks(request)
	if err != nil {
		return nil, err
	}
	return a.start(ctx, "POST /v1/collections", d, in.CommandHeaders)
}

// createFromTemplate answers POST /v1/templates/{template}.
func (a *API) createFromTemplate(ctx context.Context, in *templateInput) (*commandOutput, error) {
	request, err := decode[TemplateRequest](ctx)
	if err != nil {
		return nil, err
	}
	d, err := a.fromTemplate(in.Template, request)
	if err != nil {
		return nil, err
	}
	return a.start(ctx, "POST /v1/templates/"+in.Template, d, in.CommandHeaders)
}

// start creates the collection that d defines.
func (a *API) start(ctx context.Context, route string, d *definition, h CommandHeaders) (*commandOutput, error) {
	if err := ledger.CheckText("", h.Key, ledger.MaxKeyBytes); err != nil {
		return nil, badParameter("header."+headerIdempotencyKey, "%v", err)
	}
	var err error
	if d.hash, err = ledger.RequestHash(route, infoOf(ctx).body); err != nil {
		return nil, badBody("", err)
	}
	if h.Key == "" {
		return a.command(ctx, h.Prefer, func(ctx context.Context) (*proposal, *commandOutput, error) {
			return a.decideFresh(ctx, d)
		})
	}
	return a.command(ctx, h.Prefer, func(ctx context.Context) (*proposal, *commandOutput, error) {
		return a.decideKeyed(ctx, d, h.Key)
	})
}

// decideFresh proposes a collection with an id that nobody has had. Its as_of
// is a log end learned before the id exists: no record before it can be about
// the collection. The read model isn't asked, so it can be behind or away.
func (a *API) decideFresh(ctx context.Context, d *definition) (*proposal, *commandOutput, error) {
	partition := mathrand.Int32N(a.cfg.Partitions)
	asOf, err := a.logEnd(ctx, partition)
	if err != nil {
		return nil, nil, err
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, nil, fmt.Errorf("make an id: %w", err)
	}
	return a.creation(ctx, d, ledger.NewCollectionID(partition, time.Now(), random), "", asOf), nil, nil
}

// decideKeyed proposes the one collection that may exist for the key, or
// answers with it when it exists.
func (a *API) decideKeyed(ctx context.Context, d *definition, key string) (*proposal, *commandOutput, error) {
	partition, _ := ledger.PartitionFor(defaultTenant, "", key, a.cfg.Partitions)
	id := ledger.KeyedCollectionID(defaultTenant, "", key, partition)
	row, asOf, err := a.store.ForCommand(ctx, defaultTenant, id)
	if err != nil {
		return nil, nil, err
	}
	if row != nil {
		out, err := a.repeated(ctx, row, d.hash)
		return nil, out, err
	}
	if err := a.checkWindow(ctx, partition, asOf); err != nil {
		return nil, nil, err
	}
	return a.creation(ctx, d, id, key, asOf), nil, nil
}

func (a *API) creation(ctx context.Context, d *definition, id uuid.UUID, key string, asOf int64) *proposal {
	tasks := make([]ledger.Task, len(d.tasks))
	for i := range d.tasks {
		tasks[i] = d.tasks[i]
		tasks[i].ID, tasks[i].Index = ledger.TaskID(id, ledger.KindTask, i), i
	}
	actor := infoOf(ctx).actor()
	return &proposal{
		partition: ledger.PartitionOf(id),
		event: ledger.CollectionCreated{
			CollectionID: id, Tenant: defaultTenant, Name: d.name, Template: d.template, Description: d.description,
			Labels: d.labels, IdempotencyKey: key, RequestHash: d.hash, AsOf: asOf, Actor: actor, Tasks: tasks,
		},
		answer: createdCollection(&readmodel.Collection{
			ID: id, Name: d.name, Template: d.template, Description: d.description, Labels: d.labels, CreatedBy: actor,
		}, tasks),
	}
}

// repeated answers a keyed create whose collection exists, as it was answered
// the first time.
func (a *API) repeated(ctx context.Context, row *readmodel.Collection, hash string) (*commandOutput, error) {
	if row.RequestHash != hash {
		return nil, keyReused()
	}
	runs, err := a.store.Runs(ctx, defaultTenant, row.ID)
	if err != nil {
		return nil, err
	}
	tasks := make([]ledger.Task, len(row.Tasks))
	for i := range row.Tasks {
		tasks[i] = row.Tasks[i].Definition
	}
	out := &commandOutput{
		Status: http.StatusAccepted, Location: collectionPath(row.ID), Position: formatPosition(row.Position),
		Verdict: "accepted", Body: createdCollection(row, tasks),
	}
	if len(runs) > 0 {
		out.Command = runs[0].EventID.String()
	}
	return out, nil
}
