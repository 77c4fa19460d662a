package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keten-ledger/keten/internal/catalog"
)

// apiVersion is the version of the HTTP contract, not of the build.
const apiVersion = "1.0.0"

const (
	schemaPrefix = "#/components/schemas/"
	mediaJSON    = "application/json"
	mediaProblem = "application/problem+json"
)

// OpenAPI returns the OpenAPI 3.1 document in YAML. Without a catalog it is the
// contract that is the same everywhere; with one, each template is an operation
// of its own beside it.
func OpenAPI(types *catalog.Catalog) ([]byte, error) {
	a, err := build(Config{Catalog: types})
	if err != nil {
		return nil, err
	}
	doc, err := a.huma.OpenAPI().YAML()
	if err != nil {
		return nil, fmt.Errorf("render OpenAPI: %w", err)
	}
	return doc, nil
}

func humaConfig() huma.Config {
	cfg := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Keten",
				Version: apiVersion,
				Description: "Start collections of tasks, follow them, and retry the part that did not succeed.\n\n" +
					"A command is answered 202 with the collection as it was asked for. The header Keten-Verdict says whether the ledger " +
					"has accepted it already; Keten-Position, sent back as Keten-At-Least, makes a read see it. " +
					"Errors are RFC 9457 problems; programs branch on their code.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Tags: []*huma.Tag{
				{Name: "collections", Description: "Collections and their tasks."},
				{Name: "templates", Description: "Collections made from templates of the catalog."},
				{Name: "outcomes", Description: "Outcomes of tasks, reported by workers and people outside."},
				{Name: "commands", Description: "What became of a command."},
				{Name: "service", Description: "The process and its read model."},
			},
			Components: &huma.Components{SecuritySchemes: map[string]*huma.SecurityScheme{outcomeTokenScheme: {
				Type: "http", Scheme: "bearer",
				Description: "The token that the task's handler handed out, good for one attempt.",
			}}},
		},
		Formats:                      map[string]huma.Format{mediaJSON: huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                mediaJSON,
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{fromHuma},
	}
	// Answers may grow members, so their schemas stay open; requests close
	// theirs themselves.
	cfg.AllowAdditionalPropertiesByDefault = true
	return cfg
}

// problemResponses documents the problems of an operation, by status, beside
// the responses it has.
func (a *API) problemResponses(codes []string, responses map[string]*huma.Response) map[string]*huma.Response {
	out := map[string]*huma.Response{}
	maps.Copy(out, responses)
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	slices.Sort(codes)
	for _, code := range slices.Compact(codes) {
		number, title, retryAfter := describe(code)
		status := strconv.Itoa(number)
		response := out[status]
		if response == nil {
			response = &huma.Response{Content: map[string]*huma.MediaType{mediaProblem: {Schema: schema}}}
			out[status] = response
		} else {
			response.Description += "\n\n"
		}
		response.Description += "`" + code + "`: " + title + "."
		if retryAfter > 0 {
			response.Headers = map[string]*huma.Param{"Retry-After": {
				Description: "Seconds to wait before asking again.", Schema: &huma.Schema{Type: huma.TypeInteger},
			}}
		}
	}
	return out
}

