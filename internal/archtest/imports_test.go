package archtest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/keten-ledger/keten"

// A row says what one package may know. Packages of this module are named
// relative to it.
type row struct {
	// ours are the packages of this module it may import.
	ours []string
	// foreign are the packages of other modules it may import, with what is
	// below them.
	foreign []string
	// std are the standard packages it may import; nil allows all.
	std []string
	// unseen must not be dragged in either, by any import of an import.
	unseen []string
	// wide packages may import whatever they like.
	wide bool
	// testing marks test code in an ordinary package: nothing else may have it
	// among its dependencies.
	testing bool
}

const (
	kafka      = "github.com/twmb/franz-go"
	postgres   = "github.com/jackc/pgx/v5"
	prometheus = "github.com/prometheus/client_golang"
	telemetry  = "go.opentelemetry.io/otel"
	strictJSON = "github.com/go-json-experiment/json"
	uuids      = "github.com/google/uuid"
)

// table is the architecture. A new edge is a design change: say so in the
// commit, and change .golangci.yml with it.
func table() map[string]row {
	return map[string]row{
		"ledger": {
			foreign: []string{strictJSON, uuids},
			std: []string{
				"bytes", "cmp", "crypto/sha256", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json",
				"errors", "fmt", "hash", "iter", "maps", "math", "slices", "sort", "strconv", "strings", "time", "unicode/utf8",
			},
			unseen: []string{kafka, postgres, prometheus},
		},
		"schemas": {unseen: []string{kafka, postgres, prometheus, uuids}},
		"internal/eventlog": {
			ours: []string{"ledger"}, foreign: []string{kafka, prometheus, uuids},
			unseen: []string{postgres},
		},
		"internal/readmodel": {
			ours: []string{"ledger"}, foreign: []string{postgres, "github.com/pressly/goose/v3", uuids},
			unseen: []string{kafka},
		},
		"internal/readmodel/history": {ours: []string{"ledger"}, foreign: []string{uuids}, testing: true},
		"internal/catalog": {
			ours:    []string{"schemas"},
			foreign: []string{strictJSON, "github.com/santhosh-tekuri/jsonschema/v6", "go.yaml.in/yaml/v3", "golang.org/x/text"},
			unseen:  []string{kafka, postgres, prometheus},
		},
		"executor": {
			ours: []string{"ledger", "internal/eventlog", "internal/outbox", "internal/outcometoken"}, foreign: []string{prometheus, telemetry, uuids, "golang.org/x/sync"},
			unseen: []string{postgres, module + "/internal/readmodel", module + "/projector", module + "/httpapi"},
		},
		"executor/executortest": {
			ours: []string{"ledger", "executor"}, foreign: []string{uuids},
			unseen: []string{postgres, module + "/internal/readmodel", module + "/projector", module + "/httpapi"}, testing: true,
		},
		"executor/handlers": {
			ours: []string{"ledger", "executor"}, foreign: []string{prometheus, telemetry, uuids, "code.dny.dev/ssrf", "golang.org/x/sys"},
			unseen: []string{postgres, module + "/internal/readmodel", module + "/projector", module + "/httpapi"},
		},
		"worker": {
			ours: []string{"ledger", "executor", "internal/eventlog", "internal/outcometoken"}, foreign: []string{prometheus, "golang.org/x/sync"},
			unseen: []string{postgres, module + "/internal/readmodel", module + "/internal/catalog", module + "/projector", module + "/httpapi"},
		},
		"projector": {
			ours: []string{"ledger", "internal/eventlog", "internal/readmodel"}, foreign: []string{postgres, prometheus, uuids},
			unseen: []string{module + "/executor", module + "/httpapi"},
		},
		"httpapi": {
			ours:    []string{"ledger", "schemas", "internal/readmodel", "internal/catalog", "internal/outcometoken"},
			foreign: []string{"github.com/danielgtaylor/huma/v2", "github.com/gorilla/mux", prometheus, "github.com/swaggest/swgui", uuids},
			unseen:  []string{kafka, module + "/projector", module + "/executor", module + "/internal/eventlog"},
		},
		"internal/outbox":       {ours: []string{"ledger"}, foreign: []string{"github.com/gofrs/flock", uuids}, unseen: []string{kafka, postgres, prometheus}},
		"internal/outcometoken": {foreign: []string{uuids}, unseen: []string{kafka, postgres, prometheus}},
		"internal/devstack": {
			ours:    []string{"internal/devstack/child"},
			foreign: []string{"github.com/fergusstrange/embedded-postgres", "github.com/gofrs/flock", kafka, postgres, "golang.org/x/sys"},
		},
		"internal/devstack/child": {foreign: []string{"golang.org/x/sys"}, unseen: []string{kafka, postgres}},
		// What a program of somebody else can import.
		"examples/hello-handler": {ours: []string{"ledger", "executor", "worker"}},
		"cmd/keten":              {wide: true},
		"internal/archtest":      {testing: true},
		"internal/eventlogtest":  {wide: true, testing: true},
		"internal/kafkatest":     {wide: true, testing: true},
		"internal/mutants":       {testing: true},
		"internal/pgtest":        {wide: true, testing: true},
		"internal/simtest":       {ours: []string{"ledger"}, foreign: []string{uuids}, testing: true},
		"internal/teststack":     {wide: true, testing: true},
		"tests/chaos":            {testing: true},
	}
}

