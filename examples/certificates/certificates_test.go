// Package certificates_test runs the example the way an executor does, one
// command after another, without an executor.
package certificates_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/internal/catalog"
)

// The whole story: key and request, a proof that fails and says what to do,
// the cause put right, and the same chain going on from there.
func TestCertificate(t *testing.T) {
	t.Parallel()
	x := setup(t)
	x.script(t, "prepare.sh")
	c := x.start(t, `{"domain":"shop.example","days":30}`)

	result := c.succeed(t, 0, nil)
	require.JSONEq(t, `{"domain":"shop.example","key":"keys/shop.example.key"}`, string(result))
	previous := c.succeed(t, 1, result)
	var requested struct {
		Key, CSR  string
		Challenge struct{ File, Content string }
	}
	require.NoError(t, json.Unmarshal(previous, &requested))

	proof := c.run(t, 2, previous)
	require.Equal(t, 75, proof.code)
	require.Empty(t, proof.stdout)
	require.Equal(t, "shop.example is not proven: the file "+filepath.Join(x.state, requested.Challenge.File)+
		" must contain the line "+requested.Challenge.Content+" but does not exist; to put it there, run "+
		"KETEN_CERT_STATE='"+x.state+"' "+x.path(t, "publish-challenge.sh")+" shop.example, then retry", proof.message())

	file := filepath.Join(x.state, requested.Challenge.File)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("something else\n"), 0o600))
	proof = c.run(t, 2, previous)
	require.Equal(t, 75, proof.code)
	require.Contains(t, proof.message(), "but contains something else; to put it there, run ")

	x.script(t, "publish-challenge.sh", "shop.example")
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, requested.Challenge.Content+"\n", string(written))
	for i := 2; i < len(c.tasks); i++ {
		previous = c.succeed(t, i, previous)
	}
	leaf := x.verify(t, "shop.example", previous)
	require.InDelta(t, 30*24*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore), float64(time.Minute))
	x.nothingLeftOver(t)
}

// All domains at once on a state that nothing has touched: the account and the
// authority are made by whoever comes first, and by nobody else.
func TestCertificatesSideBySide(t *testing.T) {
	t.Parallel()
	x := setup(t)
	domains := domains(t)
	results := make([]json.RawMessage, len(domains))
	var wg sync.WaitGroup
	for i, domain := range domains {
		wg.Go(func() { results[i] = x.all(t, domain) })
	}
	wg.Wait()
	for i, domain := range domains {
		x.verify(t, domain, results[i])
	}
	x.nothingLeftOver(t)
}

// Two collections want a certificate for one domain at the same time: neither
// takes the key from under the other.
func TestOneDomainTwiceSideBySide(t *testing.T) {
	t.Parallel()
	x := setup(t)
	results := make([]json.RawMessage, 4)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = x.all(t, "shop.example") })
	}
	wg.Wait()
	serials := map[string]bool{}
	for _, result := range results {
		var installed struct {
			Serial string
		}
		require.NoError(t, json.Unmarshal(result, &installed))
		serials[installed.Serial] = true
	}
	require.Len(t, serials, len(results), "each collection has a certificate of its own")
	installed, err := os.ReadFile(filepath.Join(x.state, "installed", "shop.example.pem"))
	require.NoError(t, err)
	certificates := certificates(t, installed)
	x.checkKey(t, "shop.example", certificates[0])
}

// An executor that dies makes its task run again. Every task then has the
// result it had, and leaves the same files; only a request is signed anew.
func TestEveryTaskMayRunTwice(t *testing.T) {
	t.Parallel()
	x := setup(t)
	x.script(t, "publish-challenge.sh", "shop.example")
	c := x.start(t, `{"domain":"shop.example"}`)
	var previous json.RawMessage
	for i := range c.tasks {
		once, files := c.succeed(t, i, previous), x.files(t)
		again := c.succeed(t, i, previous)
		require.JSONEq(t, string(once), string(again), c.tasks[i].Name)
		require.Equal(t, files, x.files(t), c.tasks[i].Name)
		previous = once
	}
	x.verify(t, "shop.example", previous)
}

