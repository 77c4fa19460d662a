package catalog_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keten-ledger/keten/internal/catalog"
)

// The published schema accepts what the loader accepts, and refuses what the
// corpus says it refuses.
func TestSchemaAndLoaderAgreeOnTheCorpus(t *testing.T) {
	t.Parallel()
	published := publishedSchema(t)
	for _, file := range corpus(t, "good") {
		require.NoError(t, published.Validate(decoded(t, read(t, file))), file)
	}
	for _, file := range corpus(t, "bad") {
		text := read(t, file)
		first, _, _ := strings.Cut(string(text), "\n")
		switch says := strings.TrimPrefix(first, "# schema: "); says {
		case "accepts":
			require.NoError(t, published.Validate(decoded(t, text)), file)
		case "refuses":
			require.Error(t, published.Validate(decoded(t, text)), file)
		case "-": // no JSON stands for this YAML
		default:
			require.Failf(t, "unknown", "%s: %s", file, says)
		}
	}
}

// Whatever is changed in one place of a good catalog: if the published schema
// refuses it, so does the loader, and if only the loader does, then for a
// reason that no schema can express.
func TestSchemaAndLoaderAgreeOnMutations(t *testing.T) {
	t.Parallel()
	published := publishedSchema(t)
	refused, mutations := 0, 0
	for _, file := range corpus(t, "good") {
		original := decoded(t, read(t, file))
		mutate(original, func() {
			mutations++
			text, err := json.Marshal(original)
			require.NoError(t, err)
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			require.NoError(t, err)
			schemaErr := published.Validate(value)
			_, loadErr := catalog.Parse("c.yaml", text)
			switch {
			case schemaErr != nil:
				refused++
				require.Errorf(t, loadErr, "only the schema refuses %.2000s\n%v", text, schemaErr)
			case loadErr != nil:
				for _, message := range messages(t, "c.yaml", loadErr) {
					require.Truef(t, beyondSchemas(message), "only the loader refuses %.2000s\n%s", text, message)
				}
			}
		})
	}
	require.Greater(t, refused, 1000, "of %d mutations: the test has lost its teeth", mutations)
	t.Logf("the schema refuses %d of %d mutations", refused, mutations)
}

