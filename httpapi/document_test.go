package httpapi_test

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/internal/catalog"
)

// A document is the OpenAPI document, ready to judge answers.
type document struct {
	paths    map[string]map[string]any // by path, by method
	patterns []routePattern
	raw      any
}

type routePattern struct {
	path    string
	pattern *regexp.Regexp
}

func newDocument(t *testing.T, types *catalog.Catalog) *document {
	t.Helper()
	text, err := httpapi.OpenAPI(types)
	require.NoError(t, err)
	var doc any
	require.NoError(t, yaml.Unmarshal(text, &doc))
	asJSON, err := json.Marshal(doc)
	require.NoError(t, err)
	d := &document{paths: map[string]map[string]any{}}
	d.raw, err = jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	require.NoError(t, err)
	paths, ok := member(d.raw, "paths").(map[string]any)
	require.True(t, ok)
	for path, item := range paths {
		d.paths[path], ok = item.(map[string]any)
		require.True(t, ok, path)
		pattern := regexp.MustCompile(`\{[^/]+\}`).ReplaceAllString(path, `[^/]+`)
		d.patterns = append(d.patterns, routePattern{path, regexp.MustCompile("^" + pattern + "$")})
	}
	// Where a path without parameters fits, it is the one that is meant.
	slices.SortFunc(d.patterns, func(a, b routePattern) int {
		if n := strings.Count(a.path, "{") - strings.Count(b.path, "{"); n != 0 {
			return n
		}
		return strings.Compare(a.path, b.path)
	})
	return d
}

func member(v any, path ...string) any {
	for _, name := range path {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[name]
	}
	return v
}

func (d *document) route(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	}
	for _, p := range d.patterns {
		if p.pattern.MatchString(path) {
			return p.path
		}
	}
	return ""
}

// check fails the test unless the document knows the answer: its status, its
// content type, and a body that fits the schema.
func (d *document) check(t *testing.T, method, path string, r reply) {
	t.Helper()
	route := d.route(path)
	if method == http.MethodHead {
		return
	}
	operation := member(d.paths[route], strings.ToLower(method))
	if operation == nil {
		require.Contains(t, []int{404, 405, 204, 403}, r.status, "%s %s is not documented", method, path)
		return
	}
	status := strconv.Itoa(r.status)
	response := member(operation, "responses", status)
	require.NotNil(t, response, "%s %s: status %s is not documented: %s", method, route, status, r.body)
	mediaType, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	require.NoError(t, err)
	require.NotNil(t, member(response, "content", mediaType), "%s %s: %s is not documented", method, route, mediaType)
	if r.status >= 400 {
		var p httpapi.Problem
		require.NoError(t, json.Unmarshal(r.body, &p))
		require.Contains(t, member(response, "description"), "`"+p.Code+"`", "%s %s: the code is not documented", method, route)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace
	schema := d.compile(t, "#/paths/"+escape(route)+"/"+strings.ToLower(method)+"/responses/"+status+"/content/"+escape(mediaType)+"/schema")
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.body))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(body), "%s", r.body)
}

func (d *document) compile(t *testing.T, pointer string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	require.NoError(t, c.AddResource("openapi.json", d.raw))
	schema, err := c.Compile("openapi.json" + pointer)
	require.NoError(t, err)
	return schema
}