func TestPrepareLeavesOneDomainOut(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"api.example"}} {
		x := setup(t)
		without := "shop.example"
		if args != nil {
			without = args[0]
		}
		x.script(t, "publish-challenge.sh", without) // of an earlier demo
		x.script(t, "prepare.sh", args...)
		for _, domain := range domains(t) {
			files, err := filepath.Glob(filepath.Join(x.state, "challenges", domain, "*"))
			require.NoError(t, err)
			require.Equal(t, domain == without, len(files) == 0, domain)
		}
	}
}

// Only host names get past the catalog.
func TestCatalogRefusesWhatIsNoDomain(t *testing.T) {
	t.Parallel()
	x := setup(t)
	for _, domain := range notDomains() {
		_, err := x.template.Resolve(encode(t, map[string]any{"domain": domain}))
		var invalid *catalog.ValidationError
		require.ErrorAs(t, err, &invalid, domain)
		require.Equal(t, "/domain", invalid.Violations[0].Path)
	}
	for _, days := range []any{0, 398, 1.5, "30"} {
		_, err := x.template.Resolve(encode(t, map[string]any{"domain": "shop.example", "days": days}))
		require.Error(t, err, "%v", days)
	}
	for _, domain := range domains(t) {
		_, err := x.template.Resolve(encode(t, map[string]any{"domain": domain}))
		require.NoError(t, err, domain)
	}
}

// The commands do not rely on the catalog: called by anybody with anything,
// they fail for good before they touch a file.
func TestCommandsRefuseWhatIsNoDomain(t *testing.T) {
	t.Parallel()
	x := setup(t)
	c := x.start(t, `{"domain":"shop.example"}`)
	for _, domain := range notDomains() {
		c.tasks[0].Args = encode(t, map[string]any{"domain": domain})
		o := c.run(t, 0, nil)
		require.Equal(t, 1, o.code, domain)
		require.True(t, strings.HasPrefix(o.message(), "not a domain: "), o.message())
	}
	for _, stdin := range []string{"", "{", `{"args":{"domain":"shop.example"}`, `{"args":{"domain":"shop.example"}} x`} {
		o := c.feed(t, 0, stdin)
		require.Equal(t, 1, o.code, stdin)
		require.Equal(t, "standard input is not JSON", o.message())
	}
	o := c.feed(t, 0, `{"args":{"domain":"shop.example"},"task_id":"../../x"}`)
	require.Equal(t, 1, o.code)
	require.Equal(t, "task_id is not a UUID", o.message())

	entries, err := os.ReadDir(x.state)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// What the previous task is said to have written is checked, not believed.
func TestCommandsDoNotBelieveThePreviousResult(t *testing.T) {
	t.Parallel()
	x := setup(t)
	x.script(t, "publish-challenge.sh", "shop.example")
	c := x.start(t, `{"domain":"shop.example"}`)
	var results []json.RawMessage
	var previous json.RawMessage
	for i := range c.tasks {
		previous = c.succeed(t, i, previous)
		results = append(results, previous)
	}
	secret := filepath.Join(x.state, "account.secret")
	for task, fields := range map[int][]string{
		1: {"key"}, 2: {"key", "csr", "challenge"}, 3: {"key", "csr"}, 4: {"key", "certificate"},
	} {
		for _, field := range fields {
			for _, value := range []any{nil, "", secret, "../" + secret, "requests/../account.secret", "requests/a/b.csr", "0a0b", "keys/$(id).key", map[string]any{"file": secret}} {
				var forged map[string]any
				require.NoError(t, json.Unmarshal(results[task-1], &forged))
				forged[field] = value
				o := c.run(t, task, encode(t, forged))
				require.Equal(t, 1, o.code, "task %d, %s %v: %s", task, field, value, o.stderr)
				require.Contains(t, o.message(), "the previous task's result ", "task %d, %s %v", task, field, value)
			}
		}
	}
}

// A certificate that is not what it should be is never installed.
func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	x := setup(t)
	c, other := x.start(t, `{"domain":"shop.example"}`), x.start(t, `{"domain":"mail.example"}`)
	for _, domain := range []string{"shop.example", "mail.example"} {
		x.script(t, "publish-challenge.sh", domain)
	}
	var signed, otherSigned json.RawMessage
	for i := range 4 {
		signed, otherSigned = c.succeed(t, i, signed), other.succeed(t, i, otherSigned)
	}
	var mine, others struct{ Key, Certificate string }
	require.NoError(t, json.Unmarshal(signed, &mine))
	require.NoError(t, json.Unmarshal(otherSigned, &others))

	x.replace(t, mine.Certificate, others.Certificate, func() {
		require.Contains(t, c.run(t, 4, signed).message(), "is not good for shop.example")
	})
	x.replace(t, mine.Key, others.Key, func() {
		require.Contains(t, c.run(t, 4, signed).message(), "does not belong to")
	})
	require.NoFileExists(t, filepath.Join(x.state, "installed", "shop.example.pem"))
	x.verify(t, "shop.example", c.succeed(t, 4, signed))
}

