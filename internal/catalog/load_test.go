package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/catalog"
)

// Every bad catalog of the corpus gets exactly the errors its "# want:" lines
// start with, all at once and in the order of the file.
func TestLoadReportsEverything(t *testing.T) {
	t.Parallel()
	for _, file := range corpus(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text := read(t, file)
			_, err := catalog.Load(file)
			require.Error(t, err)
			got := messages(t, file, err)
			var want []string
			for line := range strings.Lines(string(text)) {
				if expected, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimRight(expected, "\n"))
				}
			}
			require.Len(t, got, len(want), strings.Join(got, "\n"))
			for i := range want {
				require.Truef(t, strings.HasPrefix(got[i], want[i]), "got  %s\nwant %s", got[i], want[i])
			}
		})
	}
}

func TestLoadAcceptsTheGoodCorpus(t *testing.T) {
	t.Parallel()
	for _, file := range corpus(t, "good") {
		_, err := catalog.Load(file)
		require.NoError(t, err)
	}
}

// What the reference shows is a catalog.
func TestLoadAcceptsTheReference(t *testing.T) {
	t.Parallel()
	text := string(read(t, "../../docs/reference/catalog.md"))
	blocks := strings.Split(text, "```yaml\n")[1:]
	require.Len(t, blocks, 2)
	for _, b := range blocks {
		block, _, ok := strings.Cut(b, "```")
		require.True(t, ok)
		_, err := catalog.Parse("docs/reference/catalog.md", []byte(block))
		require.NoError(t, err)
	}
}

func TestLoadReadsEveryField(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs("testdata/good/handlers")
	require.NoError(t, err)
	c, err := catalog.Load("testdata/good/full.yaml")
	require.NoError(t, err)

	key, ok := c.Type("certificate.key")
	require.True(t, ok)
	require.Equal(t, &catalog.Exec{
		Command:     []string{"./key.sh", "", "--quiet"},
		Dir:         dir,
		Env:         []string{"PATH", "HOME", "KETEN_CERT_STATE"},
		User:        "nobody",
		OutputLimit: 65_536,
	}, key.Exec)
	require.Equal(t, "Create a private key", key.Description)
	require.Equal(t, "keys", key.Queue)
	require.Equal(t, 90*time.Second, key.Timeout)
	require.Equal(t, 3, key.MaxAttempts)
	require.Equal(t, catalog.Backoff{Initial: 500 * time.Millisecond, Multiplier: 3, Max: time.Hour}, key.Backoff)
	require.Equal(t, catalog.OnInterruptRestart, key.OnInterrupt)
	require.Equal(t, catalog.AudienceUser, key.Audience)
	require.JSONEq(t, `{"type":"object","required":["key"],"properties":{"key":{"type":"string"}}}`, string(key.ResultSchemaJSON()))
	require.Equal(t, `{"type":"object","required":["key"],"properties":{"key":{"type":"string"}}}`, string(key.ResultSchemaJSON()), //nolint:testifylint // the order of the keys matters

		"the schema is shown to people: its keys keep the file's order")

	template, ok := c.Template("request-certificate")
	require.True(t, ok)
	require.Equal(t, "Ask for a certificate", template.Description)
	require.Len(t, template.Tasks, 3)
	require.Equal(t, "certificate.key", template.Tasks[0].Type.Name)
	require.Equal(t, "payment.capture", template.Tasks[1].Type.Name)
	require.Equal(t, catalog.OnInterruptFail, template.Tasks[1].Type.OnInterrupt)
	require.Equal(t, []string{"certificate.key", "noop", "payment.capture"}, c.TypeNames())
	require.Equal(t, []string{"request-certificate"}, c.TemplateNames())
}

func TestLoadReadsRunners(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs("testdata/good")
	require.NoError(t, err)
	c, err := catalog.Load("testdata/good/runners.yaml")
	require.NoError(t, err)
	publish, _ := c.Type("dns.publish")
	require.Equal(t, &catalog.HTTP{
		Method: "PUT", URL: "https://dns.example:8443/zones/main?mode=strict",
		Headers:     map[string]string{"X-Team": "web", "Accept-Language": "en, de;q=0.5"},
		HeadersFrom: map[string]string{"Authorization": "/run/secrets/dns", "X-Second": filepath.Join(dir, "secrets/second")},
		Deferred:    true, Status: map[int]string{409: "success", 423: "retry", 404: "fail", 200: "pending"},
	}, publish.HTTP)
	require.Nil(t, publish.Exec)
	require.Equal(t, "gpu", publish.Queue)
	require.Equal(t, 4, publish.MaxConcurrent)
	ask, _ := c.Type("ask")
	require.True(t, ask.HTTP.AllowPrivate)
	require.Equal(t, "GET", ask.HTTP.Method)
	plain, _ := c.Type("plain")
	require.Equal(t, &catalog.HTTP{Method: "POST", URL: "https://api.example", Headers: map[string]string{}, HeadersFrom: map[string]string{}, Status: map[int]string{}}, plain.HTTP)
	wait, _ := c.Type("wait")
	require.Equal(t, &catalog.Sleep{Duration: 10 * time.Second}, wait.Sleep)
	waitFor, _ := c.Type("wait.for")
	require.Equal(t, &catalog.Sleep{}, waitFor.Sleep)
	require.Zero(t, waitFor.MaxConcurrent)
	goType, _ := c.Type("go.type")
	require.Equal(t, 10_000, goType.MaxConcurrent)
}

