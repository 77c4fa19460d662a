package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/keten-ledger/keten/ledger"
)

// Names of headers.
const (
	headerRequestID      = "X-Request-Id"
	headerIdempotencyKey = "Idempotency-Key"
	headerAtLeast        = "Keten-At-Least"
	headerPosition       = "Keten-Position"
)

// A requestInfo is what the layers of one request tell each other. One
// goroutine at a time holds it.
type requestInfo struct {
	id          string
	address     string // of the client, without port
	traceparent string // "" unless a valid one was sent
	route       string // template of the matched route, for metrics
	body        []byte // set by readBody
}

type requestInfoKey struct{}

// infoOf returns the request's info; a request that came past the middleware
// has an empty one.
func infoOf(ctx context.Context) *requestInfo {
	if info, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return info
	}
	return &requestInfo{}
}

func (i *requestInfo) actor() ledger.Actor {
	return ledger.Actor{Kind: "anonymous", Address: i.address, RequestID: i.id}
}

var (
	// What a client may choose as a request id: it is logged and stored.
	requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	// W3C trace context, version 00, with a trace and a parent.
	traceparentPattern = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
)

func newRequestInfo(r *http.Request) *requestInfo {
	info := &requestInfo{id: r.Header.Get(headerRequestID), address: r.RemoteAddr}
	if !requestIDPattern.MatchString(info.id) {
		info.id = uuid.NewString()
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		info.address = host
	}
	if t := r.Header.Get("Traceparent"); traceparentPattern.MatchString(t) {
		info.traceparent = t
	}
	return info
}

// middleware puts around the router what holds for every request.
func (a *API) middleware(router *mux.Router) http.Handler {
	router.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if route := mux.CurrentRoute(r); route != nil {
				infoOf(r.Context()).route, _ = route.GetPathTemplate()
			}
			next.ServeHTTP(w, r)
		})
	})
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.write(w, r, crossOrigin())
	}))
	return a.observe(securityHeaders(a.knownHost(origin.Handler(head(router)))))
}

// knownHost refuses requests for names that are not ours. As long as nobody is
// authenticated, being on this machine is all that protects the API, and a page
// in a browser here whose name is made to point to this machine (DNS rebinding)
// looks like one of our own to every other check. Health and metrics are left
// out: they are asked by whatever name the network has for this process.
func (a *API) knownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
		default:
			if !a.isKnownHost(r.Host) {
				a.write(w, r, unknownHost())
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) isKnownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return host == "localhost" || net.ParseIP(host) != nil || slices.Contains(a.cfg.Hosts, host)
}

// observe gives a request its id, counts and logs it, and turns a panic into a
// problem.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		info := newRequestInfo(r)
		r = r.WithContext(context.WithValue(r.Context(), requestInfoKey{}, info))
		sw := &statusWriter{ResponseWriter: w}
		sw.Header().Set(headerRequestID, info.id)
		defer func() { //nolint:contextcheck // the request's own is used
			took := time.Since(start)
			status := sw.status
			if status == 0 {
				status = http.StatusOK
			}
			a.metrics.observe(r.Method, info.route, status, took)
			a.logger.DebugContext(r.Context(), "request answered",
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("route", info.route),
				slog.Int("status", status), slog.Duration("took", took), slog.String("request_id", info.id))
		}()
		defer a.recover(sw, r)
		next.ServeHTTP(sw, r)
	})
}

// recover answers for a handler that panicked. A panic after the header was
// written is, as a rule, a client that went away while huma wrote to it.
func (a *API) recover(w *statusWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	if w.status != 0 {
		a.logger.WarnContext(r.Context(), "answer was cut short", slog.String("panic", fmt.Sprint(p)),
			slog.String("request_id", infoOf(r.Context()).id))
		return
	}
	a.logger.ErrorContext(r.Context(), "request handler panicked", slog.String("panic", fmt.Sprint(p)),
		slog.String("stack", string(debug.Stack())), slog.String("request_id", infoOf(r.Context()).id))
	a.write(w, r, internal())
}

func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// head answers HEAD as GET without its body: mux would refuse the method.
func head(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			get := *r
			get.Method = http.MethodGet
			w, r = &bodiless{ResponseWriter: w}, &get
		}
		next.ServeHTTP(w, r)
	})
}

// bodiless drops the body of an answer.
type bodiless struct{ http.ResponseWriter }

func (w *bodiless) Write(b []byte) (int, error) { return len(b), nil }

// Unwrap lets [http.ResponseController] reach the connection.
func (w *bodiless) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int // 0 until the header is written
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