// The commands' JSON reader agrees with Go's about every document: which are
// JSON, and which scalars are in them.
func TestJSONReader(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `[]`, `""`, ` {"a" : [ ] } `, `{"a/b~c":{"":1}}`, `[[1,[2]],-0.5e+10,true,false,null]`, "\t\r\n0\n",
		`{"s":"\"\\\/\b\f\n\r\t\u00e9 é \\n \\\\"}`, `"a\/b\\/c\\\/"`,
		``, ` `, `{`, `}`, `[1,]`, `[,1]`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{1:1}`, `[1 2]`, `"`, `"\"`, `"\x"`, `"\u12"`,
		"\"a\nb\"", "\"\t\"", `01`, `1.`, `.5`, `+1`, `1e`, `-`, `tru`, `nulll`, `1 1`, `{} x`, `'a'`, `[1}`, `{"a":1]`,
	} {
		checkReader(t, text)
	}
	rapid.Check(t, func(rt *rapid.T) {
		checkReader(rt, rapid.StringMatching(`([{}\[\],:"\\/u0-9a ]|"a":|"\\\\|-1\.5e3|true|\{"k":|[ \n])*`).Draw(rt, "text"))
	})
}

type example struct {
	state    string
	types    *catalog.Catalog
	template *catalog.Template
}

// A collection is a chain whose tasks have ids.
type collection struct {
	example
	id    string
	ids   []string
	tasks []catalog.TaskSpec
}

// An outcome is what a command left behind.
type outcome struct {
	stdout string
	stderr string
	code   int
}

func setup(t *testing.T) example {
	t.Helper()
	_, err := exec.LookPath("openssl")
	require.NoError(t, err, "the example needs openssl; on Debian and Ubuntu: apt-get install openssl")
	types, err := catalog.Load(".")
	require.NoError(t, err)
	template, ok := types.Template("request-certificate")
	require.True(t, ok)
	return example{state: t.TempDir(), types: types, template: template}
}

func (x example) start(t *testing.T, input string) collection {
	t.Helper()
	tasks, err := x.template.Resolve(json.RawMessage(input))
	require.NoError(t, err)
	c := collection{example: x, id: uuid.NewString(), tasks: tasks}
	for range tasks {
		c.ids = append(c.ids, uuid.NewString())
	}
	return c
}

// all publishes the challenge of a domain and runs the chain to its end.
func (x example) all(t *testing.T, domain string) json.RawMessage {
	x.script(t, "publish-challenge.sh", domain)
	c := x.start(t, `{"domain":"`+domain+`"}`)
	var previous json.RawMessage
	for i := range c.tasks {
		previous = c.succeed(t, i, previous)
	}
	return previous
}

