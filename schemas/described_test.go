package schemas_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/schemas"
)

var update = flag.Bool("update", false, "write what is generated from the schemas: asyncapi.yaml and docs/reference/events.md")

// The roles of processes that write events.
const (
	roleInit     = "init"
	roleAPI      = "api"
	roleExecutor = "executor"
	roleAdmin    = "admin"
)

// inOrder are all events in the order in which a reader gets to know them, with
// the roles that write them.
func inOrder() []eventDoc {
	return []eventDoc{
		{Name: "LedgerOpened", Roles: []string{roleInit}},
		{Name: "CollectionCreated", Roles: []string{roleAPI}},
		{Name: "RetryRequested", Roles: []string{roleAPI}},
		{Name: "CancelRequested", Roles: []string{roleAPI}},
		{Name: "PartitionClaimed", Roles: []string{roleExecutor}},
		{Name: "PartitionReleased", Roles: []string{roleExecutor}},
		{Name: "TaskStarted", Roles: []string{roleExecutor}},
		{Name: "TaskSucceeded", Roles: []string{roleExecutor, roleAPI}},
		{Name: "TaskFailed", Roles: []string{roleExecutor, roleAPI}},
		{Name: "TaskDeferred", Roles: []string{roleExecutor}},
		{Name: "RulesActivated", Roles: []string{roleAdmin}},
	}
}

// An eventDoc is what is told of an event, from its schema.
type eventDoc struct {
	Name  string
	Roles []string
	schemaDoc
	Says    string // the description, but for who writes it
	Writers string
	Keyed   bool // by the id of a collection
	Headers []ledger.Header
	Example string // value
}

// A schemaDoc is a schema as its file has it, members in order. Keywords in camel
// case need no tag.
type schemaDoc struct {
	Description   string      `json:"description"`
	Type          string      `json:"type"`
	Format        string      `json:"format"`
	Enum          []string    `json:"enum"`
	Ref           string      `json:"$ref"`
	Minimum       json.Number `json:"minimum"`
	Maximum       json.Number `json:"maximum"`
	MinItems      int
	MaxItems      int
	MaxProperties int
	Items         *schemaDoc     `json:"items"`
	Required      []string       `json:"required"`
	Properties    namedSchemas   `json:"properties"`
	Defs          namedSchemas   `json:"$defs"`
	Examples      []exampleValue `json:"examples"`
}

type exampleValue = json.RawMessage

type namedSchemas []namedSchema

type namedSchema struct {
	Name string
	schemaDoc
}

func (n *namedSchemas) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		s := namedSchema{Name: fmt.Sprint(name)}
		if err := d.Decode(&s.schemaDoc); err != nil {
			return err
		}
		*n = append(*n, s)
	}
	return nil
}

func (n namedSchemas) properties() []namedSchemas {
	var all []namedSchemas
	for _, s := range n {
		all = append(all, s.Properties)
	}
	return all
}

// describeRefs gives members that refer to a definition its first sentence.
func (n namedSchemas) describeRefs(defs namedSchemas) {
	for i := range n {
		for _, def := range defs {
			if n[i].Ref != "" && n[i].RefName() == def.Name {
				first, _, _ := strings.Cut(def.Description, ". ")
				n[i].Description = strings.TrimSuffix(first, ".") + "."
			}
		}
	}
}

// describedEvents reads what the schemas tell of all events.
func describedEvents(t *testing.T) []eventDoc {
	t.Helper()
	all := inOrder()
	var names []string
	for i := range all {
		e := &all[i]
		names = append(names, e.Name)
		text, err := schemas.FS.ReadFile(file(e.Name))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &e.schemaDoc))
		for _, list := range append([]namedSchemas{e.Properties}, e.Defs.properties()...) {
			list.describeRefs(e.Defs)
		}
		var ok bool
		e.Says, e.Writers, ok = strings.Cut(e.Description, " Written by ")
		require.True(t, ok, "%s does not say who writes it", e.Name)
		for _, role := range e.Roles {
			require.Contains(t, strings.ToLower(e.Writers), role, e.Name)
		}
		e.Keyed = slices.Contains(e.Required, "collection_id")
		e.Headers, e.Example = exampleOf(t, e, i)
	}
	slices.Sort(names)
	require.Equal(t, events(t), names, "an event has no place in the order")
	return all
}

