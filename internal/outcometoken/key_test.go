package outcometoken_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outcometoken"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one line": one, "a line end": one + "\n", "from Windows": one + "\r\n" + two + "\r\n",
		"comments": "# of 2026\n\n" + strings.ToUpper(one) + "\n  # old\n" + two, "longer": one + one,
	} {
		_, err := outcometoken.ParseKey(text)
		require.NoError(t, err, name)
	}
	for text, want := range map[string]string{
		"":                                   "no secret",
		"# nothing":                          "no secret",
		one[2:]:                              "line 1 has a secret of 31 bytes, want at least 32",
		one + "\n" + one[1:]:                 "line 2 is not a secret in hexadecimal digits",
		"correct horse battery":              "line 1 is not a secret",
		strings.Repeat(one+"\n", 9):          "line 9 has one secret too many, want at most 8",
		one + "\n" + two[:10] + "zz" + two:   "line 2 is not a secret",
		one + "  # with something behind it": "line 1 is not a secret",
	} {
		_, err := outcometoken.ParseKey(text)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), one[:8])
		require.NotContains(t, err.Error(), "horse")
	}
}

// A key file is made once, for its owner alone, whoever else makes it too.
func TestEnsureKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "outcome.key")
	var wg sync.WaitGroup
	made := make(chan bool, 8)
	for range cap(made) {
		wg.Go(func() {
			ok, err := outcometoken.EnsureKeyFile(path)
			if err == nil {
				_, err = outcometoken.LoadKey(path)
			}
			require.NoError(t, err)
			made <- ok
		})
	}
	wg.Wait()
	close(made)
	n := 0
	for ok := range made {
		if ok {
			n++
		}
	}
	require.Equal(t, 1, n)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else is left")
	before, err := outcometoken.LoadKey(path)
	require.NoError(t, err)
	require.False(t, before.Exposed())

	ok, err := outcometoken.EnsureKeyFile(path)
	require.NoError(t, err)
	require.False(t, ok)
	after, err := outcometoken.LoadKey(path)
	require.NoError(t, err)
	require.Equal(t, before.Mint(claims()), after.Mint(claims()), "it is kept")
	_, err = outcometoken.EnsureKeyFile(filepath.Join(dir, "none", "outcome.key"))
	require.ErrorContains(t, err, "make a key file")
}

// Who else may read or write the file is looked at.
func TestLoadKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outcome.key")
	_, err := outcometoken.LoadKey(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte(outcometoken.GenerateKey()), 0o600))
	for mode, exposed := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: false, 0o644: true, 0o444: true} {
		require.NoError(t, os.Chmod(path, mode))
		k, err := outcometoken.LoadKey(path)
		require.NoError(t, err)
		require.Equal(t, exposed, k.Exposed(), "%o", mode)
	}
	require.NoError(t, os.Chmod(path, 0o602))
	_, err = outcometoken.LoadKey(path)
	require.ErrorContains(t, err, "may be written by everybody (mode 0602)")

	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("#\n", 40<<10)), 0o600))
	_, err = outcometoken.LoadKey(path)
	require.ErrorContains(t, err, "more than")
	require.NoError(t, os.WriteFile(path, []byte("secret"), 0o600))
	_, err = outcometoken.LoadKey(path)
	require.ErrorContains(t, err, path+": line 1 is not a secret")
	_, err = outcometoken.LoadKey(filepath.Dir(path))
	require.Error(t, err)
}
