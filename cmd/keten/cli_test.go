package main_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/devstack"
)

// closedPort is a loopback address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// What is wrong is said in a sentence that names the flag, with its exit code.
func TestWrongUseIsNamed(t *testing.T) {
	t.Parallel()
	db := "postgres://127.0.0.1:1/x"
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"serve", "--no-such-flag"}, 2, "unknown flag: --no-such-flag"},
		{[]string{"serve", "--roles", "api,cook", "--database-url", db}, 2, `--roles: unknown role "cook"`},
		{[]string{"serve"}, 2, "--database-url: roles api and projector need PostgreSQL"},
		{[]string{"serve", "--http-addr", "0.0.0.0:8080", "--database-url", db}, 2, "not a loopback address and no authentication is configured"},
		{[]string{"serve", "--slots", "0", "--database-url", db}, 2, "--slots: is 0, want 1 to 10000"},
		{[]string{"serve", "--log-format", "xml"}, 2, `--log-format: "xml" is neither text nor json`},
		{[]string{"serve", "--roles", "executor", "--queues", "default,"}, 2, `--queues: "" is not a queue's name`},
		{[]string{"serve", "--roles", "executor", "--queues", strings.Repeat("q", 256)}, 2, "--queues: "},
		{[]string{"serve", "--roles", "executor", "--http-allow-cidrs", "10.0.0.0"}, 2, `--http-allow-cidrs: "10.0.0.0" is not a network such as 10.1.0.0/16`},
		{[]string{"serve", "--roles", "executor", "--http-allow-cidrs", "10.0.0.1/8"}, 2, `--http-allow-cidrs: "10.0.0.1/8" is not a network`},
		{[]string{"serve", "--roles", "executor", "--http-allow-cidrs", "::ffff:10.0.0.0/104"}, 2, `--http-allow-cidrs: "::ffff:10.0.0.0/104" is not a network`},
		{[]string{"serve", "--roles", "executor", "--http-addr", "127.0.0.1:0", "--catalog", write(t, "c.yaml", "types:\n  a: {exec: {command: [x], user: no-such-user}}\n")}, 2, "--catalog: type a: user"},
		{[]string{"serve", "--roles", "executor", "--http-addr", "127.0.0.1:0", "--catalog", write(t, "c.yaml", "types:\n  a: {paint: x}\n")}, 2, "c.yaml:2:"},
		{[]string{"serve", "--database-url", db, "--public-url", "keten.example"}, 2, `--public-url: is "keten.example", want a URL such as https://keten.example`},
		{[]string{"serve", "--database-url", db, "--public-url", "https://keten.example?x=1"}, 2, "--public-url: must have no user, query or fragment"},
		{[]string{"serve", "--roles", "executor", "--http-addr", "127.0.0.1:0", "--outcome-key-file", write(t, "outcome.key", "secret\n")}, 2, "outcome.key: line 1 is not a secret in hexadecimal digits"},
		{[]string{"start"}, 2, "want a template's name, or --file"},
		{[]string{"start", "t", "novalue"}, 2, `argument "novalue": want name=value`},
		{[]string{"show"}, 2, "want one argument, the collection's id"},
		{[]string{"list", "--api", "ftp://x"}, 2, "--api: \"ftp://x\" is not an http or https URL"},
		{[]string{"list", "--api", "http://" + closedPort(t)}, 7, "reach the API"},
	} {
		_, stderr, code := keten(t, c.args...)
		require.Equal(t, c.code, code, "%v: %s", c.args, stderr)
		require.Contains(t, stderr, c.text, c.args)
	}
}

// Queues of the catalog that a process leaves to others are named when it starts.
func TestServeNamesItsQueues(t *testing.T) {
	t.Parallel()
	catalog := write(t, "c.yaml", `types: {a: {sleep: {}, queue: gpu}, b: {sleep: {}}, c: {queue: elsewhere}}
templates: {t: {tasks: [{name: x, type: b, queue: slow}]}}
`)
	for queues, want := range map[string]string{
		"":                      `served=[default] others="[gpu slow]"`,
		"slow,gpu,slow":         `served="[gpu slow]" others=[default]`,
		"slow,gpu,default":      "",
		"elsewhere,other,extra": `served="[elsewhere extra other]" others="[default gpu slow]"`,
	} {
		_, stderr, code := keten(t, "serve", "--roles", "executor", "--http-addr", "127.0.0.1:0", "--wait", "0s", "--outbox-dir", "",
			"--kafka-brokers", closedPort(t), "--catalog", catalog, "--queues", queues)
		require.Equal(t, 7, code, stderr)
		if want == "" {
			require.NotContains(t, stderr, "does not serve")
		} else {
			require.Contains(t, stderr, want)
		}
	}
}

// A service that is away at the start is an error with a code of its own, or
// waited for with a line every few seconds.
func TestServicesAwayAtTheStart(t *testing.T) {
	t.Parallel()
	broker := closedPort(t)
	args := []string{"serve", "--roles", "executor", "--http-addr", "127.0.0.1:0", "--outbox-dir", "", "--kafka-brokers", broker}
	_, stderr, code := keten(t, append(args, "--wait", "0s")...)
	require.Equal(t, 7, code, stderr)
	require.Contains(t, stderr, broker)
	require.NotContains(t, stderr, "waiting for a service")

	_, stderr, code = keten(t, append(args, "--wait", "4s")...)
	require.Equal(t, 7, code, stderr)
	require.Contains(t, stderr, "waiting for a service to come up")
	require.Contains(t, stderr, "waited 4s (--wait)")
}

// The client's exit codes tell scripts how a collection ended.
func TestClientExitCodes(t *testing.T) {
	t.Parallel()
	dir, remove, err := devstack.Scratch("keten-cli-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove()) })
	catalog := write(t, "catalog.yaml", `types:
  good: {description: succeeds, exec: {command: [echo, "{}"]}}
  bad: {description: fails, exec: {command: [sh, -c, "echo no luck today >&2; exit 1"]}}
  slow: {description: takes its time, exec: {command: [sleep, "600"]}}
`)
	p := spawn(t, nil, "dev", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--catalog", catalog, "--shutdown-grace", "1s")
	api := p.await(`API +(http://\S+)/v1`)[1]
	run := func(typ string, args ...string) (string, string, int) {
		return keten(t, append([]string{"start", "--api", api, "--file", requestFile(t, typ, typ), "--wait"}, args...)...)
	}
	stdout, stderr, code := run("good")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "succeeded")

	stdout, stderr, code = run("bad")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "no luck today")
	require.Contains(t, stderr, "run 1 failed")

	_, stderr, code = run("slow", "--timeout", "1s")
	require.Equal(t, 5, code, stderr)

	_, stderr, code = keten(t, "show", "--api", api, uuid.NewString())
	require.Equal(t, 6, code, stderr)

	stdout, stderr, code = keten(t, "list", "--api", api, "--status", "failed")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "no luck today")
	require.Contains(t, stdout, "succeeded 1 · failed 1")

	_, stderr, code = keten(t, "start", "--api", api, "no-such-template")
	require.Equal(t, 6, code, stderr)
	_, stderr, code = keten(t, "start", "--api", api, "--file", requestFile(t, "x", "no-such-type"))
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "/tasks/0/type")
	require.Contains(t, stderr, "unknown_type")
	p.stop()
}
