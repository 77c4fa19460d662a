package httpapi_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
)

// one is the body of a create with one task whose members are given.
func one(members string) string { return `{"name":"n","tasks":[{"name":"a",` + members + `}]}` }

func many(n int) string {
	tasks := make([]string, n)
	for i := range tasks {
		tasks[i] = `{"name":"t` + strconv.Itoa(i) + `","type":"` + typeGo + `"}`
	}
	return `{"name":"n","tasks":[` + strings.Join(tasks, ",") + `]}`
}

func at(path, message string) httpapi.FieldError {
	return httpapi.FieldError{Path: path, Message: message}
}

// nothingIsAppended fails the test if its subtests write anything.
func (e *env) nothingIsAppended(t *testing.T) {
	t.Helper()
	before := len(e.records(t, t.Context()))
	t.Cleanup(func() { // when the subtests are done
		require.Len(t, e.records(t, context.WithoutCancel(t.Context())), before, "something was appended")
	})
}

// What the ledger would refuse, or could be misread, is refused before anything
// is appended, with a stable code and the place.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	e := setup(t)
	const collections, template = "/v1/collections", "/v1/templates/request-certificate"
	deep := strings.Repeat("[", 65) + strings.Repeat("]", 65)
	goType := `"type":"` + typeGo + `"`
	tests := map[string]struct {
		path, body string
		status     int
		code       string
		errors     []httpapi.FieldError
	}{
		"unknown type":        {collections, one(`"type":"dns.push"`), 422, "unknown_type", []httpapi.FieldError{at("/tasks/0/type", `there is no task type "dns.push"`)}},
		"missing type":        {collections, one(`"args":{}`), 422, "unknown_type", []httpapi.FieldError{at("/tasks/0/type", `there is no task type ""`)}},
		"empty chain":         {collections, `{"name":"n","tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/tasks", "has 0 entries, want 1 to 200")}},
		"no chain":            {collections, `{"name":"n"}`, 422, "invalid_request", []httpapi.FieldError{at("/tasks", "has 0 entries, want 1 to 200")}},
		"too many tasks":      {collections, many(201), 422, "invalid_request", []httpapi.FieldError{at("/tasks", "has 201 entries, want 1 to 200")}},
		"no name":             {collections, `{"tasks":[{"name":"a",` + goType + `}]}`, 422, "invalid_request", []httpapi.FieldError{at("/name", "is empty")}},
		"long name":           {collections, `{"name":"` + strings.Repeat("n", 201) + `","tasks":[{"name":"a",` + goType + `}]}`, 422, "invalid_request", []httpapi.FieldError{at("/name", "is 201 bytes long, at most 200 are allowed")}},
		"name with U+0000":    {collections, `{"name":"a\u0000b","tasks":[{"name":"a",` + goType + `}]}`, 422, "invalid_request", []httpapi.FieldError{at("/name", "contains U+0000")}},
		"nameless task":       {collections, `{"name":"n","tasks":[{` + goType + `}]}`, 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/name", "is empty")}},
		"name there twice":    {collections, `{"name":"n","tasks":[{"name":"a",` + goType + `},{"name":"a",` + goType + `}]}`, 422, "invalid_request", []httpapi.FieldError{at("/tasks/1/name", `"a" is there twice`)}},
		"args with U+0000":    {collections, one(goType + `,"args":{"k":["\u0000"]}`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args/k/0", "contains U+0000")}},
		"a lone surrogate":    {collections, one(goType + `,"args":{"k":"\udc00"}`), 400, "malformed_json", []httpapi.FieldError{at("/tasks/0/args/k", "is not valid JSON")}},
		"a huge number":       {collections, one(`"type":"once"` + `,"args":{"k":1e400}`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args/k", "is a number with an exponent outside -300 to 300")}},
		"a long number":       {collections, one(goType + `,"args":` + strings.Repeat("9", 401)), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args", "is a number of more than 400 bytes")}},
		"deep args":           {collections, one(`"type":"once"` + `,"args":` + deep), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args"+strings.Repeat("/0", 64), "is nested deeper than 64 levels")}},
		"large args":          {collections, one(`"type":"once"` + `,"args":"` + strings.Repeat("x", 256<<10) + `"`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args", "is 262146 bytes long, at most 262144 are allowed")}},
		"args of other shape": {collections, one(`"type":"certificate.key","args":{"domain":"x","more":1}`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args/domain", "minLength: got 1, want 3"), at("/tasks/0/args/more", "is not a known property")}},
		"missing args":        {collections, one(`"type":"certificate.key"`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args/domain", "is required")}},
		"large definitions": {
			collections, `{"name":"n","tasks":[{"name":"a",` + goType + `,"args":"` + strings.Repeat("x", 230<<10) + `"},{"name":"b",` + goType + `,"args":"` + strings.Repeat("x", 230<<10) + `"}]}`,
			422, "invalid_request", nil,
		},
		"a queue without a name":  {collections, one(goType + `,"queue":""`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/queue", "is empty")}},
		"a queue's name too long": {collections, one(goType + `,"queue":"` + strings.Repeat("q", 256) + `"`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/queue", "is 256 bytes long, at most 255 are allowed")}},
		"no attempts":             {collections, one(goType + `,"max_attempts":0`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/max_attempts", "is 0, want 1 to 1000")}},
		"attempts of a fail task": {collections, one(`"type":"once","max_attempts":2`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/max_attempts", "is 2, on_interrupt fail requires 1")}},
		"a timeout of zero":       {collections, one(goType + `,"timeout_ms":0`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/timeout_ms", "is 0, want 1 to 86400000")}},
		"a long description":      {collections, one(goType + `,"description":"` + strings.Repeat("x", 4097) + `"`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/description", "is 4097 bytes long, at most 4096 are allowed")}},
		"several errors": {collections, `{"name":"n","tasks":[{"name":"a","type":"x"},{"name":"b","type":"certificate.key"}]}`, 422, "unknown_type", []httpapi.FieldError{
			at("/tasks/0/type", `there is no task type "x"`), at("/tasks/1/args/domain", "is required"),
		}},
		"a label that is too long": {collections, `{"name":"n","labels":{"` + strings.Repeat("k", 64) + `":"v"},"tasks":[{"name":"a",` + goType + `}]}`, 422, "invalid_request", nil},
		"half a document":          {collections, `{"name":"n"`, 400, "malformed_json", []httpapi.FieldError{{Location: "body", Message: "is not valid JSON"}}},
		"no document":              {collections, ``, 400, "malformed_json", nil},
		"two documents":            {collections, chain(1) + chain(1), 400, "malformed_json", nil},
		"an array":                 {collections, `[]`, 422, "invalid_request", []httpapi.FieldError{{Location: "body", Message: "must be an object"}}},
		"an unknown field":         {collections, `{"name":"n","callback_url":"http://x","tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/callback_url", "is not a known member")}},
		"a field of later":         {collections, `{"name":"n","ordering_key":"x","tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/ordering_key", "is not a known member")}},
		"an unknown task field":    {collections, one(goType + `,"queues":"x"`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/queues", "is not a known member")}},
		"a field in another case":  {collections, `{"Name":"n","tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/Name", "is not a known member")}},
		"a duplicate key":          {collections, `{"name":"n","name":"m","tasks":[]}`, 400, "malformed_json", []httpapi.FieldError{at("/name", "is there twice")}},
		"a duplicate key in args":  {collections, one(goType + `,"args":{"k":1,"k":1}`), 400, "malformed_json", []httpapi.FieldError{at("/tasks/0/args/k", "is there twice")}},
		"a wrong type":             {collections, `{"name":1,"tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/name", "must be a string")}},
		"a null":                   {collections, `{"name":"n","description":null,"tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/description", "must not be null")}},

		"domain with U+0000":         {collections, one(`"type":"certificate.key","args":{"domain":"a\u0000b"}`), 422, "invalid_request", []httpapi.FieldError{at("/tasks/0/args/domain", "contains U+0000")}},
		"an unknown template":        {"/v1/templates/none", `{}`, 404, "unknown_template", nil},
		"a template without input":   {template, `{}`, 422, "invalid_request", []httpapi.FieldError{at("/input/domain", "is required")}},
		"input of another shape":     {template, `{"input":{"domain":1}}`, 422, "invalid_request", nil},
		"input that is null":         {template, `{"input":null}`, 422, "invalid_request", nil},
		"input with U+0000":          {template, `{"input":{"domain":"a\u0000b"}}`, 422, "invalid_request", []httpapi.FieldError{at("/input/domain", "contains U+0000")}},
		"tasks beside a template":    {template, `{"input":{"domain":"shop"},"tasks":[]}`, 422, "invalid_request", []httpapi.FieldError{at("/tasks", "is not a known member")}},
		"a retry's run of zero":      {retryPath(someID()), `{"run":0}`, 422, "invalid_request", []httpapi.FieldError{at("/run", "must be at least 1")}},
		"a retry's run as text":      {retryPath(someID()), `{"run":"1"}`, 422, "invalid_request", []httpapi.FieldError{at("/run", "must be an integer")}},
		"a retry with a dry run":     {retryPath(someID()), `{"dry_run":true}`, 422, "invalid_request", []httpapi.FieldError{at("/dry_run", "is not a known member")}},
		"a retry with a long reason": {retryPath(someID()), `{"reason":"` + strings.Repeat("x", 4097) + `"}`, 422, "invalid_request", []httpapi.FieldError{at("/reason", "is 4097 bytes long, at most 4096 are allowed")}},
	}
	e.nothingIsAppended(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.call(t, http.MethodPost, tt.path, tt.body, "Content-Type", "application/json").problem(t, tt.status, tt.code)
			if tt.errors != nil {
				require.Equal(t, tt.errors, p.Errors)
			}
		})
	}
}

