package catalog

import (
	"encoding/json"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// noInput is the input_schema of a template that has none.
const noInput = `{"type":"object","additionalProperties":false}`

// readTemplate reads one template. c has all types already.
func readTemplate(c *Catalog, name string, at cursor) *Template {
	t := &Template{Name: name}
	fields := at.fields([]string{"description", "input_schema", "tasks"}, map[string]string{
		"ordering_key": "ordering_key is not supported by this version: lanes, which it chooses from, are not available yet",
	})
	at.require(fields, "tasks")
	if f, ok := fields["description"]; ok {
		t.Description, _ = f.text(0, maxTextBytes)
	}
	if f, ok := fields["input_schema"]; ok {
		t.input = readInputSchema(f)
	} else {
		t.input = emptyInput()
	}
	if f, ok := fields["tasks"]; ok {
		names := map[string]bool{}
		for _, item := range f.items(1, maxTasks) {
			t.Tasks = append(t.Tasks, readTask(c, t.input, names, item))
		}
	}
	return t
}

// readInputSchema returns nil after reporting an error, and no reference is
// checked then.
func readInputSchema(at cursor) *schema {
	s := readSchema(at)
	if typ, ok := at.child("type"); at.node.Kind == yaml.MappingNode && (!ok || typ.node.Value != "object") {
		at.fail("an input is an object: type must be object")
		return nil
	}
	return s
}

func emptyInput() *schema {
	s, err := compileSchema(json.RawMessage(noInput))
	if err != nil {
		panic(err) // it is a constant
	}
	return s
}

func readTask(c *Catalog, input *schema, names map[string]bool, at cursor) TemplateTask {
	fields := at.fields([]string{
		"name", "type", "args", "description", "queue", "timeout", "max_attempts", "immutable",
	}, nil)
	at.require(fields, "name", "type")
	var t TemplateTask
	if f, ok := fields["name"]; ok {
		t.Name, ok = f.text(1, maxTaskName)
		if ok && names[t.Name] {
			f.fail("another task of this template is called %q", t.Name)
		}
		names[t.Name] = true
	}
	if f, ok := fields["type"]; ok {
		t.Type = readTypeName(c, f)
	}
	if t.Type != nil {
		t.Description, t.Queue = t.Type.Description, t.Type.Queue
		t.Timeout, t.MaxAttempts = t.Type.Timeout, t.Type.MaxAttempts
	}
	readShared(fields, &t.Description, &t.Queue, &t.Timeout, &t.MaxAttempts)
	if f, ok := fields["max_attempts"]; ok && t.Type != nil && t.Type.OnInterrupt == OnInterruptFail && t.MaxAttempts > 1 {
		f.fail("must be 1: on_interrupt of type %s is fail", t.Type.Name)
	}
	if f, ok := fields["timeout"]; ok && t.Type != nil && t.Type.Sleep != nil && t.Type.Sleep.Duration >= t.Timeout {
		f.fail("must be longer than the %s that type %s sleeps", t.Type.Sleep.Duration, t.Type.Name)
	}
	if f, ok := fields["immutable"]; ok {
		t.Immutable = f.boolean()
	}
	t.args = readArgs(t.Type, input, at, fields)
	return t
}

func readTypeName(c *Catalog, at cursor) *Type {
	name, ok := at.text(1, maxNameBytes)
	if !ok {
		return nil
	}
	t, ok := c.Types[name]
	if !ok {
		at.fail("there is no type called %q", name)
	}
	return t
}

// readArgs reads a task's args, and checks them as far as that is possible
// without an input.
func readArgs(t *Type, input *schema, task cursor, fields map[string]cursor) argument {
	at, given := fields["args"]
	if !given {
		checkArgs(t, task, object{})
		return object{}
	}
	if at.node.Kind != yaml.MappingNode {
		at.fail("must be a mapping, is %s", at.kind())
		return object{}
	}
	before := len(at.doc.errs)
	r := argumentReader{}
	args := r.read(at)
	for _, found := range r.references {
		checkReference(found, input)
	}
	if len(at.doc.errs) > before {
		return args
	}
	if len(r.references) == 0 {
		checkLiteral(t, at, args)
	} else {
		checkArgs(t, at, args)
	}
	return args
}

// checkLiteral checks args that are the same for every input.
func checkLiteral(t *Type, at cursor, args argument) {
	if t == nil {
		return
	}
	value, err := parseValue(new(resolution).value(args))
	if err != nil {
		at.fail("%v", err)
		return
	}
	for _, v := range t.args.violations(value) {
		at.at(v.tokens).fail("does not fit args_schema of type %s: args%s %s", t.Name, pointerOf(v.tokens), v.message)
	}
}

// checkArgs checks the names of the args: each is known where the args_schema
// wants that, and none is missing.
func checkArgs(t *Type, at cursor, args argument) {
	given, ok := args.(object)
	if t == nil || t.args == nil || !ok {
		return
	}
	s := t.args.compiled
	if s.AdditionalProperties == false {
		for _, f := range given.fields {
			if !knows(s, f.key) {
				at.at([]string{f.key}).fail("args_schema of type %s has no property %q", t.Name, f.key)
			}
		}
	}
	for _, required := range s.Required {
		if !given.has(required) {
			at.fail("args_schema of type %s requires the property %q", t.Name, required)
		}
	}
}

// knows reports whether additionalProperties leaves the property alone: only
// what stands beside it in the same schema counts.
func knows(s *jsonschema.Schema, property string) bool {
	if _, ok := s.Properties[property]; ok {
		return true
	}
	for pattern := range s.PatternProperties {
		if pattern.MatchString(property) {
			return true
		}
	}
	return false
}
