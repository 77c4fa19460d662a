package httpapi_test

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/httpapi"
	"github.com/keten-ledger/keten/schemas"
)

var update = flag.Bool("update", false, "rewrite schemas/openapi.yaml")

// The committed document is the one the code makes:
// go test ./httpapi -run OpenAPI -update rewrites it.
func TestOpenAPIIsCommitted(t *testing.T) {
	t.Parallel()
	doc, err := httpapi.OpenAPI(nil)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("../schemas/openapi.yaml", doc, 0o644))
		return
	}
	committed, err := schemas.FS.ReadFile("openapi.yaml")
	require.NoError(t, err)
	require.Equal(t, string(committed), string(doc), "run: go test ./httpapi -run OpenAPI -update")
}
