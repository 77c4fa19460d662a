package catalog_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/internal/catalog"
)

func TestResolveFillsTheInputIn(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load("testdata/good/full.yaml")
	require.NoError(t, err)
	template, ok := c.Template("request-certificate")
	require.True(t, ok)
	specs, err := template.Resolve(json.RawMessage(`{
		"domain": "shop.example", "days": 90, "contact": "ops@shop.example",
		"owner": {"name": "<Ada>", "rate": 1.50e2}, "live": true}`))
	require.NoError(t, err)
	require.Equal(t, []catalog.TaskSpec{
		{
			Name: "key", Type: "certificate.key", Description: "The first", Queue: "other", Immutable: true,
			Args: json.RawMessage(`{"domain":"shop.example","days":90,"contact":"ops@shop.example",` +
				`"tags":["fixed","<Ada>","for shop.example"],` +
				`"owner":{"name":"<Ada>","note":"shop.example at 1.50e2, live true, costs ${5} or $5"}}`),
			OnInterrupt: "restart", MaxAttempts: 1000, TimeoutMS: 86_400_000,
			BackoffInitialMS: 500, BackoffMultiplier: 3, BackoffMaxMS: 3_600_000,
		},
		{
			Name: "pay", Type: "payment.capture", Queue: "default", Args: json.RawMessage(`{}`),
			OnInterrupt: "fail", MaxAttempts: 1, TimeoutMS: 3_600_000,
			BackoffInitialMS: 1000, BackoffMultiplier: 2, BackoffMaxMS: 300_000,
		},
		{
			Name: "rest", Type: "noop", Queue: "default",
			Args: json.RawMessage(`{"all":{"name":"<Ada>","rate":1.50e2},"n":1.50,"big":12345678901234567890,` +
				`"none":null,"on":true,"list":[]}`),
			OnInterrupt: "restart", MaxAttempts: 1, TimeoutMS: 3_600_000,
			BackoffInitialMS: 1000, BackoffMultiplier: 2, BackoffMaxMS: 300_000,
		},
	}, specs)
}

func TestResolveLeavesOutWhatTheInputLacks(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types: {a: {}}
templates:
  t:
    input_schema: {type: object, properties: {a: {}, b: {properties: {c: {}}}, d: {default: 5}}}
    tasks:
      - {name: x, type: a, args: {
          first: "${input.a}", text: "see ${input.a}", deep: "${input.b.c}", default: "${input.d}",
          list: ["${input.a}", 1, "${input.b.c}", 2, "${input.a}"], empty: {x: "${input.a}"}, kept: true, last: "${input.a}"}}
`)
	template, ok := c.Template("t")
	require.True(t, ok)
	for input, want := range map[string]string{
		``:               `{"list":[1,2],"empty":{},"kept":true}`,
		`{}`:             `{"list":[1,2],"empty":{},"kept":true}`,
		`{"b":{}}`:       `{"list":[1,2],"empty":{},"kept":true}`,
		`{"b":[]}`:       `{"list":[1,2],"empty":{},"kept":true}`,
		`{"b":{"c":[]}}`: `{"deep":[],"list":[1,[],2],"empty":{},"kept":true}`,
		`{"a":"v"}`: `{"first":"v","text":"see v","list":["v",1,2,"v"],` +
			`"empty":{"x":"v"},"kept":true,"last":"v"}`,
	} {
		specs, err := template.Resolve(json.RawMessage(input))
		require.NoError(t, err, input)
		require.Equal(t, want, string(specs[0].Args), input)
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types:
  a:
    args_schema:
      type: object
      required: [n]
      properties: {n: {type: integer}, small: {maximum: 5}, list: {type: array, items: {maxLength: 3}}, text: {maxLength: 8}, o: {properties: {p/q: {type: string}}}}
templates:
  t:
    input_schema:
      type: object
      required: [domain]
      additionalProperties: false
      properties:
        domain: {type: string, format: hostname, maxLength: 20}
        days: {type: integer, minimum: 1}
        count: {}
        small: {type: integer}
        first: {type: string}
        second: {type: string}
        any: {}
        o: {type: object}
    tasks:
      - {name: one, type: a, args: {n: "${input.count}", small: "${input.small}", list: ["${input.first}", "${input.second}"], text: "any ${input.any}", o: "${input.o}"}}
`)
	template, ok := c.Template("t")
	require.True(t, ok)
	v := func(path, message string) catalog.Violation { return catalog.Violation{Path: path, Message: message} }
	for input, want := range map[string][]catalog.Violation{
		`[]`:                          {v("", "is of the wrong type: got array, want object")},
		`{"days": 0, "dayz": 1}`:      {v("/days", "minimum: got 0, want 1"), v("/dayz", "is not a known property"), v("/domain", "is required")},
		`{"domain": 5, "days": 1.5}`:  {v("/days", "is of the wrong type: got number, want integer"), v("/domain", "is of the wrong type: got number, want string")},
		`{"domain": "a b"}`:           {v("/domain", `'a b' is not valid hostname: invalid character ' '`)},
		`{"domain": "a", "count": {}`: {v("", "is not JSON: it ends too early")},
		`{"domain": "a"} 1`:           {v("", "is not JSON: there is data behind the value")},
		`{"domain": "a", "domain": 1}`: {
			v("/domain", "has the same key twice"),
		},
		`{"domain": "\u0000"}`:          {v("/domain", "contains U+0000")},
		`{"domain": 1e999999999}`:       {v("/domain", "is a number with an exponent outside -300 to 300")},
		`{"domain": "a"}`:               {v("/count", `task "one", args/n: is required`)},
		`{"domain": "a", "count": "x"}`: {v("/count", `task "one", args/n: is of the wrong type: got string, want integer`)},
		`{"domain": "a", "count": 1, "small": 6, "second": "long"}`: {
			v("/second", `task "one", args/list/0: maxLength: got 4, want 3`), v("/small", `task "one", args/small: maximum: got 6, want 5`),
		},
		`{"domain": "a", "count": 1, "first": "f", "second": "long"}`: {v("/second", `task "one", args/list/1: maxLength: got 4, want 3`)},
		`{"domain": "a", "count": 1, "any": "thing"}`:                 {v("/any", `task "one", args/text: maxLength: got 9, want 8`)},
		`{"domain": "a", "count": 1, "any": []}`:                      {v("/any", "must be a string, a number or a boolean: it is put into a longer string")},
		`{"domain": "a", "count": 1, "any": null}`:                    {v("/any", "must be a string, a number or a boolean: it is put into a longer string")},
		`{"domain": "a", "count": 1, "o": {"p/q": 1}}`:                {v("/o/p~1q", `task "one", args/o/p~1q: is of the wrong type: got number, want string`)},
	} {
		specs, err := template.Resolve(json.RawMessage(input))
		require.Nil(t, specs, input)
		require.Equal(t, want, violations(t, err), input)
	}
}