// A pkg is what `go list -deps -json` tells of one package.
type pkg struct {
	ImportPath string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// ours tells whether it is code of this module; a folder of tests is not.
func (p pkg) ours() bool { return below(p.ImportPath, module) && len(p.GoFiles) > 0 }

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// The table holds for the whole module.
func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	require.Empty(t, violations(table(), listPackages(t)))
}

// Each clause of the table refuses an edge that breaks it: what is planted here
// would otherwise pass unseen the day somebody does it.
func TestBrokenImportsAreSeen(t *testing.T) {
	t.Parallel()
	std := func(paths ...string) []pkg {
		var ps []pkg
		for _, p := range paths {
			ps = append(ps, pkg{ImportPath: p, Standard: true})
		}
		return ps
	}
	tests := map[string]struct {
		plant pkg
		want  string
	}{
		"a package without a row":      {pkg{ImportPath: module + "/utils"}, "utils: has no row in the table"},
		"a clock in the ledger":        {pkg{ImportPath: module + "/ledger", Imports: []string{"context"}}, "ledger: may not import context"},
		"Kafka in the API":             {pkg{ImportPath: module + "/httpapi", Imports: []string{kafka + "/pkg/kgo"}}, "httpapi: may not import " + kafka + "/pkg/kgo"},
		"a package named like another": {pkg{ImportPath: module + "/schemas", Imports: []string{module + "/ledgerx"}}, "schemas: may not import ledgerx"},
		"Postgres behind the executor": {pkg{ImportPath: module + "/executor", Deps: []string{postgres + "/pgconn"}}, "executor: drags in " + postgres + "/pgconn"},
		"test code in the program": {
			pkg{ImportPath: module + "/cmd/keten", Deps: []string{module + "/internal/pgtest"}},
			"cmd/keten: drags in test code: internal/pgtest",
		},
		"the test runner in the program": {pkg{ImportPath: module + "/cmd/keten", Imports: []string{"testing"}}, "cmd/keten: may not import testing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.plant.GoFiles = []string{"planted.go"}
			found := violations(table(), append(std("context", "testing"), tt.plant))
			require.Contains(t, found, tt.want)
		})
	}
	require.Contains(t, violations(table(), nil), "ledger: the table has a row for it, and there is no such package")
}

// violations returns one sentence for each edge the table does not have, and
// for each row that stands for nothing.
func violations(rows map[string]row, packages []pkg) []string {
	standard := map[string]bool{}
	for _, p := range packages {
		if p.Standard {
			standard[p.ImportPath] = true
		}
	}
	var found []string
	seen := map[string]bool{}
	for _, p := range packages {
		if !p.ours() {
			continue
		}
		r, ok := rows[p.name()]
		if !ok {
			found = append(found, p.name()+": has no row in the table")
			continue
		}
		seen[p.name()] = true
		found = append(found, forbiddenImports(p, r, standard)...)
		found = append(found, forbiddenDeps(p, r, rows)...)
	}
	for name := range rows {
		if !seen[name] {
			found = append(found, name+": the table has a row for it, and there is no such package")
		}
	}
	slices.Sort(found)
	return found
}

func forbiddenImports(p pkg, r row, standard map[string]bool) []string {
	var found []string
	for _, path := range p.Imports {
		name := strings.TrimPrefix(path, module+"/")
		switch {
		// Directly: embedded-postgres brings it along.
		case path == "testing" && !r.testing:
			found = append(found, p.name()+": may not import testing")
		case r.wide:
		case standard[path] && (r.std == nil || slices.Contains(r.std, path)):
		case name != path && slices.Contains(r.ours, name):
		case isOrBelow(path, r.foreign):
		default:
			found = append(found, fmt.Sprintf("%s: may not import %s", p.name(), name))
		}
	}
	return found
}

func forbiddenDeps(p pkg, r row, rows map[string]row) []string {
	var found []string
	for _, path := range p.Deps {
		name := strings.TrimPrefix(path, module+"/")
		if isOrBelow(path, r.unseen) {
			found = append(found, fmt.Sprintf("%s: drags in %s", p.name(), name))
		}
		if !r.testing && (rows[name].testing || isOrBelow(path, []string{"github.com/stretchr/testify"})) {
			found = append(found, fmt.Sprintf("%s: drags in test code: %s", p.name(), name))
		}
	}
	return found
}

func isOrBelow(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return path == root || below(path, root) })
}

func below(path, root string) bool { return strings.HasPrefix(path, root+"/") }

// listPackages asks the go command for the packages of the module and all they
// depend on, tests left aside.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,GoFiles,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var packages []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else {
			require.NoError(t, err)
		}
		packages = append(packages, p)
	}
}