// What is around the body is checked as well.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	e := setup(t)
	id := someID().String()
	tests := map[string]struct {
		method, path, body string
		header             []string
		status             int
		code, location     string
	}{
		"a form":                     {http.MethodPost, "/v1/collections", "name=n", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type", ""},
		"text":                       {http.MethodPost, "/v1/collections", chain(1), []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", ""},
		"another charset":            {http.MethodPost, "/v1/collections", chain(1), []string{"Content-Type", "application/json; charset=latin1"}, 415, "unsupported_media_type", ""},
		"compressed":                 {http.MethodPost, "/v1/collections", chain(1), []string{"Content-Encoding", "gzip"}, 415, "unsupported_media_type", ""},
		"a body over 1 MiB":          {http.MethodPost, "/v1/collections", strings.Repeat(" ", 1<<20) + "{", nil, 413, "body_too_large", ""},
		"a long key":                 {http.MethodPost, "/v1/collections", chain(1), []string{"Idempotency-Key", strings.Repeat("k", 256)}, 422, "invalid_request", "header.Idempotency-Key"},
		"an empty key":               {http.MethodPost, "/v1/collections", chain(1), []string{"Idempotency-Key", ""}, 422, "invalid_request", "header.Idempotency-Key"},
		"two keys":                   {http.MethodPost, "/v1/collections", chain(1), []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 422, "invalid_request", "header.Idempotency-Key"},
		"a key that is not UTF-8":    {http.MethodPost, "/v1/collections", chain(1), []string{"Idempotency-Key", "\xff"}, 422, "invalid_request", "header.Idempotency-Key"},
		"a page of another origin":   {http.MethodPost, "/v1/collections", chain(1), []string{"Origin", "https://evil.example"}, 403, "cross_origin", ""},
		"a query on a POST":          {http.MethodPost, "/v1/collections?dry_run=true", chain(1), nil, 422, "invalid_request", "query.dry_run"},
		"an unknown parameter":       {http.MethodGet, "/v1/collections?statu=failed", "", nil, 422, "invalid_request", "query.statu"},
		"an unknown status":          {http.MethodGet, "/v1/collections?status=broken", "", nil, 422, "invalid_request", "query.status[0]"},
		"a parameter that is empty":  {http.MethodGet, "/v1/collections?name=", "", nil, 422, "invalid_request", "query.name"},
		"a parameter there twice":    {http.MethodGet, "/v1/collections?limit=1&limit=2", "", nil, 422, "invalid_request", "query.limit"},
		"a limit of zero":            {http.MethodGet, "/v1/collections?limit=0", "", nil, 422, "invalid_request", "query.limit"},
		"a limit beyond all bounds":  {http.MethodGet, "/v1/collections?limit=501", "", nil, 422, "invalid_request", "query.limit"},
		"a query that breaks off":    {http.MethodGet, "/v1/collections?name=%zz", "", nil, 422, "invalid_request", "query"},
		"a cursor of somewhere else": {http.MethodGet, "/v1/collections?cursor=abc", "", nil, 422, "invalid_request", "query.cursor"},
		"a label without a name":     {http.MethodGet, "/v1/collections?label=x", "", nil, 422, "invalid_request", "query.label"},
		"a label with two values":    {http.MethodGet, "/v1/collections?label=a:1&label=a:2", "", nil, 422, "invalid_request", "query.label"},
		"a label with U+0000":        {http.MethodGet, "/v1/collections?label=a:%00", "", nil, 422, "invalid_request", "query.label"},
		"a name with U+0000":         {http.MethodGet, "/v1/collections?name=a%00", "", nil, 422, "invalid_request", "query.name"},
		"a type that is not UTF-8":   {http.MethodGet, "/v1/collections?failed_type=%ff", "", nil, 422, "invalid_request", "query.failed_type"},
		"a time that is none":        {http.MethodGet, "/v1/collections?created_after=yesterday", "", nil, 422, "invalid_request", "query.created_after"},
		"a collection that is none":  {http.MethodGet, "/v1/collections/abc", "", nil, 422, "invalid_request", "path.id"},
		"a uuid in braces":           {http.MethodGet, "/v1/collections/%7B" + id + "%7D", "", nil, 422, "invalid_request", "path.id"},
		"a retry of abc":             {http.MethodPost, "/v1/collections/abc/retry", "{}", nil, 422, "invalid_request", "path.id"},
		"a task that is none":        {http.MethodGet, "/v1/collections/" + id + "/tasks/1", "", nil, 422, "invalid_request", "path.task"},
		"a command that is none":     {http.MethodGet, "/v1/commands/1", "", nil, 422, "invalid_request", "path.event_id"},
		"an unknown collection":      {http.MethodGet, "/v1/collections/" + id, "", nil, 404, "not_found", ""},
		"an unknown task":            {http.MethodGet, "/v1/collections/" + id + "/tasks/" + id, "", nil, 404, "not_found", ""},
		"an unknown command":         {http.MethodGet, "/v1/commands/" + id, "", nil, 404, "not_found", ""},
		"a wait without a unit":      {http.MethodGet, "/v1/collections/" + id + "?wait=30", "", nil, 422, "invalid_request", "query.wait"},
		"a wait that is too long":    {http.MethodGet, "/v1/collections/" + id + "?wait=61s", "", nil, 422, "invalid_request", "query.wait"},
		"a negative wait":            {http.MethodGet, "/v1/collections/" + id + "?wait=-1s", "", nil, 422, "invalid_request", "query.wait"},
		"a position of no ledger":    {http.MethodGet, "/v1/collections/" + id, "", []string{"Keten-At-Least", "3:1"}, 422, "invalid_request", "header.Keten-At-Least"},
		"a position that is none":    {http.MethodGet, "/v1/positions", "", []string{"Keten-At-Least", "0:-1"}, 422, "invalid_request", "header.Keten-At-Least"},
		"a position with a sign":     {http.MethodGet, "/v1/collections", "", []string{"Keten-At-Least", "+0:1"}, 422, "invalid_request", "header.Keten-At-Least"},
		"no such path":               {http.MethodGet, "/v1/nothing", "", nil, 404, "no_such_route", ""},
		"a doubled slash":            {http.MethodGet, "/v1//collections", "", nil, 404, "no_such_route", ""},
		"a slash within an id":       {http.MethodGet, "/v1/collections/a%2Fb", "", nil, 404, "no_such_route", ""},
		"cancel, which comes later":  {http.MethodPost, "/v1/collections/" + id + "/cancel", "{}", nil, 404, "no_such_route", ""},
		"a method nobody takes":      {http.MethodDelete, "/v1/collections/" + id, "", nil, 405, "method_not_allowed", ""},
	}
	e.nothingIsAppended(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.call(t, tt.method, tt.path, tt.body, tt.header...).problem(t, tt.status, tt.code)
			if tt.location != "" {
				require.Len(t, p.Errors, 1)
				require.Equal(t, tt.location, p.Errors[0].Location)
				require.NotEmpty(t, p.Errors[0].Message)
			}
		})
	}
}

// A sender that stalls, or goes away in the middle, writes nothing.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	e := setup(t)
	before := len(e.records(t, t.Context()))
	address := strings.TrimPrefix(e.url, "http://")
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /v1/collections HTTP/1.1\r\nHost: "+address+
		"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nnot a size\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")), "%s", answer)
	require.Contains(t, string(answer), `"code":"malformed_json"`)
	require.Len(t, e.records(t, t.Context()), before)
}

// A body of exactly 1 MiB is read.
func TestLargestBody(t *testing.T) {
	t.Parallel()
	e := setup(t)
	body := chain(1)
	body += strings.Repeat(" ", 1<<20-len(body))
	e.call(t, http.MethodPost, "/v1/collections", body).collection(t, http.StatusAccepted)
}