func TestResolveWithoutInputSchemaTakesTheEmptyObject(t *testing.T) {
	t.Parallel()
	c := parse(t, "types: {a: {}}\ntemplates: {t: {tasks: [{name: x, type: a}]}}")
	template, ok := c.Template("t")
	require.True(t, ok)
	_, err := template.Resolve(nil)
	require.NoError(t, err)
	_, err = template.Resolve(json.RawMessage(`{"x":1}`))
	require.Equal(t, []catalog.Violation{{Path: "/x", Message: "is not a known property"}}, violations(t, err))
}

// A template that uses its input often does not multiply it without limit.
func TestResolveBoundsArgs(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types: {a: {}}
templates:
  t:
    input_schema: {type: object, properties: {x: {}}}
    tasks:
      - {name: x, type: a, args: &args {a: "${input.x}", b: ["${input.x}", "${input.x}"], c: {d: "${input.x}"}}}
      - {name: y, type: a, args: *args}
`)
	template, ok := c.Template("t")
	require.True(t, ok)
	_, err := template.Resolve(json.RawMessage(`{"x":"` + strings.Repeat("x", 448<<10/8-100) + `"}`))
	require.NoError(t, err)
	_, err = template.Resolve(json.RawMessage(`{"x":"` + strings.Repeat("x", 448<<10/8) + `"}`))
	require.Equal(t, []catalog.Violation{{Message: "makes args of more than 458752 bytes for the tasks together"}}, violations(t, err))
}

func TestCheckArgs(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types:
  any: {}
  strict:
    args_schema: {type: object, required: [a], properties: {a: {type: string}}}
    result_schema: {type: object}
`)
	require.NoError(t, c.CheckArgs("any", json.RawMessage(`[1]`)))
	require.NoError(t, c.CheckArgs("any", nil))
	require.NoError(t, c.CheckArgs("strict", json.RawMessage(`{"a":"x"}`)))
	require.Equal(t, []catalog.Violation{{Path: "/a", Message: "is required"}}, violations(t, c.CheckArgs("strict", nil)))
	require.Equal(t, []catalog.Violation{{Message: "is not JSON: it ends too early"}}, violations(t, c.CheckArgs("any", json.RawMessage(`{`))))
	require.ErrorIs(t, c.CheckArgs("none", nil), catalog.ErrUnknownType)

	require.NoError(t, c.CheckResult("any", nil))
	require.NoError(t, c.CheckResult("strict", json.RawMessage(`{}`)))
	require.Equal(t, []catalog.Violation{{Message: "is of the wrong type: got null, want object"}},
		violations(t, c.CheckResult("strict", nil)))
	require.ErrorIs(t, c.CheckResult("none", nil), catalog.ErrUnknownType)
}

