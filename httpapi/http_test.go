package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/schemas"
)

// HEAD is GET without the body, OPTIONS names the methods, and so does a 405.
func TestMethods(t *testing.T) {
	t.Parallel()
	e := setup(t)
	c := e.create(t, chain(1))
	one := "/v1/collections/" + c.ID.String()
	get, head := e.call(t, http.MethodGet, one, ""), e.call(t, http.MethodHead, one, "")
	require.Equal(t, http.StatusOK, head.status)
	require.Empty(t, head.body)
	require.Equal(t, get.header.Get("Content-Type"), head.header.Get("Content-Type"))
	require.Equal(t, get.header.Get("Keten-Position"), head.header.Get("Keten-Position"))
	require.Equal(t, http.StatusNotFound, e.call(t, http.MethodHead, "/v1/collections/"+someID().String(), "").status)

	for path, allow := range map[string]string{
		"/v1/collections":               "GET, HEAD, POST, OPTIONS",
		one:                             "GET, HEAD, OPTIONS",
		one + "/retry":                  "POST, OPTIONS",
		"/v1/templates/any":             "POST, OPTIONS",
		"/metrics":                      "GET, HEAD, OPTIONS",
		"/docs":                         "GET, HEAD, OPTIONS",
		one + "/tasks/" + c.ID.String(): "GET, HEAD, OPTIONS",
	} {
		r := e.call(t, http.MethodDelete, path, "")
		r.problem(t, http.StatusMethodNotAllowed, "method_not_allowed")
		require.Equal(t, allow, r.header.Get("Allow"), path)
		r = e.call(t, http.MethodOptions, path, "")
		require.Equal(t, http.StatusNoContent, r.status)
		require.Equal(t, allow, r.header.Get("Allow"), path)
	}
}

// Every answer has a request id and says how browsers must treat it.
func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	e := setup(t)
	for _, path := range []string{"/v1/collections", "/v1/nothing", "/healthz", "/metrics", "/v1/collections?x=1"} {
		r, err := e.send(t.Context(), http.MethodGet, e.url+path, "", "X-Request-Id", "mine.1")
		require.NoError(t, err)
		require.Equal(t, "mine.1", r.header.Get("X-Request-Id"))
		require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Contains(t, r.header.Get("Content-Security-Policy"), "default-src 'none'")
		r, err = e.send(t.Context(), http.MethodGet, e.url+path, "", "X-Request-Id", "bad\tid")
		require.NoError(t, err)
		require.Len(t, r.header.Get("X-Request-Id"), 36)
	}
}

// Requests are counted by route, never by id.
func TestMetrics(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.call(t, http.MethodGet, "/v1/collections/"+someID().String(), "")
	e.call(t, http.MethodGet, "/v1/nothing", "")
	e.call(t, "BREW", "/v1/collections", "")
	text := string(e.fetch(t, "/metrics").body)
	require.Contains(t, text, `keten_http_requests_total{method="GET",route="/v1/collections/{id}",status="404"} 1`)
	require.Contains(t, text, `keten_http_requests_total{method="GET",route="unmatched",status="404"} 1`)
	require.Contains(t, text, `keten_http_requests_total{method="other",route="unmatched",status="405"} 1`)
	require.Contains(t, text, `keten_http_request_duration_seconds_count{method="GET",route="/v1/collections/{id}"} 1`)
	families, err := e.metrics.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Health is about the process, readiness about what it needs.
func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	e := setup(t, func(s *settings) {
		s.ready = func(context.Context) error { return errors.Join(errors.New("no broker"), errors.New("no database")) }
	})
	require.JSONEq(t, `{"status":"ok","single_replica":true}`, string(e.call(t, http.MethodGet, "/healthz", "").body))
	p := e.call(t, http.MethodGet, "/readyz", "").problem(t, http.StatusServiceUnavailable, "not_ready")
	require.Equal(t, "no broker; no database", p.Detail)

	api, _ := e.newAPI(t, e.store, settings{}) // by default the read model decides
	recorder := httptest.NewRecorder()
	api.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	require.JSONEq(t, `{"status":"ready"}`, recorder.Body.String())
}

// A handler that panics answers a problem, and the server goes on.
func TestPanicIsAProblem(t *testing.T) {
	t.Parallel()
	e := setup(t, func(s *settings) { s.ready = func(context.Context) error { panic("broken") } })
	p := e.call(t, http.MethodGet, "/readyz", "").problem(t, http.StatusInternalServerError, "internal")
	require.NotContains(t, p.Detail, "broken")
	require.Equal(t, http.StatusOK, e.call(t, http.MethodGet, "/healthz", "").status)
}

