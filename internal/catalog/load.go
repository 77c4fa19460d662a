package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The limits of what a catalog may say. Those on task definitions are the
// ledger's, so that whatever a catalog describes can be appended.
const (
	maxFileBytes    = 4 << 20 // what a person may still have written
	maxNameBytes    = 100     // of types and templates, which appear in URLs
	maxTaskName     = 200
	maxQueueBytes   = 255
	maxTextBytes    = 4 << 10 // of a description
	maxTasks        = 200
	maxAttempts     = 1000
	maxMultiplier   = 100
	maxDuration     = 24 * time.Hour // of timeouts, back-offs and sleeps
	maxArgv         = 256
	maxArgBytes     = 4 << 10
	maxPathBytes    = 4 << 10
	maxEnv          = 256
	maxOutputBytes  = 256 << 10 // a result is a payload, and no payload is larger
	maxUserBytes    = 32
	maxDefinitions  = 10_000 // types, and templates, of one catalog
	maxConcurrent   = 10_000 // more tasks than an executor runs at a time
	maxURLBytes     = 2 << 10
	maxHeaders      = 50
	maxHeaderBytes  = 4 << 10
	catalogFileName = "catalog.yaml"
)

// Load reads the catalog at path, a YAML file or a directory with a
// catalog.yaml. If the file cannot be read, the error says so; otherwise it
// joins one *[LoadError] for each thing wrong with it.
func Load(path string) (*Catalog, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, catalogFileName)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return Parse(path, data)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is over the limit of %d bytes", path, maxFileBytes)
	}
	return data, nil
}

// Parse is [Load] for a catalog whose text is at hand. file names it in errors,
// and the directory that relative exec directories start from is its own.
func Parse(file string, data []byte) (*Catalog, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("find the directory of catalog %s: %w", file, err)
	}
	d := &document{file: file, dir: dir}
	c := &Catalog{Types: map[string]*Type{}, Templates: map[string]*Template{}}
	if root := d.parse(data); root != nil {
		d.readCatalog(c, d.cursor(root, ""))
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// parse returns the one value of the one YAML document in data, or nil after
// reporting why there is none.
func (d *document) parse(data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.failWhole("is empty")
		return nil
	case err != nil:
		d.failSyntax(err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return doc.Content[0]
	case err != nil:
		d.failSyntax(err)
	default:
		d.fail(&second, "", "a second YAML document starts here; a catalog is one")
	}
	return nil
}

func (d *document) failWhole(message string) {
	d.errs = append(d.errs, &LoadError{File: d.file, Message: message})
}

// failSyntax reports what the YAML parser says. It has the line in its text
// only.
func (d *document) failSyntax(err error) {
	e := &LoadError{File: d.file, Message: strings.TrimPrefix(err.Error(), "yaml: ")}
	if rest, ok := strings.CutPrefix(e.Message, "line "); ok {
		number, text, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			e.Line, e.Message = line, text
		}
	}
	e.Message = "is not YAML: " + e.Message
	d.errs = append(d.errs, e)
}

func (d *document) readCatalog(c *Catalog, root cursor) {
	if !root.inspect(0) {
		return
	}
	fields := root.fields([]string{"types", "templates"}, nil)
	for _, e := range definitions(fields, "types") {
		c.Types[e.key] = readType(e.key, e.value)
	}
	for _, e := range definitions(fields, "templates") {
		c.Templates[e.key] = readTemplate(c, e.key, e.value)
	}
}

// definitions returns the entries of the mapping called section.
func definitions(fields map[string]cursor, section string) []entry {
	at, ok := fields[section]
	if !ok {
		return nil
	}
	entries := at.entries()
	if len(entries) > maxDefinitions {
		at.fail("has %d entries, at most %d are allowed", len(entries), maxDefinitions)
		return nil
	}
	for _, e := range entries {
		if !isName(e.key) {
			at.doc.fail(e.node, e.value.path, "the name %q is not made of letters, digits, '.', '_' and '-', "+
				"starting with a letter or digit, at most %d", e.key, maxNameBytes)
		}
	}
	return entries
}

// isName reports whether name can stand in a URL, a metric label and a file
// name without being quoted.
func isName(name string) bool {
	return name != "" && len(name) <= maxNameBytes && isWord(name) && isLetterOrDigit(name[0])
}

// isWord reports whether s has letters, digits, '.', '_' and '-' only.
func isWord(s string) bool {
	for i := range len(s) {
		if !isLetterOrDigit(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

func isLetterOrDigit(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}
