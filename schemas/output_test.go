package schemas_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/eventlog"
	"github.com/keten-ledger/keten/schemas"
)

// Whatever was ever written to the output topic follows the schema of its
// version, and readers read the schema's own example.
func TestOutputFollowsItsSchema(t *testing.T) {
	t.Parallel()
	const name = "output/keten.output.v1.json"
	text, err := schemas.FS.ReadFile(name)
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource(name, doc))
	schema, err := c.Compile(name)
	require.NoError(t, err)

	files, err := filepath.Glob("../internal/eventlog/testdata/output/v1.*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		value, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, fits(t, schema, value), file)
	}
	require.NotEmpty(t, schema.Examples)
	for _, example := range schema.Examples {
		require.NoError(t, schema.Validate(example))
	}
	_, err = eventlog.DecodeOutput([]byte(spelledExample(string(text))))
	require.NoError(t, err)
	for _, bad := range []string{`"version": 1,`, `"attempt_id": 47,`, `"seq": 0, `} {
		require.Error(t, fits(t, schema, []byte(strings.Replace(spelledExample(string(text)), bad, "", 1))), bad)
	}
}

// spelledExample is a schema's only example as it is spelled there.
func spelledExample(schema string) string {
	_, example, _ := strings.Cut(schema, `"examples": [`)
	return example[:strings.LastIndex(example, "]")]
}
