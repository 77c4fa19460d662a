package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/catalog"
)

// What the guide shows is what is compiled and tested here.
func TestGuideShowsTheseFiles(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/guides/handlers.md")
	require.NoError(t, err)
	for _, file := range []string{"main.go", "main_test.go", "catalog.yaml"} {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		shown := string(b)
		if i := strings.Index(shown, "\npackage main"); i >= 0 {
			shown = shown[i+1:] // without the comment about the guide
		}
		if i := strings.Index(shown, "types:"); file == "catalog.yaml" {
			shown = shown[i:]
		}
		require.Contains(t, string(guide), shown, "docs/guides/handlers.md must show %s as it is", file)
	}
}

// The catalog knows the types that the program serves, and no others.
func TestCatalogFitsTheHandlers(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load("catalog.yaml")
	require.NoError(t, err)
	require.Equal(t, handlers("").Types(), c.TypeNames())
}
