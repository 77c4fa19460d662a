package catalog

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// An argument is one value in a task's args: JSON in which strings may refer
// to the input.
type argument interface {
	// present reports whether the input of r has what the value refers to.
	present(r *resolution) bool
	// write appends the value, which must be present, to r.out as compact JSON.
	write(r *resolution)
	// origin returns the reference that the part of the value at tokens came
	// from, or nil when it came from none.
	origin(r *resolution, tokens []string) reference
}

type (
	// literal is compact JSON without a reference.
	literal json.RawMessage
	// reference is the path of one value of the input, at least one name.
	reference []string
	// text is a string with references in it.
	text []fragment
	// list is a JSON array.
	list []argument
	// object is a JSON object, its keys in the file's order.
	object struct{ fields []field }
)

type field struct {
	key   string
	value argument
}

// A fragment is a piece of a text: characters, or a reference if there is one.
type fragment struct {
	characters string
	ref        reference
}

func (o object) has(key string) bool {
	for _, f := range o.fields {
		if f.key == key {
			return true
		}
	}
	return false
}

func (ref reference) String() string { return "${input." + strings.Join(ref, ".") + "}" }

// An argumentReader makes arguments from YAML and gathers their references.
type argumentReader struct{ references []foundReference }

// A foundReference is a reference with the place where it stands.
type foundReference struct {
	ref    reference
	at     cursor
	inText bool
}

func (r *argumentReader) read(at cursor) argument {
	switch at.node.Kind {
	case yaml.MappingNode:
		out := object{}
		for _, e := range at.entries() {
			if strings.Contains(e.key, "${") {
				e.value.fail("a key cannot hold a reference")
			}
			out.fields = append(out.fields, field{key: e.key, value: r.read(e.value)})
		}
		return out
	case yaml.SequenceNode:
		out := list{}
		for i, item := range at.node.Content {
			out = append(out, r.read(at.doc.cursor(item, pointer(at.path, strconv.Itoa(i)))))
		}
		return out
	default:
		return r.readScalar(at)
	}
}

func (r *argumentReader) readScalar(at cursor) argument {
	if isText(at.node) && strings.Contains(at.node.Value, "${") {
		return r.readText(at)
	}
	raw, _ := at.json() // json has reported what is no JSON
	return literal(raw)
}

func (r *argumentReader) readText(at cursor) argument {
	fragments, problem := parseText(at.node.Value)
	if problem != "" {
		at.fail("%s", problem)
		return literal("null")
	}
	whole := len(fragments) == 1
	for _, f := range fragments {
		if f.ref != nil {
			r.references = append(r.references, foundReference{ref: f.ref, at: at, inText: !whole})
		}
	}
	switch {
	case whole && fragments[0].ref != nil:
		return fragments[0].ref
	case whole:
		return literal(encode(fragments[0].characters))
	}
	return text(fragments)
}

// parseText splits a string at its references, or says why it cannot. No two
// fragments of characters follow each other.
func parseText(s string) (fragments []fragment, problem string) {
	var characters strings.Builder
	flush := func() {
		if characters.Len() > 0 {
			fragments = append(fragments, fragment{characters: characters.String()})
			characters.Reset()
		}
	}
	for s != "" {
		switch {
		case strings.HasPrefix(s, "$${"):
			characters.WriteString("${")
			s = s[len("$${"):]
		case strings.HasPrefix(s, "${"):
			inner, rest, closed := strings.Cut(s[len("${"):], "}")
			ref, ok := parseReference(inner)
			if !closed || !ok {
				return nil, "has a ${ that starts no reference; write ${input.name} for one, $${ for the characters"
			}
			flush()
			fragments = append(fragments, fragment{ref: ref})
			s = rest
		default:
			characters.WriteByte(s[0])
			s = s[1:]
		}
	}
	flush()
	return fragments, ""
}

