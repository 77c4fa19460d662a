package httpapi

import (
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/gorilla/mux"
	"github.com/swaggest/swgui/v5/static"
)

// docsPolicy lets the docs page run its own scripts and ask this server,
// nothing else; the viewer sets styles inline.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsPage is the page around Swagger UI, whose files come with their module:
// nothing is loaded from elsewhere.
//
//go:embed docs
var docsPage embed.FS

// routeDocument serves the OpenAPI document and the page that shows it.
func (a *API) routeDocument() error {
	jsonDoc, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return fmt.Errorf("render OpenAPI: %w", err)
	}
	yamlDoc, err := a.huma.OpenAPI().YAML()
	if err != nil {
		return fmt.Errorf("render OpenAPI: %w", err)
	}
	a.router.Handle("/openapi.json", serveBytes("application/openapi+json", jsonDoc)).Methods(http.MethodGet)
	a.router.Handle("/openapi.yaml", serveBytes("application/openapi+yaml", yamlDoc)).Methods(http.MethodGet)
	page, err := docsPage.ReadFile("docs/index.html")
	if err != nil {
		return fmt.Errorf("read the docs page: %w", err)
	}
	a.router.Handle("/docs", docsHeaders(serveBytes("text/html; charset=utf-8", page))).Methods(http.MethodGet)
	a.router.Handle("/docs/{file}", docsHeaders(http.HandlerFunc(a.docsFile))).Methods(http.MethodGet)
	return nil
}

func serveBytes(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // a client that is gone misses nothing
	})
}

func docsHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", docsPolicy)
		w.Header().Set("Cache-Control", "max-age=3600")
		next.ServeHTTP(w, r)
	})
}

// docsFile serves a file of the docs page or of Swagger UI.
func (a *API) docsFile(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["file"]
	body, zipped, err := openDocsFile(name)
	if err != nil || name == "index.html" {
		w.Header().Set("Cache-Control", "no-store")
		a.write(w, r, noSuchRoute())
		return
	}
	defer func() { _ = body.Close() }()
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	w.Header().Set("Vary", "Accept-Encoding")
	var from io.Reader = body
	switch {
	case zipped && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		w.Header().Set("Content-Encoding", "gzip")
	case zipped:
		if from, err = gzip.NewReader(body); err != nil {
			a.write(w, r, a.problem(r.Context(), err))
			return
		}
	}
	_, _ = io.Copy(w, from) //nolint:gosec // the files are our own; a client that is gone misses nothing
}

// openDocsFile finds a file; most of Swagger UI's are there zipped only.
func openDocsFile(name string) (body fs.File, zipped bool, err error) {
	if body, err = docsPage.Open("docs/" + name); err == nil {
		return body, false, nil
	}
	if body, err = static.FS.Open(name); err == nil {
		return body, false, nil
	}
	body, err = static.FS.Open(name + ".gz")
	return body, true, err
}
