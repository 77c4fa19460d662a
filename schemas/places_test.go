package schemas_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// A place is one value within a document, or one that could be there, with what
// the schema says about it. A document is text without white space: what is
// changed of it leaves the order of the members and every other letter alone.
type place struct {
	path  string               // JSON pointer
	rules []*jsonschema.Schema // all that hold for the value
	doc   string
	// The value is doc[start:end], the member it is of doc[from:to], with one
	// comma. With start 0 and no end the value is absent, from is where it could
	// be.
	start, end, from, to int
	items                []place // of an array
}

func (p place) value() string { return p.doc[p.start:p.end] }

func (p place) name() string { return p.path[strings.LastIndexByte(p.path, '/')+1:] }

// A change is one way to alter a document.
type change struct {
	what string
	made func() string // the document
}

// A surveyor finds the places of a document.
type surveyor struct {
	t      require.TestingT
	doc    string
	d      *jsontext.Decoder
	places []place
}

// places returns every value of a document that the schema knows of. What is
// free, such as args, is one place; nobody says anything about what is in it.
func places(t require.TestingT, doc string, schema *jsonschema.Schema) []place {
	s := &surveyor{t: t, doc: doc, d: jsontext.NewDecoder(strings.NewReader(doc), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
	s.value(place{rules: []*jsonschema.Schema{schema}})
	return s.places
}

// value reads the value of p, which begins where the decoder stands, and all
// that is in it.
func (s *surveyor) value(p place) place {
	p.doc, p.rules = s.doc, followed(p.rules)
	p.start = s.offset()
	at := len(s.places)
	s.places = append(s.places, p)
	switch {
	case s.d.PeekKind() == '{' && !isFree(p):
		s.object(p)
	case s.d.PeekKind() == '[' && len(itemRules(p.rules)) > 0:
		p.items = s.array(p)
	default:
		_, err := s.d.ReadValue()
		require.NoError(s.t, err)
	}
	p.end = int(s.d.InputOffset())
	s.places[at] = p
	return p
}

// offset is where the next token begins.
func (s *surveyor) offset() int {
	n := int(s.d.InputOffset())
	if n > 0 && (s.doc[n] == ',' || s.doc[n] == ':') {
		n++
	}
	return n
}

func (s *surveyor) token() string {
	tok, err := s.d.ReadToken()
	require.NoError(s.t, err)
	return tok.String()
}

func (s *surveyor) object(p place) {
	s.token()
	there := map[string]bool{}
	for s.d.PeekKind() != '}' {
		from := s.offset()
		name := s.token()
		there[name] = true
		at := len(s.places)
		s.value(place{path: p.path + "/" + name, rules: propertyRules(p.rules, name)})
		to := int(s.d.InputOffset())
		if s.doc[from-1] == ',' {
			from--
		} else if s.doc[to] == ',' {
			to++
		}
		s.places[at].from, s.places[at].to = from, to
	}
	end := int(s.d.InputOffset())
	s.token()
	for _, name := range absent(p.rules, there) {
		s.places = append(s.places, place{path: p.path + "/" + name, rules: followed(propertyRules(p.rules, name)), doc: s.doc, from: end})
	}
}

func (s *surveyor) array(p place) []place {
	s.token()
	var items []place
	for s.d.PeekKind() != ']' {
		items = append(items, s.value(place{path: fmt.Sprintf("%s/%d", p.path, len(items)), rules: itemRules(p.rules)}))
	}
	s.token()
	return items
}

// absent are the members that an object could have, too.
func absent(rules []*jsonschema.Schema, there map[string]bool) []string {
	all := map[string]bool{}
	for _, r := range rules {
		for name := range r.Properties {
			all[name] = true
		}
	}
	maps.DeleteFunc(all, func(name string, _ bool) bool { return there[name] })
	return slices.Sorted(maps.Keys(all))
}

// isFree reports whether any JSON may stand at a place.
func isFree(p place) bool {
	return !slices.ContainsFunc(p.rules, func(r *jsonschema.Schema) bool {
		return r.Types != nil || r.Enum != nil || r.Const != nil || r.Ref != nil
	})
}

// followed adds what the rules refer to.
func followed(rules []*jsonschema.Schema) []*jsonschema.Schema {
	for i := 0; i < len(rules); i++ {
		if r := rules[i].Ref; r != nil && !slices.Contains(rules, r) {
			rules = append(slices.Clip(rules), r)
		}
	}
	return rules
}

func propertyRules(rules []*jsonschema.Schema, name string) []*jsonschema.Schema {
	var found []*jsonschema.Schema
	for _, r := range rules {
		if s := r.Properties[name]; s != nil {
			found = append(found, s)
		} else if s, ok := r.AdditionalProperties.(*jsonschema.Schema); ok {
			found = append(found, s)
		}
	}
	return found
}

func itemRules(rules []*jsonschema.Schema) []*jsonschema.Schema {
	var found []*jsonschema.Schema
	for _, r := range rules {
		if r.Items2020 != nil {
			found = append(found, r.Items2020)
		}
	}
	return found
}

// changes returns what can be done to a place: everything that is near a limit
// of the schema, and the plain wrong.
func changes(p place) []change {
	var all []change
	for _, with := range replacements(p) {
		all = append(all, change{fmt.Sprintf("%s := %.60s", p.path, with), func() string { return p.replaced(with) }})
	}
	if p.to > 0 {
		all = append(all, change{p.path + " is missing", func() string { return p.doc[:p.from] + p.doc[p.to:] }})
	}
	if strings.HasPrefix(p.value(), "{") {
		for _, name := range []string{"unknown", "", strings.Repeat("k", 63), strings.Repeat("k", 64), "a\x00b"} {
			all = append(all, change{fmt.Sprintf("%s/%.10q is added", p.path, name), func() string {
				return p.doc[:p.end-1] + member(p.doc[p.end-2], name, `"v"`) + p.doc[p.end-1:]
			}})
		}
	}
	if len(p.items) > 0 {
		all = append(all, change{p.path + " has an entry twice", func() string { return p.doc[:p.end-1] + "," + p.items[0].value() + p.doc[p.end-1:] }})
	}
	return all
}

// replaced is the document with another value at the place.
func (p place) replaced(with string) string {
	if p.start == 0 && p.from > 0 {
		return p.doc[:p.from] + member(p.doc[p.from-1], p.name(), with) + p.doc[p.from:]
	}
	return p.doc[:p.start] + with + p.doc[p.end:]
}

// member is a member that stands behind the letter before.
func member(before byte, name, value string) string {
	text := encoded(name) + ":" + value
	if before != '{' {
		return "," + text
	}
	return text
}

// replacements are JSON texts that can stand in for a value; "t0" is the name of
// a task of the examples.
func replacements(p place) []string {
	all := []string{
		`null`, `true`, `false`, `0`, `-0`, `-1`, `1`, `1.0`, `1.5`, `1e3`, `""`, `"x"`, `"\u0078"`, `"t0"`, `"\u0000"`, `"\ud800"`, `[]`, `[[1]]`, `{}`, `{"x":1}`,
		`9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`,
		`"00000000-0000-0000-0000-000000000000"`, `"018bcfe5-6800-4008-8102-030000000000"`,
		`"018bcfe5-6800-7008-8102-030000000000"`, `"018bcfe5-6800-8008-8102-030000000000"`, `"018bcfe5-6800-8009-8102-030000000000"`, `"018bcfe5-6800-8008-0102-030000000000"`,
	}
	if isFree(p) {
		all = append(all, nested(64), nested(65), `1e300`, `1e301`, strings.Repeat("9", 400), strings.Repeat("9", 401), encoded(strings.Repeat("x", 256<<10)))
	}
	for _, r := range p.rules {
		all = append(all, nearLimits(r, p.items)...)
	}
	if strings.HasPrefix(p.value(), `"`) {
		var s string
		if json.Unmarshal([]byte(p.value()), &s) == nil {
			for _, with := range []string{s + "x", strings.ToUpper(s), s + "\x00", string([]rune(s)[min(1, utf8.RuneCountInString(s)):]), "{" + s + "}", s + "\n"} {
				all = append(all, encoded(with))
			}
		}
	}
	return all
}

// nearLimits are values at and just beyond each limit of a schema.
func nearLimits(r *jsonschema.Schema, items []place) []string {
	var all []string
	for _, limit := range []*big.Rat{r.Minimum, r.Maximum} {
		if limit != nil {
			n := limit.Num()
			for _, d := range []int64{-1, 0, 1} {
				all = append(all, new(big.Int).Add(n, big.NewInt(d)).String())
			}
		}
	}
	for _, n := range []*int{r.MinLength, r.MaxLength} {
		if n != nil {
			all = append(all, encoded(strings.Repeat("x", *n)), encoded(strings.Repeat("x", *n+1)), encoded(strings.Repeat("ü", *n)))
		}
	}
	if r.MaxProperties != nil {
		all = append(all, labels(*r.MaxProperties), labels(*r.MaxProperties+1))
	}
	if r.MaxItems != nil && len(items) > 0 {
		item := items[0].value()
		all = append(all, `[`+strings.Repeat(item+`,`, *r.MaxItems)+item+`]`)
	}
	if r.Const != nil {
		all = append(all, `2`)
	}
	return all
}

func nested(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

func labels(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"k%d":""`, i)
	}
	return `{` + strings.Join(members, ",") + `}`
}

// encoded is a text in JSON, with no more escapes than there must be.
func encoded(s string) string {
	text, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		panic(err) // it is valid UTF-8
	}
	return string(text)
}