// exampleOf makes the record of a schema's example, the n-th of a story.
func exampleOf(t *testing.T, e *eventDoc, n int) ([]ledger.Header, string) {
	t.Helper()
	msg := exampleRecord(t, e.Name)
	env, err := ledger.Decode(ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
	require.NoError(t, err)
	at := time.UnixMilli(1_790_000_000_000 + int64(n)*137)
	id := uuid.MustParse("01a0c450-6c00-7a3f-9c51-d02b4e7f8a00")
	id[15] += byte(n)
	msg, err = ledger.Encode(msg.Partition, ledger.Meta{EventID: id, Time: at, Source: ledger.Source(ledgerID(t), e.Roles[0])}, env.Event)
	require.NoError(t, err)
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, msg.Value, "", "  "))
	return msg.Headers, indented.String()
}

// ledgerID is the one of the example of LedgerOpened, which all others follow.
func ledgerID(t *testing.T) uuid.UUID {
	t.Helper()
	var opened ledger.LedgerOpened
	require.NoError(t, json.Unmarshal(exampleRecord(t, "LedgerOpened").Value, &opened))
	return opened.LedgerID
}

// TypeWords says of what type a member is.
func (s schemaDoc) TypeWords() string {
	switch {
	case s.Ref != "":
		name := s.RefName()
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	case s.Items != nil:
		return "array of " + strings.Replace(s.Items.TypeWords(), "integer", "integers", 1)
	case s.Format == "uuid":
		return "UUID"
	case len(s.Enum) > 0:
		return "string"
	case s.Type == "":
		return "any JSON"
	case s.MaxProperties > 0:
		return "object of strings"
	}
	return s.Type
}

// RefName is the name of the definition that the schema refers to.
func (s schemaDoc) RefName() string { return strings.TrimPrefix(s.Ref, "#/$defs/") }

var bytesSentence = regexp.MustCompile(` (At most|\d+ to) ([\d,]+ bytes[^.]*)\.$`)

// Bounds says what a member's value is bounded by. Bytes are in the
// description, since JSON Schema can only count characters.
func (s schemaDoc) Bounds() string {
	switch {
	case s.Maximum == "9223372036854775807":
		return s.Minimum.String() + " or more"
	case s.Maximum != "":
		return grouped(s.Minimum.String()) + " to " + grouped(s.Maximum.String())
	case s.MinItems > 0:
		return fmt.Sprintf("%d to %d entries", s.MinItems, s.MaxItems)
	case s.MaxItems > 0:
		return fmt.Sprintf("at most %d entries", s.MaxItems)
	case s.MaxProperties > 0:
		return fmt.Sprintf("at most %d entries", s.MaxProperties)
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, " or ")
	}
	if m := bytesSentence.FindStringSubmatch(s.Description); m != nil {
		return strings.ToLower(m[1][:1]) + m[1][1:] + " " + m[2]
	}
	return ""
}

// Meaning is the description without what Bounds says.
func (s schemaDoc) Meaning() string {
	if s.Type == "object" {
		return s.Description // the bytes are those of its keys and values
	}
	return bytesSentence.ReplaceAllString(s.Description, "")
}

// IsRequired tells whether an object of this schema must have a member.
func (s schemaDoc) IsRequired(member string) bool { return slices.Contains(s.Required, member) }

// isCommitted compares what a template makes with a file, or writes the file.
func isCommitted(t *testing.T, file, text string, data any) {
	t.Helper()
	tmpl, err := template.New(file).Funcs(template.FuncMap{"join": strings.Join, "lower": strings.ToLower, "text": func(h ledger.Header) string { return string(h.Value) }}).Parse(text)
	require.NoError(t, err)
	var made bytes.Buffer
	require.NoError(t, tmpl.Execute(&made, data))
	if *update {
		require.NoError(t, os.WriteFile(file, made.Bytes(), 0o644))
		return
	}
	committed, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(committed), made.String(), "run: go test ./schemas -run Committed -update")
}