// The document is served in both forms, with the templates of the catalog,
// whose input schemas hold together within it.
func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	e := setup(t)
	r := e.fetch(t, "/openapi.json")
	require.Equal(t, "application/openapi+json", r.header.Get("Content-Type"))
	var doc map[string]any
	r.into(t, &doc)
	require.Equal(t, "3.1.0", doc["openapi"])
	require.NotNil(t, member(doc, "paths", "/v1/templates/request-certificate", "post"))
	yaml := e.fetch(t, "/openapi.yaml")
	want, err := httpapi.OpenAPI(e.types)
	require.NoError(t, err)
	require.Equal(t, string(want), string(yaml.body))

	schema := e.doc.compile(t, "#/paths/~1v1~1templates~1request-certificate/post/requestBody/content/application~1json/schema")
	require.NoError(t, schema.Validate(map[string]any{"input": map[string]any{"domain": "shop", "default": "shop"}}))
	require.Error(t, schema.Validate(map[string]any{"input": map[string]any{"domain": "x"}}))
	require.Error(t, schema.Validate(map[string]any{"input": map[string]any{"domain": "shop", "default": "x"}}))
	require.Error(t, schema.Validate(map[string]any{"input": map[string]any{"domain": "shop"}, "tasks": []any{}}))

	create := e.doc.compile(t, "#/components/schemas/CreateRequest")
	var body any
	require.NoError(t, json.Unmarshal([]byte(chain(2)), &body))
	require.NoError(t, create.Validate(body))
	examples, ok := member(e.doc.raw, "components", "schemas", "CreateRequest", "examples").([]any)
	require.True(t, ok)
	for _, example := range examples {
		require.NoError(t, create.Validate(example))
	}
}

// The docs page works without the internet: whatever it refers to is here.
func TestDocsPageIsComplete(t *testing.T) {
	t.Parallel()
	e := setup(t)
	page := e.fetch(t, "/docs")
	require.Equal(t, "text/html; charset=utf-8", page.header.Get("Content-Type"))
	require.Contains(t, page.header.Get("Content-Security-Policy"), "script-src 'self';")
	refs := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(string(page.body), -1)
	require.GreaterOrEqual(t, len(refs), 4)
	for _, ref := range refs {
		require.True(t, strings.HasPrefix(ref[1], "/"), ref[1])
		for _, encoding := range []string{"gzip", "identity"} {
			r := e.fetch(t, ref[1], "Accept-Encoding", encoding)
			require.Equal(t, http.StatusOK, r.status, ref[1])
			require.NotEmpty(t, r.body)
			require.NotEmpty(t, r.header.Get("Content-Type"))
			zipped := strings.HasPrefix(string(r.body), "\x1f\x8b")
			require.Equal(t, r.header.Get("Content-Encoding") == "gzip", zipped, ref[1])
			require.True(t, encoding == "gzip" || !zipped)
		}
	}
	script := e.fetch(t, "/docs/swagger-ui-bundle.js", "Accept-Encoding", "identity")
	require.Contains(t, string(script.body), "SwaggerUIBundle")
	e.call(t, http.MethodGet, "/docs/nothing.js", "").problem(t, http.StatusNotFound, "no_such_route")
	e.call(t, http.MethodGet, "/docs/index.html", "").problem(t, http.StatusNotFound, "no_such_route")
}

// The committed contract is what every server has, whatever its catalog.
func TestTemplatesOnlyAddToTheContract(t *testing.T) {
	t.Parallel()
	e := setup(t)
	committed, err := schemas.FS.ReadFile("openapi.yaml")
	require.NoError(t, err)
	general := newDocument(t, nil)
	require.NotEmpty(t, committed)
	for path, item := range general.paths {
		require.Equal(t, item, e.doc.paths[path], path)
	}
	require.Len(t, e.doc.paths, len(general.paths)+1)
}

// What is missing in the configuration is said at once.
// A name that somebody else made to point here (DNS rebinding) is not ours.
func TestUnknownHostsAreRefused(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.nothingIsAppended(t)
	ask := func(host, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+path, http.NoBody)
		require.NoError(t, err)
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"} {
		require.Equal(t, http.StatusMisdirectedRequest, ask(host, "/v1/collections"), host)
		require.Equal(t, http.StatusMisdirectedRequest, ask(host, "/docs"), host)
		require.Equal(t, http.StatusOK, ask(host, "/healthz"), host)
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080", "::1"} {
		require.Equal(t, http.StatusOK, ask(host, "/v1/collections"), host)
	}
}

func TestNewNeedsItsConfig(t *testing.T) {
	t.Parallel()
	_, err := httpapi.New(httpapi.Config{})
	require.ErrorContains(t, err, "Store, Appender, Logger, Registerer and Gatherer are required")
}