// succeed runs task i, and returns its result once it fits the result_schema.
func (c collection) succeed(t *testing.T, i int, previous json.RawMessage) json.RawMessage {
	t.Helper()
	o := c.run(t, i, previous)
	require.Zero(t, o.code, o.stderr)
	require.NoError(t, c.types.CheckResult(c.tasks[i].Type, json.RawMessage(o.stdout)), o.stdout)
	return json.RawMessage(o.stdout)
}

func (c collection) run(t *testing.T, i int, previous json.RawMessage) outcome {
	t.Helper()
	if previous == nil {
		previous = json.RawMessage("null")
	}
	return c.feed(t, i, string(encode(t, map[string]any{
		"args": c.tasks[i].Args, "previous": previous, "collection_id": c.id, "task_id": c.ids[i],
		"run": 1, "attempt": 1, "fence": 123, "deadline": "2030-01-01T00:00:00Z",
	})))
}

// feed executes the command of task i as the catalog says: argv without a
// shell, in its directory, with the variables that are listed.
func (c collection) feed(t *testing.T, i int, stdin string) outcome {
	t.Helper()
	kind, ok := c.types.Type(c.tasks[i].Type)
	require.True(t, ok)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(c.tasks[i].TimeoutMS)*time.Millisecond)
	defer cancel()
	cmd := exec.CommandContext(ctx, kind.Exec.Command[0], kind.Exec.Command[1:]...)
	cmd.Dir = kind.Exec.Dir
	cmd.Env = []string{} // none: not the test's own
	for _, name := range kind.Exec.Env {
		if name == "KETEN_CERT_STATE" {
			cmd.Env = append(cmd.Env, name+"="+c.state)
		} else {
			cmd.Env = append(cmd.Env, name+"="+os.Getenv(name))
		}
	}
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.LessOrEqual(t, stdout.Len(), kind.Exec.OutputLimit)
	return outcome{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// message is the last line of the log.
func (o outcome) message() string {
	lines := strings.Split(strings.TrimRight(o.stderr, "\n"), "\n")
	return lines[len(lines)-1]
}

// script runs a script of the example as a person would.
func (x example) script(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), x.path(t, name), args...)
	cmd.Env = append(os.Environ(), "KETEN_CERT_STATE="+x.state)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func (example) path(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	require.NoError(t, err)
	return path
}

// verify checks an installed certificate with two tools that have nothing in
// common, and returns it.
func (x example) verify(t *testing.T, domain string, result json.RawMessage) *x509.Certificate {
	t.Helper()
	var installed struct{ Bundle, Key, Serial string }
	require.NoError(t, json.Unmarshal(result, &installed))
	bundle, authority := filepath.Join(x.state, installed.Bundle), filepath.Join(x.state, "ca", "ca.crt")

	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-x509_strict", "-CAfile", authority,
		"-purpose", "sslserver", "-verify_hostname", domain, bundle).CombinedOutput()
	require.NoError(t, err, string(out))

	pemBundle, err := os.ReadFile(bundle)
	require.NoError(t, err)
	require.NotContains(t, string(pemBundle), "PRIVATE")
	chain := certificates(t, pemBundle)
	require.Len(t, chain, 2)
	pemAuthority, err := os.ReadFile(authority)
	require.NoError(t, err)
	require.NotContains(t, string(pemAuthority), "PRIVATE")
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pemAuthority))
	_, err = chain[0].Verify(x509.VerifyOptions{DNSName: domain, Roots: roots})
	require.NoError(t, err)
	require.Equal(t, strings.ToUpper(chain[0].SerialNumber.Text(16)), strings.TrimLeft(installed.Serial, "0"))
	x.checkKey(t, domain, chain[0])
	return chain[0]
}