func TestSpec(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types:
  a:
    description: Does a
    queue: q
    timeout: 1m
    max_attempts: 5
    backoff: {initial: 2s, multiplier: 1, max: 3s}
    args_schema: {properties: {n: {type: integer}}}
`)
	spec, err := c.Spec("mine", "a", json.RawMessage(" { \"z\" : 1.0, \"n\": 2 } "))
	require.NoError(t, err)
	require.Equal(t, catalog.TaskSpec{
		Name: "mine", Type: "a", Description: "Does a", Queue: "q", Args: json.RawMessage(`{"z":1.0,"n":2}`),
		OnInterrupt: "restart", MaxAttempts: 5, TimeoutMS: 60_000,
		BackoffInitialMS: 2000, BackoffMultiplier: 1, BackoffMaxMS: 3000,
	}, spec)
	spec, err = c.Spec("mine", "a", nil)
	require.NoError(t, err)
	require.Equal(t, `{}`, string(spec.Args))
	_, err = c.Spec("mine", "b", nil)
	require.ErrorIs(t, err, catalog.ErrUnknownType)
	_, err = c.Spec("mine", "a", json.RawMessage(`{"n":"x"}`))
	require.Equal(t, []catalog.Violation{{Path: "/n", Message: "is of the wrong type: got string, want integer"}}, violations(t, err))
}

// A value as long as the caller likes does not come back as a message, and a
// value with as many faults as the caller likes not as a list.
func TestViolationsAreBounded(t *testing.T) {
	t.Parallel()
	c := parse(t, "types: {a: {args_schema: {items: {format: ipv4}}}}")
	err := c.CheckArgs("a", json.RawMessage(`["`+strings.Repeat("ü", 5000)+`"]`))
	got := violations(t, err)
	require.Len(t, got, 1)
	require.Less(t, len(got[0].Message), 600)
	require.True(t, json.Valid([]byte(`"`+got[0].Message+`"`)))

	many := strings.TrimSuffix(strings.Repeat(`"x",`, 1000), ",")
	require.Len(t, violations(t, c.CheckArgs("a", json.RawMessage("["+many+"]"))), 101)
}

func TestValidationErrorReads(t *testing.T) {
	t.Parallel()
	err := &catalog.ValidationError{Violations: []catalog.Violation{{Message: "is odd"}, {Path: "/a", Message: "is required"}}}
	require.EqualError(t, err, "is odd; /a: is required")
}

// Many goroutines ask one catalog at once.
func TestCatalogIsSharedSafely(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load("testdata/good/full.yaml")
	require.NoError(t, err)
	template, ok := c.Template("request-certificate")
	require.True(t, ok)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_, err := template.Resolve(json.RawMessage(`{"domain":"a","days":"x"}`))
				require.Error(t, err)
				_, err = template.Resolve(json.RawMessage(`{"domain":"a"}`))
				require.NoError(t, err)
			}
		})
	}
	wg.Wait()
}

// A reference alone hands on exactly the JSON value that the input has, and a
// text holds exactly the characters of its parts.
func TestResolveKeepsValues(t *testing.T) {
	t.Parallel()
	c := parse(t, `
types: {a: {}}
templates:
  t:
    input_schema: {type: object, properties: {v: {}, s: {type: string}}}
    tasks: [{name: x, type: a, args: {v: "${input.v}", s: "a$${b ${input.s} c"}}]
`)
	template, ok := c.Template("t")
	require.True(t, ok)
	scalar := rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Just[any](nil),
	)
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(scalar,
			rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(l []any) any { return l }),
			rapid.Map(rapid.MapOfN(rapid.String(), scalar, 0, 3), func(m map[string]any) any { return m }),
		).Draw(t, "value")
		characters := rapid.String().Draw(t, "characters")
		if strings.Contains(characters, "\x00") || strings.Contains(string(encode(t, value)), `\u0000`) {
			t.Skip("refused")
		}
		specs, err := template.Resolve(encode(t, map[string]any{"v": value, "s": characters}))
		require.NoError(t, err)
		want := encode(t, map[string]any{"v": value, "s": "a${b " + characters + " c"})
		require.JSONEq(t, string(want), string(specs[0].Args))
	})
}

func encode(t require.TestingT, value any) json.RawMessage {
	data, err := json.Marshal(value)
	require.NoError(t, err)
	return data
}

func violations(t *testing.T, err error) []catalog.Violation {
	t.Helper()
	var invalid *catalog.ValidationError
	require.ErrorAs(t, err, &invalid)
	return invalid.Violations
}