// parseReference parses input.a.b, what stands between the braces.
func parseReference(inner string) (reference, bool) {
	names := strings.Split(inner, ".")
	if len(names) < 2 || names[0] != "input" {
		return nil, false
	}
	for _, name := range names[1:] {
		if name == "" || !isWord(name) {
			return nil, false
		}
	}
	return reference(names[1:]), true
}

// checkReference reports a reference that the input_schema knows nothing of,
// or one within a text to what can never be put there.
func checkReference(found foundReference, input *schema) {
	if input == nil {
		return // it was refused; what it would have known is unknown
	}
	schemas := []*jsonschema.Schema{input.compiled}
	for i, name := range found.ref {
		var next []*jsonschema.Schema
		for _, s := range schemas {
			next = append(next, property(s, name)...)
		}
		if len(next) == 0 {
			found.at.fail("%s: input_schema has no property %q", found.ref, strings.Join(found.ref[:i+1], "."))
			return
		}
		schemas = next
	}
	for _, s := range schemas {
		if found.inText && !mayBeScalar(s) {
			found.at.fail("%s: only a string, a number or a boolean can stand within a longer string", found.ref)
			return
		}
	}
}

func (l literal) present(*resolution) bool { return true }

func (l literal) write(r *resolution) { r.out.Write(l) }

func (l literal) origin(*resolution, []string) reference { return nil }

func (ref reference) present(r *resolution) bool {
	_, ok := r.lookup(ref)
	return ok
}

func (ref reference) write(r *resolution) {
	value, _ := r.lookup(ref)
	r.out.Write(encode(value))
}

func (ref reference) origin(_ *resolution, tokens []string) reference {
	return append(slices.Clip(ref), tokens...)
}

func (t text) present(r *resolution) bool {
	for _, f := range t {
		if f.ref != nil && !f.ref.present(r) {
			return false
		}
	}
	return true
}

func (t text) write(r *resolution) {
	var b strings.Builder
	for _, f := range t {
		if f.ref == nil {
			b.WriteString(f.characters)
			continue
		}
		value, _ := r.lookup(f.ref)
		switch v := value.(type) {
		case string:
			b.WriteString(v)
		case json.Number:
			b.WriteString(v.String())
		case bool:
			b.WriteString(strconv.FormatBool(v))
		default:
			r.violations = append(r.violations, Violation{
				Path:    pointerOf(f.ref),
				Message: "must be a string, a number or a boolean: it is put into a longer string",
			})
		}
	}
	r.out.Write(encode(b.String()))
}

func (t text) origin(*resolution, []string) reference {
	for _, f := range t {
		if f.ref != nil {
			return f.ref
		}
	}
	return nil
}

func (l list) present(*resolution) bool { return true }

func (l list) write(r *resolution) {
	separator := byte('[')
	for _, item := range l {
		if r.full() || !item.present(r) {
			continue
		}
		r.out.WriteByte(separator)
		item.write(r)
		separator = ','
	}
	r.close('[', separator, ']')
}

func (l list) origin(r *resolution, tokens []string) reference {
	if len(tokens) == 0 {
		return nil
	}
	at, err := strconv.Atoi(tokens[0])
	if err != nil {
		return nil
	}
	for _, item := range l {
		if !item.present(r) {
			continue
		}
		if at == 0 {
			return item.origin(r, tokens[1:])
		}
		at--
	}
	return nil
}

func (o object) present(*resolution) bool { return true }

func (o object) write(r *resolution) {
	separator := byte('{')
	for _, f := range o.fields {
		if r.full() || !f.value.present(r) {
			continue
		}
		r.out.WriteByte(separator)
		r.out.Write(encode(f.key))
		r.out.WriteByte(':')
		f.value.write(r)
		separator = ','
	}
	r.close('{', separator, '}')
}

func (o object) origin(r *resolution, tokens []string) reference {
	if len(tokens) == 0 {
		return nil
	}
	for _, f := range o.fields {
		if f.key == tokens[0] {
			return f.value.origin(r, tokens[1:])
		}
	}
	return nil
}
