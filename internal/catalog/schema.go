package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// dialect is the one JSON Schema dialect a catalog may use.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// maxRefs bounds a walk along $ref, which may go in a circle.
const maxRefs = 32

var errNoLoading = errors.New("only references within the schema itself are possible")

// A schema is one JSON Schema of a catalog. A nil schema accepts any JSON.
type schema struct {
	raw      json.RawMessage // keys in the file's order
	compiled *jsonschema.Schema
}

// noLoader keeps the compiler from reading files or the network: what a
// catalog means depends on the catalog alone.
type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errNoLoading }

// compileSchema compiles raw, which is valid JSON.
func compileSchema(raw json.RawMessage) (*schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	const url = "catalog:///schema" // each schema has its own compiler
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	if err := c.AddResource(url, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(url)
	if err != nil {
		return nil, err
	}
	return &schema{raw: raw, compiled: compiled}, nil
}

func (s *schema) json() json.RawMessage {
	if s == nil {
		return nil
	}
	return s.raw
}

// checkJSON returns a *ValidationError unless data is JSON that fits s.
func (s *schema) checkJSON(data json.RawMessage) error {
	value, err := parseValue(data)
	if err != nil {
		return err
	}
	if violations := s.violations(value); len(violations) > 0 {
		return newValidationError(pathsOnly(violations))
	}
	return nil
}

// A located violation still knows the tokens of its path.
type located struct {
	tokens  []string
	message string
}

func pathsOnly(violations []located) []Violation {
	out := make([]Violation, len(violations))
	for i, v := range violations {
		out[i] = Violation{Path: pointerOf(v.tokens), Message: v.message}
	}
	return out
}

// violations returns what is wrong with a value that parseValue decoded.
func (s *schema) violations(value any) []located {
	if s == nil {
		return nil
	}
	err := s.compiled.Validate(value)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return []located{{message: err.Error()}}
	}
	return leaves(invalid)
}

func leaves(e *jsonschema.ValidationError) []located {
	return flatten(nil, e, message.NewPrinter(language.English))
}

// flatten appends the leaves of e: the inner nodes only say that something
// below them is wrong.
func flatten(out []located, e *jsonschema.ValidationError, p *message.Printer) []located {
	for _, cause := range e.Causes {
		out = flatten(out, cause, p)
	}
	if len(e.Causes) > 0 {
		return out
	}
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			out = append(out, located{below(at, name), "is required"})
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			out = append(out, located{below(at, name), "is not a known property"})
		}
	case *kind.Type:
		out = append(out, located{at, "is of the wrong type: " + k.LocalizedString(p)})
	default:
		out = append(out, located{at, k.LocalizedString(p)})
	}
	return out
}

func below(tokens []string, token string) []string {
	return append(slices.Clip(tokens), token)
}

// property returns every schema that describes the property called name of a
// value that s describes; none means the schema does not know it.
func property(s *jsonschema.Schema, name string) []*jsonschema.Schema {
	var found []*jsonschema.Schema
	for _, part := range parts(s, nil) {
		if p, ok := part.Properties[name]; ok {
			found = append(found, p)
		}
		for pattern, p := range part.PatternProperties {
			if pattern.MatchString(name) {
				found = append(found, p)
			}
		}
	}
	return found
}

// parts returns s and the schemas that are applied to the same value as s,
// with or without a condition. seen ends the walk in schemas that refer to
// themselves.
func parts(s *jsonschema.Schema, seen []*jsonschema.Schema) []*jsonschema.Schema {
	if slices.Contains(seen, s) {
		return seen
	}
	seen = append(seen, s)
	next := []*jsonschema.Schema{s.Ref, s.If, s.Then, s.Else}
	next = append(next, s.AllOf...)
	next = append(next, s.AnyOf...)
	next = append(next, s.OneOf...)
	for _, dependent := range s.DependentSchemas {
		next = append(next, dependent)
	}
	for _, n := range next {
		if n != nil {
			seen = parts(n, seen)
		}
	}
	return seen
}

// mayBeScalar reports whether s allows any value that can stand in a text: a
// string, a number or a boolean.
func mayBeScalar(s *jsonschema.Schema) bool {
	for range maxRefs {
		if s.Types != nil && !hasScalar(s.Types.ToStrings()) {
			return false
		}
		if s.Ref == nil {
			return true
		}
		s = s.Ref
	}
	return true
}

func hasScalar(types []string) bool {
	for _, t := range types {
		switch t {
		case "string", "number", "integer", "boolean":
			return true
		}
	}
	return false
}
