package main_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutants builds and runs the command.
func mutants(t *testing.T, args ...string) (string, error) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "mutants")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(bin, args...).CombinedOutput()
	return string(out), err
}

// Whoever changes the code changes the table with it: every mutant's text stands
// in the code exactly once, and what it makes is Go.
func TestEveryMutantCanBeMade(t *testing.T) {
	t.Parallel()
	out, err := mutants(t, "-check")
	require.NoError(t, err, out)
}

// The table is there to be picked from by name.
func TestMutantsArePickedByName(t *testing.T) {
	t.Parallel()
	out, err := mutants(t, "-list", "-run", "^R2-prev$")
	require.NoError(t, err, out)
	require.Equal(t, 1, strings.Count(out, "\n"), out)
	require.True(t, strings.HasPrefix(out, "R2-prev "), out)
	out, err = mutants(t, "-list", "-run", "no such mutant")
	require.Error(t, err, out)
}
