package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// maxNodes and maxNesting bound what aliases can make of a small file.
	maxNodes   = 100_000
	maxNesting = 100
)

// A document is one YAML file being read, and what is wrong with it so far.
type document struct {
	file  string
	dir   string // absolute; relative exec directories start here
	nodes int    // visited by inspect, aliases followed
	errs  []*LoadError
}

// A cursor is a place in the document. Its node is never an alias.
type cursor struct {
	doc  *document
	node *yaml.Node
	path string // JSON pointer
}

// An entry is one key of a mapping with the place of its value.
type entry struct {
	key   string
	node  *yaml.Node // of the key
	value cursor
}

func (d *document) cursor(node *yaml.Node, path string) cursor {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return cursor{doc: d, node: node, path: path}
}

func (c cursor) fail(format string, args ...any) { c.doc.fail(c.node, c.path, format, args...) }

func (d *document) fail(node *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, &LoadError{
		File: d.file, Line: node.Line, Column: node.Column, Path: path,
		Message: truncated(fmt.Sprintf(format, args...)),
	})
}

// err joins what was found, in the order of the file, each thing once.
func (d *document) err() error {
	slices.SortStableFunc(d.errs, func(a, b *LoadError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message), cmp.Compare(a.Path, b.Path))
	})
	// A node that aliases lead to is read once per alias.
	d.errs = slices.CompactFunc(d.errs, func(a, b *LoadError) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
	var errs []error
	for i, e := range d.errs {
		if i == maxReported {
			errs = append(errs, &LoadError{File: d.file, Message: fmt.Sprintf("and %d more errors", len(d.errs)-i)})
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// inspect looks at everything below c for what YAML allows and a catalog does
// not. It reports false when the document cannot be walked any further: only
// an inspected document has an end.
func (c cursor) inspect(depth int) bool {
	c.doc.nodes++
	if depth > maxNesting || c.doc.nodes > maxNodes {
		c.doc.fail(c.node, "", "the document is too large or refers to itself: at most %d levels and %d values, "+
			"aliases followed", maxNesting, maxNodes)
		return false
	}
	c.inspectTag()
	switch c.node.Kind {
	case yaml.MappingNode:
		return c.inspectMapping(depth)
	case yaml.SequenceNode:
		for i, item := range c.node.Content {
			if !c.doc.cursor(item, pointer(c.path, strconv.Itoa(i))).inspect(depth + 1) {
				return false
			}
		}
	default:
		c.inspectText()
	}
	return true
}

func (c cursor) inspectMapping(depth int) bool {
	seen := make(map[string]int, len(c.node.Content)/2)
	for i := 0; i+1 < len(c.node.Content); i += 2 {
		key := c.doc.cursor(c.node.Content[i], c.path)
		if key.node.ShortTag() == "!!merge" {
			key.fail("merge keys (<<) are not supported")
			continue
		}
		if !isText(key.node) {
			key.fail("a key must be a string, this is %s: quote it", key.kind())
			continue
		}
		name := key.node.Value
		if line, ok := seen[name]; ok {
			c.doc.fail(c.node.Content[i], pointer(c.path, name), "duplicate key, first given in line %d", line)
		}
		seen[name] = key.node.Line
		key.inspectText()
		if !c.doc.cursor(c.node.Content[i+1], pointer(c.path, name)).inspect(depth + 1) {
			return false
		}
	}
	return true
}

func (c cursor) inspectTag() {
	switch tag := c.node.ShortTag(); tag {
	case "!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
	default:
		c.fail("the tag %s is not supported", tag)
	}
}

// inspectText refuses the one character that PostgreSQL cannot store.
func (c cursor) inspectText() {
	if strings.IndexByte(c.node.Value, 0) >= 0 {
		c.fail("contains U+0000")
	}
}

// kind names what stands at c in an error.
func (c cursor) kind() string {
	switch c.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default: // a scalar
	}
	switch c.node.ShortTag() {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + c.node.Value
	case "!!bool":
		return "the boolean " + c.node.Value
	case "!!str", "!!timestamp":
		return "a string"
	}
	return "of another type"
}

// entries returns the keys of a mapping in the file's order, duplicates left
// out. inspect has reported what is not a string or there twice.
func (c cursor) entries() []entry {
	if c.node.Kind != yaml.MappingNode {
		c.fail("must be a mapping, is %s", c.kind())
		return nil
	}
	var out []entry
	seen := make(map[string]bool, len(c.node.Content)/2)
	for i := 0; i+1 < len(c.node.Content); i += 2 {
		key := c.doc.cursor(c.node.Content[i], c.path).node
		if !isText(key) || seen[key.Value] {
			continue
		}
		seen[key.Value] = true
		value := c.doc.cursor(c.node.Content[i+1], pointer(c.path, key.Value))
		out = append(out, entry{key: key.Value, node: c.node.Content[i], value: value})
	}
	return out
}

// fields returns the values of a mapping by key. Keys other than known are
// errors, except those in later, which get the sentence given for them.
func (c cursor) fields(known []string, later map[string]string) map[string]cursor {
	entries := c.entries()
	out := make(map[string]cursor, len(entries))
	for _, e := range entries {
		switch sentence, ok := later[e.key]; {
		case slices.Contains(known, e.key):
			out[e.key] = e.value
		case ok:
			c.doc.fail(e.node, e.value.path, "%s", sentence)
		default:
			c.doc.fail(e.node, e.value.path, "unknown key %q; known here: %s", e.key, strings.Join(known, ", "))
		}
	}
	return out
}

// require reports the fields that are missing in c, if c is a mapping at all.
func (c cursor) require(fields map[string]cursor, names ...string) {
	for _, name := range names {
		if _, ok := fields[name]; !ok && c.node.Kind == yaml.MappingNode {
			c.fail("%s is missing", name)
		}
	}
}

// items returns the elements of a list of least to most elements.
func (c cursor) items(least, most int) []cursor {
	if c.node.Kind != yaml.SequenceNode {
		c.fail("must be a list, is %s", c.kind())
		return nil
	}
	if n := len(c.node.Content); n < least || n > most {
		c.fail("has %d elements, want %d to %d", n, least, most)
	}
	out := make([]cursor, len(c.node.Content))
	for i, item := range c.node.Content {
		out[i] = c.doc.cursor(item, pointer(c.path, strconv.Itoa(i)))
	}
	return out
}

// text returns a string of least to most bytes; false if it is none.
func (c cursor) text(least, most int) (string, bool) {
	if !isText(c.node) {
		c.fail("must be a string, is %s", c.kind())
		return "", false
	}
	if n := len(c.node.Value); n < least || n > most {
		c.fail("is %d bytes long, want %d to %d", n, least, most)
		return "", false
	}
	return c.node.Value, true
}

// isText reports whether node is a string. A date without quotes is one here,
// as it is in YAML 1.2's core schema and in JSON.
func isText(node *yaml.Node) bool {
	tag := node.ShortTag()
	return node.Kind == yaml.ScalarNode && (tag == "!!str" || tag == "!!timestamp")
}

// choice returns one of the given strings, or "" after reporting another.
func (c cursor) choice(choices ...string) string {
	if isText(c.node) && slices.Contains(choices, c.node.Value) {
		return c.node.Value
	}
	c.fail("must be %s", strings.Join(choices, " or "))
	return ""
}

func (c cursor) boolean() bool {
	var b bool
	if c.node.ShortTag() != "!!bool" || c.node.Decode(&b) != nil {
		c.fail("must be true or false, is %s", c.kind())
	}
	return b
}

// integer returns a whole number from 1 to most, or 1 after reporting something
// else. 3.0 is a whole number, as it is in JSON Schema.
func (c cursor) integer(most int) int {
	var n float64
	if !isNumber(c.node) || c.node.Decode(&n) != nil || n != math.Trunc(n) || n < 1 || n > float64(most) {
		c.fail("must be a whole number from 1 to %d, is %s", most, c.kind())
		return 1
	}
	return int(n)
}

func isNumber(node *yaml.Node) bool {
	tag := node.ShortTag()
	return node.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float")
}

// duration returns a duration from least to maxDuration, or least after
// reporting something else.
func (c cursor) duration(least time.Duration) time.Duration {
	const form = "must be a duration such as 90s or 1h30m (whole numbers with ms, s, m, h), is %s"
	if !isText(c.node) {
		c.fail(form, c.kind())
		return least
	}
	// Only these characters: no fractions, signs or units below 1 ms.
	d, err := time.ParseDuration(c.node.Value)
	switch {
	case strings.Trim(c.node.Value, "0123456789hms") != "" || err != nil || c.node.Value == "0":
		c.fail(form, strconv.Quote(c.node.Value))
	case d < least || d > maxDuration:
		c.fail("is %s, want %s to %s", c.node.Value, least, maxDuration)
	default:
		return d
	}
	return least
}

// at returns the place that tokens lead to from c, or the last one on the way
// that exists.
func (c cursor) at(tokens []string) cursor {
	for _, token := range tokens {
		next, ok := c.child(token)
		if !ok {
			return c
		}
		c = next
	}
	return c
}

func (c cursor) child(token string) (cursor, bool) {
	switch c.node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(c.node.Content); i += 2 {
			if c.doc.cursor(c.node.Content[i], "").node.Value == token {
				return c.doc.cursor(c.node.Content[i+1], pointer(c.path, token)), true
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(c.node.Content) {
			return c.doc.cursor(c.node.Content[i], pointer(c.path, token)), true
		}
	default: // nothing is below a scalar
	}
	return cursor{}, false
}
