package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/google/uuid"
	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// defaultTenant is whose everything is while nobody authenticates.
const defaultTenant = "default"

// An Appender writes to the ledger.
type Appender interface {
	// AppendWait returns the offset of the record. An error with a method
	// Overloaded() bool that says true means that nothing was written; after
	// any other error the record may be there, now or later.
	AppendWait(ctx context.Context, msg ledger.Message) (offset int64, err error)
	// End returns an end of the partition's log, at most about a second old.
	End(ctx context.Context, partition int32) (int64, error)
}

// Config is what an [API] needs.
type Config struct {
	Store      *readmodel.Store // required
	Appender   Appender         // required
	Catalog    *catalog.Catalog // nil: no types but KnownTypes, no templates
	KnownTypes []string         // types served by handlers in Go, with the ledger's defaults unless the catalog has them
	LedgerID   uuid.UUID        // required, as are the next two: the ledger's genesis
	Partitions int32
	Window     int64
	// Hosts are the names, in lower case, by which the API may be called beside
	// IP addresses and localhost.
	Hosts []string
	// OutcomeKey checks the tokens with which outcomes are reported from outside;
	// the executors sign with it. Nil: none are taken.
	OutcomeKey *outcometoken.Key
	// SingleReplica makes the health answer say that a lost disk loses the ledger.
	SingleReplica bool
	Logger        *slog.Logger                // required
	Registerer    prometheus.Registerer       // required
	Gatherer      prometheus.Gatherer         // required: what /metrics shows
	Ready         func(context.Context) error // default: the Store's
}

// An API answers HTTP requests. It is safe for concurrent use.
type API struct {
	cfg     Config
	store   *readmodel.Store
	append  Appender
	logger  *slog.Logger
	metrics *metrics
	known   map[string]bool
	source  string // ce_source of its records
	router  *mux.Router
	huma    huma.API
	handler http.Handler
	// progressFails: the last try to read progress failed.
	progressFails atomic.Bool
}

// New returns an API. It starts nothing.
func New(cfg Config) (*API, error) {
	switch {
	case cfg.Store == nil, cfg.Appender == nil, cfg.Logger == nil, cfg.Registerer == nil, cfg.Gatherer == nil:
		return nil, errors.New("httpapi: Store, Appender, Logger, Registerer and Gatherer are required")
	case cfg.LedgerID == uuid.Nil, cfg.Partitions <= 0, cfg.Window <= 0:
		return nil, errors.New("httpapi: LedgerID, Partitions and Window are required")
	}
	if cfg.Ready == nil {
		cfg.Ready = cfg.Store.Ready
	}
	return build(cfg)
}

// build also makes the API that only describes itself.
func build(cfg Config) (*API, error) {
	if cfg.Catalog == nil {
		cfg.Catalog = &catalog.Catalog{}
	}
	a := &API{
		cfg: cfg, store: cfg.Store, append: cfg.Appender, logger: cfg.Logger,
		known:  make(map[string]bool, len(cfg.KnownTypes)),
		source: ledger.Source(cfg.LedgerID, "api"),
		router: mux.NewRouter().SkipClean(true),
	}
	for _, name := range cfg.KnownTypes {
		a.known[name] = true
	}
	a.huma = humamux.New(a.router, humaConfig())
	a.huma.UseMiddleware(a.checkParameters)
	a.routeCollections()
	a.routeOutcome()
	a.routeOutput()
	a.routeStatus()
	if err := a.documentTemplates(); err != nil {
		return nil, err
	}
	if cfg.Registerer == nil {
		return a, nil
	}
	var err error
	if a.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	if err := a.routeDocument(); err != nil {
		return nil, err
	}
	a.router.Handle("/metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{})).Methods(http.MethodGet)
	a.routeNothing()
	a.handler = a.middleware(a.router)
	return a, nil
}

// Handler returns the API with everything around it: problems for unknown
// routes, request ids, metrics, security headers, recovery.
func (a *API) Handler() http.Handler { return a.handler }

// register adds an operation. What its handler returns as an error is answered
// as a problem; codes are those it can have beside the ones every operation of
// its shape has.
func register[I, O any](a *API, op huma.Operation, codes []string, handler func(context.Context, *I) (*O, error)) {
	body := op.RequestBody
	op.RequestBody = nil // huma would validate it: see readBody
	if body != nil {
		codes = append(slices.Clone(codes), codeMalformed, codeTooLarge, codeMediaType, codeBodyTimeout, codeCrossOrigin)
		op.Middlewares = append(op.Middlewares, a.readBody(body.Required))
	}
	op.Responses = a.problemResponses(append(codes, codeInvalid, codeInternal), op.Responses)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
	a.documented(op.Method, op.Path).RequestBody = body
}

// documented returns an operation in the OpenAPI document.
func (a *API) documented(method, path string) *huma.Operation {
	item := a.huma.OpenAPI().Paths[path]
	if method == http.MethodPost {
		return item.Post
	}
	return item.Get
}
