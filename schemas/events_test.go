package schemas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/schemas"
)

func file(event string) string { return "events/keten.v1." + event + ".json" }

func decode(msg ledger.Message, value []byte) error {
	_, err := ledger.Decode(ledger.Record{Partition: msg.Partition, Key: msg.Key, Value: value, Headers: msg.Headers})
	return err
}

// raw is an event's schema as plain JSON.
func raw(t require.TestingT, event string) map[string]any {
	text, err := schemas.FS.ReadFile(file(event))
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	object, ok := doc.(map[string]any)
	require.True(t, ok)
	return object
}

func compile(t require.TestingT, event string) *jsonschema.Schema {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource(file(event), raw(t, event)))
	schema, err := c.Compile(file(event))
	require.NoError(t, err)
	return schema
}

func fits(t require.TestingT, s *jsonschema.Schema, value []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err, "%s", value)
	return s.Validate(doc)
}

// forEachEvent runs a test for each event there is.
func forEachEvent(t *testing.T, test func(t *testing.T, event string, ex example)) {
	t.Helper()
	for name, ex := range examples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, name, ex)
		})
	}
}

// The one who reads a schema learns of every member there is, and of none that
// the ledger would refuse.
func TestSchemasNameEveryMember(t *testing.T) {
	t.Parallel()
	forEachEvent(t, func(t *testing.T, event string, ex example) {
		schema := compile(t, event)
		known := slices.Sorted(maps.Keys(schema.Properties))
		require.Equal(t, known, members(t, ex.most.Value))
		require.Subset(t, members(t, ex.least.Value), schema.Required)
	})
}

func members(t *testing.T, value []byte) []string {
	t.Helper()
	var object map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(value, &object))
	return slices.Sorted(maps.Keys(object))
}

// There is a schema for each event and for nothing else.
func TestThereIsOneSchemaPerEvent(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(schemas.FS, "events/*.json")
	require.NoError(t, err)
	var want []string
	for _, name := range events(t) {
		want = append(want, file(name))
	}
	require.Equal(t, want, files)
}

// Each schema stands alone, so that no reader has to resolve anything: what
// several share is there several times, and the same.
func TestSharedDefinitionsAreEqual(t *testing.T) {
	t.Parallel()
	type definition struct {
		event string
		says  any
	}
	seen := map[string]definition{}
	for _, event := range events(t) {
		defs, _ := raw(t, event)["$defs"].(map[string]any)
		for name, says := range defs {
			if other, ok := seen[name]; ok {
				require.Equal(t, other.says, says, "%s of %s and %s", name, other.event, event)
			}
			seen[name] = definition{event, says}
		}
	}
	require.Equal(t, []string{"actor", "backoff", "error", "task"}, slices.Sorted(maps.Keys(seen)))
}

// The example in each schema follows it, and the ledger takes it.
func TestTheExamplesAreGood(t *testing.T) {
	t.Parallel()
	forEachEvent(t, func(t *testing.T, event string, _ example) {
		msg := exampleRecord(t, event)
		require.NoError(t, fits(t, compile(t, event), msg.Value))
		require.NoError(t, decode(msg, msg.Value))
	})
}

// exampleRecord is the example of an event's schema as a record.
func exampleRecord(t *testing.T, event string) ledger.Message {
	t.Helper()
	list, ok := raw(t, event)["examples"].([]any)
	require.True(t, ok && len(list) == 1, "%s has no example", event)
	value, err := json.Marshal(list[0])
	require.NoError(t, err)
	var keyed struct {
		ID uuid.UUID `json:"collection_id"`
	}
	require.NoError(t, json.Unmarshal(value, &keyed))
	msg := ledger.Message{Value: value, Headers: examples(t)[event].least.Headers}
	if keyed.ID != uuid.Nil {
		msg.Key, msg.Partition = []byte(keyed.ID.String()), ledger.PartitionOf(keyed.ID)
	}
	return msg
}

// Every schema says what it is of, and who writes the event; every member says
// what it means, with its unit, and how many bytes a text may have, which is
// what the ledger counts and JSON Schema cannot.
func TestEveryMemberIsDescribed(t *testing.T) {
	t.Parallel()
	forEachEvent(t, func(t *testing.T, event string, _ example) {
		doc := raw(t, event)
		require.Equal(t, "keten.v1."+event, doc["title"])
		require.Equal(t, "https://github.com/keten-ledger/keten/schemas/"+file(event), doc["$id"])
		require.Equal(t, "https://json-schema.org/draft/2020-12/schema", doc["$schema"])
		require.Regexp(t, `\. Written by `, doc["description"])
		requireDescribed(t, "", doc)
		for name, def := range object(doc["$defs"]) {
			require.Regexp(t, `\.$`, object(def)["description"])
			requireDescribed(t, "/"+name, object(def))
		}
	})
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func requireDescribed(t *testing.T, path string, schema map[string]any) {
	t.Helper()
	require.Equal(t, false, schema["additionalProperties"], path)
	for name, v := range object(schema["properties"]) {
		member, at := object(v), path+"/"+name
		if member["$ref"] != nil {
			continue // described where it is defined
		}
		says, _ := member["description"].(string)
		require.Regexp(t, `^[A-Z].*\.$`, says, at)
		switch {
		case member["type"] == "integer":
			require.Contains(t, member, "minimum", at)
			require.Contains(t, member, "maximum", at)
		case member["type"] == "string" && member["maxLength"] != nil && name != "request_hash":
			require.Equal(t, bytesWords(member), regexp.MustCompile(`[^.]+\.$`).FindString(" "+says), at)
		case member["type"] == "array":
			require.Contains(t, member, "items", at)
		}
		if strings.HasSuffix(name, "_ms") {
			require.Contains(t, says, "in milliseconds", at)
		}
	}
}

// bytesWords is the sentence that closes the description of a text.
func bytesWords(member map[string]any) string {
	most := grouped(fmt.Sprint(member["maxLength"]))
	if least := member["minLength"]; least != nil {
		return fmt.Sprintf(" %v to %s bytes.", least, most)
	}
	return fmt.Sprintf(" At most %s bytes.", most)
}

// grouped puts commas between thousands.
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