// requestBody documents the body of an operation: its type's schema.
func requestBody[T any](a *API, required bool) *huma.RequestBody {
	media := &huma.MediaType{Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")}
	return &huma.RequestBody{Required: required, Content: map[string]*huma.MediaType{mediaJSON: media}}
}

func commandCodes() []string {
	return []string{codeKeyReused, codeRefused, codeOutcomeUnknown, codeOverloaded, codeUnavailable, codeBehind, codeContended, codeHistoryLost}
}

func (a *API) routeCollections() {
	register(a, huma.Operation{
		OperationID: "create-collection", Method: http.MethodPost, Path: "/v1/collections", Tags: []string{"collections"},
		Summary:       "Start a collection of tasks",
		Description:   "The tasks run strictly in order, in the background. The answer has the ids of the collection and of all tasks.",
		DefaultStatus: http.StatusAccepted,
		RequestBody:   requestBody[CreateRequest](a, true),
	}, append(commandCodes(), codeUnknownType), a.create)
	register(a, huma.Operation{
		OperationID: "create-from-template", Method: http.MethodPost, Path: "/v1/templates/{template}", Tags: []string{"templates"},
		Summary: "Start a collection from a template",
		Description: "Where the server has a catalog, its own document at /openapi.json lists every template as an operation of its own, " +
			"with the schema of its input.",
		DefaultStatus: http.StatusAccepted,
		RequestBody:   requestBody[TemplateRequest](a, true),
	}, append(commandCodes(), codeUnknownTemplate), a.createFromTemplate)
	register(a, huma.Operation{
		OperationID: "list-collections", Method: http.MethodGet, Path: "/v1/collections", Tags: []string{"collections"},
		Summary: "List collections", Description: "Newest first, with counts by status.",
	}, []string{codeUnavailable, codeBehind}, a.list)
	register(a, huma.Operation{
		OperationID: "get-collection", Method: http.MethodGet, Path: "/v1/collections/{id}", Tags: []string{"collections"},
		Summary: "Show a collection with its tasks", Description: "With wait, answers when the last run has ended, or after that time with what there is.",
	}, []string{codeNotFound, codeUnavailable, codeBehind}, a.get)
	register(a, huma.Operation{
		OperationID: "get-task", Method: http.MethodGet, Path: "/v1/collections/{id}/tasks/{task}", Tags: []string{"collections"},
		Summary: "Show a task with all its attempts",
	}, []string{codeNotFound, codeUnavailable, codeBehind}, a.getTask)
	register(a, huma.Operation{
		OperationID: "retry-collection", Method: http.MethodPost, Path: "/v1/collections/{id}/retry", Tags: []string{"collections"},
		Summary: "Retry what did not succeed",
		Description: "Runs the tasks from the first that has not succeeded on once more, with the same ids; results obtained so far are kept. " +
			"At most one retry of a run is ever accepted, so with run in the body it is safe to repeat. " +
			"Repeated with the same Idempotency-Key it is answered with the collection as it is now.",
		DefaultStatus: http.StatusAccepted,
		RequestBody:   requestBody[RetryRequest](a, false),
	}, append(commandCodes(), codeNotFound, codeNotRetryable, codeRunChanged), a.retry)
}

func (a *API) routeStatus() {
	register(a, huma.Operation{
		OperationID: "get-command", Method: http.MethodGet, Path: "/v1/commands/{event_id}", Tags: []string{"commands"},
		Summary:     "Show the verdict of a command",
		Description: "404 until its record has been folded; Keten-At-Least with the command's Keten-Position waits for that.",
	}, []string{codeNotFound, codeUnavailable, codeBehind}, a.getCommand)
	register(a, huma.Operation{
		OperationID: "get-positions", Method: http.MethodGet, Path: "/v1/positions", Tags: []string{"service"},
		Summary: "Show how far the read model has got",
	}, []string{codeUnavailable, codeBehind}, a.positions)
	register(a, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/healthz", Tags: []string{"service"},
		Summary: "Say that the process answers",
	}, nil, a.health)
	register(a, huma.Operation{
		OperationID: "get-readiness", Method: http.MethodGet, Path: "/readyz", Tags: []string{"service"},
		Summary: "Say whether the process can do its work",
	}, []string{codeNotReady}, a.ready)
}

// documentTemplates adds an operation per template to the document. Requests to
// it are answered by the one for any template, which a document without a
// catalog shows.
func (a *API) documentTemplates() error {
	doc := a.huma.OpenAPI()
	general := a.documented(http.MethodPost, "/v1/templates/{template}")
	for _, name := range a.cfg.Catalog.TemplateNames() {
		template, _ := a.cfg.Catalog.Template(name)
		input, err := a.inputSchema(name, template.InputSchemaJSON())
		if err != nil {
			return err
		}
		op := *general
		op.OperationID, op.Path = "create-"+name, "/v1/templates/"+name
		op.Summary, op.Description = "Start "+name, template.Description
		op.Parameters = slices.DeleteFunc(slices.Clone(general.Parameters), func(p *huma.Param) bool { return p.In == "path" })
		body := *doc.Components.Schemas.Map()["TemplateRequest"]
		body.Properties = maps.Clone(body.Properties)
		body.Properties["input"] = input
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{mediaJSON: {Schema: &body}}}
		doc.AddOperation(&op)
	}
	return nil
}

// inputSchema puts a template's input_schema among the document's schemas.
func (a *API) inputSchema(name string, raw json.RawMessage) (*huma.Schema, error) {
	var schema any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // digits stay as the catalog has them
	if err := decoder.Decode(&schema); err != nil {
		return nil, fmt.Errorf("read the input_schema of template %s: %w", name, err)
	}
	component := "TemplateInput." + name
	members, ok := moveRefs(schema, schemaPrefix+component).(map[string]any)
	if !ok { // true or false
		members = map[string]any{"not": map[string]any{}}
		if schema == true {
			members = map[string]any{"type": "object"}
		}
	}
	a.huma.OpenAPI().Components.Schemas.Map()[component] = &huma.Schema{Extensions: members}
	return &huma.Schema{Ref: schemaPrefix + component}, nil
}

// moveRefs points the references of a schema, which start at its own top, to
// where it stands in the document. What is not a schema within it stays.
func moveRefs(v any, top string) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = moveRefs(v[i], top)
		}
	case map[string]any:
		for key, member := range v {
			v[key] = moveRef(key, member, top)
		}
	}
	return v
}

// moveRef is moveRefs for one keyword of a schema.
func moveRef(key string, v any, top string) any {
	switch key {
	case "$ref":
		if ref, ok := v.(string); ok && (ref == "#" || strings.HasPrefix(ref, "#/")) {
			return top + strings.TrimPrefix(ref, "#")
		}
	case "const", "enum", "default", "examples":
		return v
	case "properties", "patternProperties", "dependentSchemas", "$defs":
		if schemas, ok := v.(map[string]any); ok { // its keys are names, not keywords
			for name := range schemas {
				schemas[name] = moveRefs(schemas[name], top)
			}
			return v
		}
	}
	return moveRefs(v, top)
}