// Both draw every line at the same place: what is at a limit passes, what is
// one beyond it does not.
func TestSchemaAndLoaderAgreeOnLimits(t *testing.T) {
	t.Parallel()
	published := publishedSchema(t)
	x := func(n int) string { return strings.Repeat("x", n) }
	list := func(n int, item string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(item, "#", strconv.Itoa(i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	mapping := func(n int) string {
		return strings.NewReplacer("[", "{", "]", "}").Replace(list(n, "h#: x"))
	}
	whole := func(most int) [2]string { return [2]string{strconv.Itoa(most), strconv.Itoa(most + 1)} }
	long := func(most int) [2]string { return [2]string{x(most), x(most + 1)} }
	for text, values := range map[string][2]string{
		"types: {%: {}}":                                                long(100),
		"types: {a: {description: %}}":                                  long(4096),
		"types: {a: {queue: %}}":                                        long(255),
		"types: {a: {max_attempts: %}}":                                 whole(1000),
		"types: {a: {max_attempts: % }}":                                {"1", "0"},
		"types: {a: {backoff: {multiplier: %}}}":                        whole(100),
		"types: {a: {backoff: {multiplier: % }}}":                       {"1", "0"},
		"types: {a: {exec: {command: [%]}}}":                            long(4096),
		"types: {a: {exec: {command: [a, %]}}}":                         long(4096),
		"types: {a: {exec: {command: %}}}":                              {list(256, "a"), list(257, "a")},
		"types: {a: {exec: {command: [a], dir: %}}}":                    long(4096),
		"types: {a: {exec: {command: [a], user: %}}}":                   long(32),
		"types: {a: {exec: {command: [a], env: [%]}}}":                  long(100),
		"types: {a: {exec: {command: [a], env: %}}}":                    {list(256, "A#"), list(257, "A#")},
		"types: {a: {exec: {command: [a], env: % }}}":                   {"[A, B]", "[A, A]"},
		"types: {a: {exec: {command: [a], output_limit: %}}}":           whole(262_144),
		"types: {a: {exec: {command: [a], output_limit: % }}}":          {"1", "0"},
		"types: {a: {exec: {command: [a], output_limit: %  }}}":         {"2.0", "2.5"},
		"types: {a: {max_concurrent: %}}":                               whole(10_000),
		"types: {a: {max_concurrent: % }}":                              {"1", "0"},
		"types: {a: {http: {url: 'http://%'}}}":                         {x(2048 - 7), x(2049 - 7)},
		"types: {a: {http: {url: 'http://a', headers: {%: x}}}}":        long(100),
		"types: {a: {http: {url: 'http://a', headers: {a: %}}}}":        long(4096),
		"types: {a: {http: {url: 'http://a', headers: {a: \"%\"}}}}":    {`\t`, `\x7f`},
		"types: {a: {http: {url: 'http://a', headers: {a: \"% \"}}}}":   {"é ", `\x1f`},
		"types: {a: {http: {url: 'http://a', headers: %}}}":             {mapping(50), mapping(51)},
		"types: {a: {http: {url: 'http://a', headers_from: {%: x}}}}":   long(100),
		"types: {a: {http: {url: 'http://a', headers_from: {a: %}}}}":   long(4096),
		"types: {a: {http: {url: 'http://a', headers_from: %}}}":        {mapping(50), mapping(51)},
		"types: {a: {http: {url: 'http://a', status: {'%': fail}}}}":    {"200", "199"},
		"types: {a: {http: {url: 'http://a', status: {'%': retry}}}}":   {"599", "600"},
		"types: {a: {}}\ntemplates: {%: {tasks: [{name: a, type: a}]}}": long(100),
		"types: {a: {}}\ntemplates: {a: {tasks: [{name: %, type: a}]}}": long(200),
		"types: {a: {}}\ntemplates: {a: {tasks: %}}":                    {list(200, "{name: x#, type: a}"), list(201, "{name: x#, type: a}")},
	} {
		within, beyond := []byte(strings.Replace(text, "%", values[0], 1)), []byte(strings.Replace(text, "%", values[1], 1))
		_, err := catalog.Parse("c.yaml", within)
		require.NoError(t, err, text)
		require.NoError(t, published.Validate(decoded(t, within)), text)
		_, err = catalog.Parse("c.yaml", beyond)
		require.Error(t, err, text)
		require.Error(t, published.Validate(decoded(t, beyond)), text)
	}
}

// beyondSchemas reports whether a message is about what refers to another
// place in the file, or is a limit that JSON Schema has no word for.
func beyondSchemas(message string) bool {
	return slices.ContainsFunc([]string{
		"there is no type called",
		"another task of this template is called",
		"input_schema has no property",
		"can stand within a longer string",
		"has a ${ that starts no reference",
		"args_schema of type",
		"must be 1: on_interrupt of type",
		"want 1ms to 24h",
		"want 0s to 24h",
		"is longer than max",
		"must be shorter than timeout",
		"is given twice",
		"is set by Keten or by the connection",
		"is not a URL with a host",
		"is not a usable JSON Schema",
		"only references within the schema itself",
	}, func(reason string) bool { return strings.Contains(message, reason) })
}

// mutate calls try once for each change of one place below value, which it
// takes back afterwards. What a JSON Schema may hold is not ours: it is changed
// as a whole.
func mutate(value any, try func()) {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			before := v[key]
			if !strings.HasSuffix(key, "_schema") {
				mutate(before, try)
			}
			for _, other := range others() {
				v[key] = other
				try()
			}
			delete(v, key)
			try()
			v[key+"x"] = before
			try()
			delete(v, key+"x")
			v[key] = before
		}
		v["extra"] = "x"
		try()
		delete(v, "extra")
	case []any:
		for i, before := range v {
			mutate(before, try)
			for _, other := range others() {
				v[i] = other
				try()
			}
			v[i] = before
		}
	}
}

func others() []any {
	return []any{
		nil, true, 0, 2.5, 1 << 20, "", "x", "5s", "30h", "a b", "${x", strings.Repeat("x", 101), strings.Repeat("x", 5000),
		[]any{},
		[]any{"x", "x"},
		[]any{1},
		map[string]any{},
	}
}

func publishedSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "schemas", "catalog.json"))
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("catalog.json", doc))
	s, err := c.Compile("catalog.json")
	require.NoError(t, err)
	return s
}

// decoded reads YAML as the JSON value that it stands for.
func decoded(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	require.NoError(t, yaml.Unmarshal(text, &value))
	return plain(value)
}

func plain(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = plain(v[key])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case time.Time: // a string in JSON
		return v.Format(time.DateOnly)
	case uint64:
		return json.Number(strconv.FormatUint(v, 10))
	}
	return value
}
