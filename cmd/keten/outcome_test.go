package main_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/internal/kafkatest"
)

// reportBadly asks what becomes of an outcome whose token is none.
func reportBadly(t *testing.T, api, host string) (status int, body string) {
	t.Helper()
	url := api + "/v1/tasks/" + uuid.NewString() + "/outcome"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"status":"succeeded"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer none")
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

// keten dev brings a key for outcome tokens along, which stays with its data, and
// answers to the name in its public URL.
func TestDevKeepsItsOutcomeKey(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-outcome-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	file := filepath.Join(dir, "outcome.key")
	var first []byte
	for range 2 {
		p := spawn(t, nil, "dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--public-url", "https://Keten.example:8443/")
		api := p.await(`API +(http://\S+)/v1`)[1]
		for _, host := range []string{"", "keten.example:8443"} {
			status, body := reportBadly(t, api, host)
			require.Equal(t, http.StatusUnauthorized, status, body)
		}
		status, _ := reportBadly(t, api, "other.example")
		require.Equal(t, http.StatusMisdirectedRequest, status)
		p.stop()

		key, err := os.ReadFile(file)
		require.NoError(t, err)
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		if first != nil {
			require.Equal(t, first, key)
		}
		first = key
	}
}

// keten init makes the key where it is to be, and leaves one that is there.
func TestInitMakesTheOutcomeKey(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "outcome.key")
	args := []string{
		"init", "--kafka-brokers", strings.Join(kafkatest.Brokers(t), ","), "--prefix", "key-" + uuid.NewString()[:8],
		"--allow-single-replica", "--partitions", "1", "--outcome-key-file", file,
	}
	stdout, stderr, code := keten(t, args...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "made the key "+file)
	key, err := os.ReadFile(file)
	require.NoError(t, err)
	stdout, stderr, code = keten(t, args...)
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "made the key")
	again, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, key, again)
}
