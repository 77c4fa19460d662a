package catalog

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// The defaults of a type.
const (
	defaultQueue       = "default"
	defaultTimeout     = time.Hour
	defaultMaxAttempts = 1
	defaultInitial     = time.Second
	defaultMultiplier  = 2
	defaultMaxBackoff  = 5 * time.Minute
	defaultMethod      = http.MethodPost
)

// readType reads one type. What is wrong is reported and left at its default,
// so that the rest, and what refers to the type, is read all the same.
func readType(name string, at cursor) *Type {
	t := &Type{
		Name:        name,
		Queue:       defaultQueue,
		Timeout:     defaultTimeout,
		MaxAttempts: defaultMaxAttempts,
		Backoff:     Backoff{Initial: defaultInitial, Multiplier: defaultMultiplier, Max: defaultMaxBackoff},
		OnInterrupt: OnInterruptRestart,
		Audience:    AudienceOperator,
	}
	fields := at.fields(append(runners(),
		"description", "args_schema", "result_schema", "queue", "timeout",
		"max_attempts", "max_concurrent", "backoff", "on_interrupt", "audience",
	), map[string]string{
		"callback": "callback is not supported by this version; the runners are " + strings.Join(runners(), ", "),
	})
	readRunner(t, fields)
	if f, ok := fields["args_schema"]; ok {
		t.args = readSchema(f)
	}
	if f, ok := fields["result_schema"]; ok {
		t.result = readSchema(f)
	}
	readShared(fields, &t.Description, &t.Queue, &t.Timeout, &t.MaxAttempts)
	if f, ok := fields["max_concurrent"]; ok {
		t.MaxConcurrent = f.integer(maxConcurrent)
	}
	if f, ok := fields["backoff"]; ok {
		readBackoff(f, &t.Backoff)
	}
	if f, ok := fields["on_interrupt"]; ok {
		t.OnInterrupt = f.choice(OnInterruptRestart, OnInterruptFail)
	}
	if f, ok := fields["audience"]; ok {
		t.Audience = f.choice(AudienceUser, AudienceOperator)
	}
	if t.OnInterrupt == OnInterruptFail && t.MaxAttempts != 1 {
		fields["max_attempts"].fail("must be 1 when on_interrupt is fail")
	}
	checkSleep(t, fields)
	return t
}

// readShared reads the fields that a type and a template's task have in
// common. What is not there keeps its value.
func readShared(fields map[string]cursor, description, queue *string, timeout *time.Duration, attempts *int) {
	if f, ok := fields["description"]; ok {
		*description, _ = f.text(0, maxTextBytes)
	}
	if f, ok := fields["queue"]; ok {
		*queue, _ = f.text(1, maxQueueBytes)
	}
	if f, ok := fields["timeout"]; ok {
		*timeout = f.duration(time.Millisecond)
	}
	if f, ok := fields["max_attempts"]; ok {
		*attempts = f.integer(maxAttempts)
	}
}

func readBackoff(at cursor, b *Backoff) {
	before := len(at.doc.errs)
	fields := at.fields([]string{"initial", "multiplier", "max"}, nil)
	if f, ok := fields["initial"]; ok {
		b.Initial = f.duration(0)
	}
	if f, ok := fields["multiplier"]; ok {
		b.Multiplier = f.integer(maxMultiplier)
	}
	if f, ok := fields["max"]; ok {
		b.Max = f.duration(0)
	}
	if len(at.doc.errs) == before && b.Initial > b.Max {
		at.fail("initial %s is longer than max %s", b.Initial, b.Max)
	}
}

func readExec(at cursor) *Exec {
	fields := at.fields([]string{"command", "dir", "env", "user", "output_limit"}, nil)
	at.require(fields, "command")
	e := &Exec{Dir: at.doc.dir, Env: []string{"PATH"}, OutputLimit: maxOutputBytes}
	if f, ok := fields["command"]; ok {
		e.Command = readCommand(f)
	}
	if f, ok := fields["dir"]; ok {
		if dir, ok := f.text(1, maxPathBytes); ok && !filepath.IsAbs(dir) {
			e.Dir = filepath.Join(at.doc.dir, dir)
		} else if ok {
			e.Dir = filepath.Clean(dir)
		}
	}
	if f, ok := fields["env"]; ok {
		e.Env = readEnv(f)
	}
	if f, ok := fields["user"]; ok {
		e.User = readUser(f)
	}
	if f, ok := fields["output_limit"]; ok {
		e.OutputLimit = f.integer(maxOutputBytes)
	}
	return e
}

func readCommand(at cursor) []string {
	var argv []string
	least := 1 // the program; its arguments may be empty
	for _, item := range at.items(1, maxArgv) {
		arg, _ := item.text(least, maxArgBytes)
		argv = append(argv, arg)
		least = 0
	}
	return argv
}

func readEnv(at cursor) []string {
	names := []string{}
	for _, item := range at.items(0, maxEnv) {
		name, ok := item.text(1, maxNameBytes)
		switch {
		case !ok:
		case !isVariable(name):
			item.fail("must be the name of an environment variable, is %q", name)
		case slices.Contains(names, name):
			item.fail("%s is there twice", name)
		default:
			names = append(names, name)
		}
	}
	return names
}

func isVariable(name string) bool {
	for i := range len(name) {
		letter := name[i] == '_' || isLetterOrDigit(name[i])
		if !letter || i == 0 && '0' <= name[0] && name[0] <= '9' {
			return false
		}
	}
	return true
}

func readUser(at cursor) string {
	user, ok := at.text(1, maxUserBytes)
	// A leading hyphen would be an option to whatever takes the name.
	if ok && (!isWord(user) || strings.HasPrefix(user, "-") || strings.HasPrefix(user, ".")) {
		at.fail("must be the name of a user of the system, is %q", user)
	}
	return user
}

// readSchema compiles what stands at a place that wants a JSON Schema, or
// returns nil after reporting what is wrong with it.
func readSchema(at cursor) *schema {
	if at.node.Kind != yaml.MappingNode {
		at.fail("must be a JSON Schema, a mapping, is %s", at.kind())
		return nil
	}
	if named, ok := at.child("$schema"); ok && named.node.Value != dialect {
		named.fail("must be %s, the only dialect supported", dialect)
		return nil
	}
	raw, ok := at.json()
	if !ok {
		return nil
	}
	s, err := compileSchema(raw)
	if err != nil {
		reportSchema(at, err)
		return nil
	}
	return s
}

// reportSchema puts what the compiler says where it belongs, if it says so.
func reportSchema(at cursor, err error) {
	var broken *jsonschema.SchemaValidationError
	var invalid *jsonschema.ValidationError
	var pattern *jsonschema.InvalidRegexError
	var away *jsonschema.LoadURLError
	switch {
	case errors.As(err, &broken) && errors.As(broken.Err, &invalid):
		for _, v := range leaves(invalid) {
			at.at(v.tokens).fail("is not valid in a JSON Schema: %s", v.message)
		}
	case errors.As(err, &pattern):
		at.fail("the pattern %q is not a regular expression: %v", pattern.Regex, pattern.Err)
	case errors.As(err, &away):
		at.fail("%v, not %s", errNoLoading, away.URL)
	default:
		at.fail("is not a usable JSON Schema: %v", err)
	}
}
