//go:build unix

package devstack_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// Killed processes must not fill the disk, nor may a living one lose its data to
// a neighbor that starts.
func TestScratchRemovesOnlyWhatIsAbandoned(t *testing.T) {
	t.Parallel()
	const prefix = "keten-scratch-test-"
	abandoned, err := os.MkdirTemp("", prefix) //nolint:usetesting // beside what Scratch makes, and under its name
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(abandoned, "keten.lock"), nil, 0o600))
	foreign, err := os.MkdirTemp("", prefix) //nolint:usetesting // beside what Scratch makes, and under its name
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(foreign) })

	living, remove, err := devstack.Scratch(prefix)
	require.NoError(t, err)
	require.NoDirExists(t, abandoned)
	require.DirExists(t, foreign)

	second, removeSecond, err := devstack.Scratch(prefix)
	require.NoError(t, err)
	require.DirExists(t, living)
	require.NoError(t, remove())
	require.NoError(t, removeSecond())
	require.NoDirExists(t, living)
	require.NoDirExists(t, second)
}
