package httpapi

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"
)

// routeNothing answers for what no route takes: mux alone would do it without
// a body, and a 405 without Allow.
func (a *API) routeNothing() {
	a.router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.write(w, r, noSuchRoute())
	})
	a.router.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(a.allowed(r), ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		a.write(w, r, methodNotAllowed())
	})
}

// allowed returns the methods that the path of r takes.
func (a *API) allowed(r *http.Request) []string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		try := *r
		try.Method = method
		var match mux.RouteMatch
		if !a.router.Match(&try, &match) || match.MatchErr != nil {
			continue
		}
		methods = append(methods, method)
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return append(methods, http.MethodOptions)
}