// A URL may hold a secret: no error repeats it.
func TestLoadRepeatsNoURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"https://s3cret:s3cret@a", "https://a b/s3cret", "ftp://s3cret", "https://:80/s3cret"} {
		_, err := catalog.Parse("c.yaml", []byte("types: {a: {http: {url: '"+url+"'}}}"))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestLoadFillsInDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types:
  noop: {}
  command: {exec: {command: [true-ish]}}
  alone: {exec: {command: [x], env: [], dir: /opt/../srv}}
templates: {t: {tasks: [{name: one, type: noop}]}}
`)
	noop, ok := c.Type("noop")
	require.True(t, ok)
	require.Equal(t, &catalog.Type{
		Name: "noop", Queue: "default", Timeout: time.Hour, MaxAttempts: 1,
		Backoff:     catalog.Backoff{Initial: time.Second, Multiplier: 2, Max: 5 * time.Minute},
		OnInterrupt: "restart", Audience: "operator",
	}, noop)
	command, ok := c.Type("command")
	require.True(t, ok)
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	require.Equal(t, &catalog.Exec{
		Command: []string{"true-ish"}, Dir: here, Env: []string{"PATH"}, OutputLimit: 262_144,
	}, command.Exec)
	alone, ok := c.Type("alone")
	require.True(t, ok)
	require.Equal(t, "/srv", alone.Exec.Dir)
	require.Empty(t, alone.Exec.Env, "an empty list passes nothing on")
	require.Nil(t, noop.ArgsSchemaJSON())

	template, ok := c.Template("t")
	require.True(t, ok)
	require.JSONEq(t, `{"type":"object","additionalProperties":false}`, string(template.InputSchemaJSON()))
	_, ok = c.Template("u")
	require.False(t, ok)
	_, ok = c.Type("u")
	require.False(t, ok)
}

func TestLoadTakesADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := catalog.Load(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "catalog.yaml")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "catalog.yaml"), []byte("types: {a: {exec: {command: [x], dir: bin}}}"), 0o600))
	c, err := catalog.Load(dir)
	require.NoError(t, err)
	a, ok := c.Type("a")
	require.True(t, ok)
	require.Equal(t, filepath.Join(dir, "bin"), a.Exec.Dir)
}

func TestLoadRefusesAHugeFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "catalog.yaml")
	require.NoError(t, os.WriteFile(file, make([]byte, 4<<20+1), 0o600))
	_, err := catalog.Load(file)
	require.ErrorContains(t, err, "over the limit")
}

// What a catalog means does not depend on other files, not even on one that
// would do.
func TestLoadReadsNoOtherFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "schema.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"type":"string"}`), 0o600))
	_, err := catalog.Parse("c.yaml", []byte(`types: {a: {args_schema: {$ref: "file://`+file+`"}}}`))
	require.ErrorContains(t, err, "only references within the schema itself are possible")
}

// An error carries its place in fields, not only in its text.
func TestLoadErrorFields(t *testing.T) {
	t.Parallel()
	_, err := catalog.Parse("c.yaml", []byte("types:\n  a: {queue: 5}\n"))
	var le *catalog.LoadError
	require.ErrorAs(t, err, &le)
	require.Equal(t, &catalog.LoadError{
		File: "c.yaml", Line: 2, Column: 14, Path: "/types/a/queue", Message: "must be a string, is the number 5",
	}, le)
}

func TestLoadBoundsWhatItReports(t *testing.T) {
	t.Parallel()
	_, err := catalog.Parse("c.yaml", []byte("types:\n"+strings.Repeat("  x: 1\n", 500)))
	got := messages(t, "c.yaml", err)
	require.Len(t, got, 101)
	require.Contains(t, got[100], "more errors")
}

// Whatever the bytes, reading a catalog ends, with a catalog or with errors.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		files, err := filepath.Glob("testdata/" + folder + "/*.yaml")
		require.NoError(f, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(f, err)
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := catalog.Parse("c.yaml", text)
		require.NotEqual(t, c == nil, err == nil)
	})
}

func parse(t testing.TB, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("catalog.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

func corpus(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/" + folder + "/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return data
}

// messages takes joined errors apart and the file's name off each.
func messages(t *testing.T, file string, err error) []string {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%v", err)
	var out []string
	for _, e := range joined.Unwrap() {
		out = append(out, strings.TrimPrefix(e.Error(), file+":"))
	}
	return out
}
