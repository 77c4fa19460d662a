package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxArgsBytes bounds the args of all tasks of a collection together, as the
// ledger does. It keeps a template that uses a large input often from growing
// it without limit.
const maxArgsBytes = 448 << 10

// Resolve returns the specifications of the template's tasks for an input. An
// empty input is read as {}. An input that does not fit the input_schema, or
// that makes args which are too large or do not fit the args_schema of their
// type, is a *[ValidationError] whose paths start at the input.
func (t *Template) Resolve(input json.RawMessage) ([]TaskSpec, error) {
	value, err := parseValue(orElse(input, "{}"))
	if err != nil {
		return nil, err
	}
	if violations := t.input.violations(value); len(violations) > 0 {
		return nil, newValidationError(pathsOnly(violations))
	}
	r := &resolution{input: value}
	specs := make([]TaskSpec, len(t.Tasks))
	for i := range t.Tasks {
		task := &t.Tasks[i]
		specs[i] = task.spec(r.value(task.args))
		if r.full() {
			message := fmt.Sprintf("makes args of more than %d bytes for the tasks together", maxArgsBytes)
			return nil, newValidationError([]Violation{{Message: message}})
		}
		r.check(task, specs[i].Args)
	}
	if len(r.violations) > 0 {
		return nil, newValidationError(r.violations)
	}
	return specs, nil
}

// A resolution puts one input into the arguments of a template.
type resolution struct {
	input      any          // decoded by parseValue
	out        bytes.Buffer // the value being written
	written    int          // bytes of the values before it
	violations []Violation
}

// value returns arg for the input, as compact JSON.
func (r *resolution) value(arg argument) json.RawMessage {
	arg.write(r)
	value := bytes.Clone(r.out.Bytes())
	r.written += len(value)
	r.out.Reset()
	return value
}

// full reports whether maxArgsBytes is passed. Members of lists and objects
// are left out from then on: the result is refused anyway.
func (r *resolution) full() bool { return r.written+r.out.Len() > maxArgsBytes }

// close ends a list or an object, which nothing has opened when it is empty.
func (r *resolution) close(opening, separator, closing byte) {
	if separator == opening {
		r.out.WriteByte(opening)
	}
	r.out.WriteByte(closing)
}

// lookup follows a reference into the input.
func (r *resolution) lookup(ref reference) (any, bool) {
	value := r.input
	for _, name := range ref {
		members, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = members[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// check gathers what is wrong with a task's args, at the part of the input
// that it came from: the sender knows nothing of the template's tasks.
func (r *resolution) check(task *TemplateTask, args json.RawMessage) {
	value, err := parseValue(args)
	if err != nil {
		r.violations = append(r.violations, Violation{Message: fmt.Sprintf("task %q, args: %v", task.Name, err)})
		return
	}
	for _, v := range task.Type.args.violations(value) {
		r.violations = append(r.violations, Violation{
			Path:    pointerOf(task.args.origin(r, v.tokens)),
			Message: fmt.Sprintf("task %q, args%s: %s", task.Name, pointerOf(v.tokens), v.message),
		})
	}
}
