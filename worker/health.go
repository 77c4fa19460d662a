package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/internal/outcometoken"
)

// Bounds of the HTTP server: they keep slow or stuck clients from holding
// connections.
const (
	headerTimeout = 5 * time.Second
	answerTimeout = 30 * time.Second
	readyTimeout  = 3 * time.Second
	drainTimeout  = 2 * time.Second
)

// worker is what health is asked of.
type worker struct {
	cfg        Config
	outcomeKey *outcometoken.Key // nil for none

	mu       sync.Mutex
	log      *eventlog.Log // nil until it is open
	executor *executor.Executor
	why      error // it is not open
}

func (w *worker) up(log *eventlog.Log, x *executor.Executor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log, w.executor, w.why = log, x, nil
}

func (w *worker) notYet(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = why
}

// ready returns what keeps the process from doing its work, nil for nothing.
func (w *worker) ready(ctx context.Context) error {
	w.mu.Lock()
	log, x, why := w.log, w.executor, w.why
	w.mu.Unlock()
	if log == nil {
		return errors.Join(errors.New("the ledger is not open yet"), why)
	}
	return errors.Join(log.Ready(ctx), x.Ready())
}

func (w *worker) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.cfg.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "ok") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := w.ready(ctx); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, "ok")
	})
	return mux
}

// serve answers until ctx ends.
func (w *worker) serve(ctx context.Context, listener net.Listener) error {
	srv := &http.Server{
		Handler: w.handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout,
		IdleTimeout: answerTimeout, ErrorLog: slog.NewLogLogger(w.cfg.Logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		_ = srv.Shutdown(drain) // who is still being answered then is of no matter
		_ = srv.Close()
	}()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	<-stopped
	return nil
}