func (x example) checkKey(t *testing.T, domain string, leaf *x509.Certificate) {
	t.Helper()
	file := filepath.Join(x.state, "keys", domain+".key")
	for _, secret := range []string{file, filepath.Join(x.state, "account.secret"), filepath.Join(x.state, "ca", "authority.pem")} {
		info, err := os.Stat(secret)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), secret)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	private, ok := key.(*ecdsa.PrivateKey)
	require.True(t, ok)
	require.True(t, private.PublicKey.Equal(leaf.PublicKey))
}

// replace puts the content of one file into another while try runs.
func (x example) replace(t *testing.T, file, by string, try func()) {
	t.Helper()
	path := filepath.Join(x.state, file)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(x.state, by))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	try()
	require.NoError(t, os.WriteFile(path, before, 0o600))
}

// files returns the content of all files but requests.
func (x example) files(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(x.state, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".csr" {
			return err
		}
		content, err := os.ReadFile(path)
		out[path] = string(content)
		return err
	})
	require.NoError(t, err)
	return out
}

func (x example) nothingLeftOver(t *testing.T) {
	t.Helper()
	scratch, err := filepath.Glob(filepath.Join(x.state, "tmp.*"))
	require.NoError(t, err)
	require.Empty(t, scratch)
}

func certificates(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		out = append(out, certificate)
	}
	return out
}

func domains(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("domains.txt")
	require.NoError(t, err)
	return strings.Fields(string(text))
}

func notDomains() []string {
	return []string{
		"", "example", "Shop.example", "shop..example", ".example", "shop.example.", "-x.example", "x-.example", "x.-y.example",
		"../etc/passwd", "../../x.example", "a/b.example", "shop.example\n", "shop.example\nx.example", "a b.example", "$(id).example",
		"`id`.example", "a;b.example", "*.example", "a\\b.example", "a\"b.example", "a'b.example", "bücher.example",
		strings.Repeat("a", 60) + ".example",
	}
}

// checkReader compares json.awk with encoding/json.
func checkReader(t require.TestingT, text string) {
	cmd := exec.Command("awk", "-f", "handlers/json.awk")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	require.Equal(t, json.Valid([]byte(text)), err == nil, "%q", text)
	if err != nil {
		require.Empty(t, out, "%q", text)
		return
	}
	require.Equal(t, flatten(t, json.NewDecoder(strings.NewReader(text)), ""), strings.Split(string(out), "\n"), "%q", text)
}

// flatten prints a document as json.awk does.
func flatten(t require.TestingT, d *json.Decoder, path string) []string {
	var raw json.RawMessage
	require.NoError(t, d.Decode(&raw))
	return append(lines(t, raw, path), "")
}

func lines(t require.TestingT, raw json.RawMessage, path string) []string {
	inner := json.NewDecoder(bytes.NewReader(raw))
	inner.UseNumber()
	first, err := inner.Token()
	require.NoError(t, err)
	open, compound := first.(json.Delim)
	if !compound {
		text := strings.Trim(string(raw), " \t\r\n")
		if strings.HasPrefix(text, `"`) {
			text = unslash(text[1 : len(text)-1])
		}
		return []string{path + "\t" + text}
	}
	var out []string
	for i := 0; inner.More(); i++ {
		at := path + "/" + string(encode(t, i))
		if open == '{' {
			start := inner.InputOffset()
			_, err := inner.Token()
			require.NoError(t, err)
			key := strings.Trim(string(raw[start:inner.InputOffset()]), " \t\r\n,")
			key = unslash(key[1 : len(key)-1])
			at = path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		}
		var value json.RawMessage
		require.NoError(t, inner.Decode(&value))
		out = append(out, lines(t, value, at)...)
	}
	return out
}

func unslash(s string) string { return strings.NewReplacer(`\\`, `\\`, `\/`, `/`).Replace(s) }

func encode(t require.TestingT, value any) json.RawMessage {
	data, err := json.Marshal(value)
	require.NoError(t, err)
	return data
}
