package ledger_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

// The scan takes what results are made of, so that nearly none needs the walk.
func TestOrdinaryPayloadsNeedNoWalk(t *testing.T) {
	t.Parallel()
	good := []string{
		`null`, `true`, `false`, `0`, `-0`, `-1.50`, `1e300`, `1E-300`, `1e0000300`, strings.Repeat("9", 400), `""`, `[]`, `{}`, " [ 1 ,\n\t{ } ]\r",
		`{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}`, `"é😀\ud83d\ude00\u00e9\uffff\/\"\\\b\f\n\r\t"`, "\"\x7f\uffff\"",
		strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat(`{"a":[`, 32) + strings.Repeat("]}", 32), object(32),
		`{"x":{"a":1},"a":[` + strings.Repeat(`{"b":1},`, 40) + `2]}`,
	}
	for _, p := range good {
		require.True(t, ledger.PassesScan(json.RawMessage(p)), p)
		require.NoError(t, ledger.WalkPayload(json.RawMessage(p)), p)
	}
	for _, p := range []string{object(33), object(5000), `{"\u0061":1}`} {
		require.NoError(t, ledger.CheckPayload(json.RawMessage(p)), p)
	}
}

// object has n different names.
func object(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

// One character too many or too few, everywhere.
func TestCheckPayloadNamesPlaceAndRule(t *testing.T) {
	t.Parallel()
	bad := map[string]ledger.InvalidError{
		`{"a":1,"b":{"a":1,"a":1}}`:                    {Path: "/b/a", Rule: "is there twice"},
		`{"a":1,"\u0061":1}`:                           {Path: "/a", Rule: "is there twice"},
		`{"\u0061":1,"a":1}`:                           {Path: "/a", Rule: "is there twice"},
		object(40)[:len(object(40))-1] + `,"k3":0}`:    {Path: "/k3", Rule: "is there twice"},
		`{"a":[0,"\u0000"]}`:                           {Path: "/a/1", Rule: "contains U+0000"},
		`{"a":[0,1e301]}`:                              {Path: "/a/1", Rule: "is a number with an exponent outside -300 to 300"},
		`{"a/b":[0,` + strings.Repeat("9", 401) + `]}`: {Path: "/a~1b/1", Rule: "is a number of more than 400 bytes"},
		`{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`: {Path: "/a" + strings.Repeat("/0", 63), Rule: "is nested deeper than 64 levels"},
		strings.Repeat("[", 64) + `{}` + strings.Repeat("]", 64):          {Path: strings.Repeat("/0", 64), Rule: "is nested deeper than 64 levels"},
		`["\ude00"]`:                             {Path: "/0", Rule: "is not valid JSON"},
		`["\ud83d\u0041"]`:                       {Path: "/0", Rule: "is not valid JSON"},
		"[\"\xed\xa0\x80\"]":                     {Path: "/0", Rule: "is not valid JSON"},
		"\ufeff1":                                {Rule: "is not valid JSON"},
		`{} {}`:                                  {Rule: "has data behind the JSON value"},
		`{"a":1`:                                 {Rule: "is not complete JSON"},
		" ":                                      {Rule: "is not complete JSON"},
		`"` + strings.Repeat("a", 256<<10) + `"`: {Rule: "is 262146 bytes long, at most 262144 are allowed"},
	}
	for p, want := range bad {
		err := ledger.CheckPayload(json.RawMessage(p))
		var got *ledger.InvalidError
		require.ErrorAs(t, err, &got, "%.80s", p)
		require.Equal(t, want, *got, "%.80s", p)
	}
}

// The scan never takes what the walk refuses.
func TestScanAndWalkAgree(t *testing.T) {
	t.Parallel()
	samples := []string{
		`{"a":[1,-2.5,{"b":"x"},null],"c":{"a":true}}`, `["\ud83d\ude00","é","\n",1e300,0.0]`, `{"":"","a b":[[],{}]}`, object(31), object(32), `"plain text of some length"`,
		strings.Repeat("[", 63) + "[]" + strings.Repeat("]", 63), strings.Repeat(`{"a":`, 63) + `1` + strings.Repeat("}", 63), strings.Repeat("9", 399), `1e299`, ``,
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 50 {
			gateAgrees(t, edited(t, []byte(rapid.SampledFrom(samples).Draw(t, "sample"))))
		}
	})
}

// Each byte at each place of a string, and behind a backslash: the scan takes
// eight at once.
func TestScanLooksAtEachByte(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		gateAgrees(t, []byte{'"', '\\', byte(c), '"'})
		for i := range 18 {
			text := []byte("the quick brown fox")
			text[i] = byte(c)
			gateAgrees(t, []byte(`"`+string(text)+`"`))
		}
	}
}

func gateAgrees(t require.TestingT, p []byte) {
	want := ledger.WalkPayload(p)
	if ledger.PassesScan(p) {
		require.NoError(t, want, "%q", p)
	}
	if len(p) <= ledger.MaxPayloadBytes {
		require.Equal(t, want, ledger.CheckPayload(p), "%q", p)
	}
}

func FuzzCheckPayload(f *testing.F) {
	for _, s := range fragments() {
		f.Add([]byte(s))
		f.Add([]byte(`{"a":[` + s + `]}`))
		f.Add([]byte(`{"` + s + `":"` + s + `"}`))
	}
	f.Add([]byte(object(40)))
	f.Fuzz(func(t *testing.T, p []byte) { gateAgrees(t, p) })
}

// fragments is what JSON is made of, and what breaks it or a rule.
func fragments() []string {
	return []string{
		``, `"`, `\`, ` `, "\n", "\t", `,`, `:`, `{`, `}`, `[`, `]`, `null`, `true`, `false`, `0`, `1`, `-`, `-0`, `01`, `1.5`, `1e0`, `1E+5`, `1e300`, `-1e-300`,
		`1e301`, `1e-301`, `1e0000300`, `1e`, `1.`, `.5`, `+1`, `2147483647`, `2147483648`, `999999999`, `1000000000`, `999999999999999999`, `9223372036854775807`,
		`9223372036854775808`, `9999999999999999999`, strings.Repeat("9", 400), strings.Repeat("9", 401), `0.` + strings.Repeat("0", 397) + `1`,
		`""`, `"a"`, `"a":1`, `"a":1,"a":2`, `"a":1,"\u0061":2`, `{"a":1,"b":2,"c":3}`, `{"":{"":""}}`, `[[[]]]`, `[{},{}]`, `{"x":[]}`,
		"\x00", "\x1f", "\x7f", "\x80", "\xff", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "\xef\xbb\xbf", "é", "\uffff", "\U0001f600", "\u2028",
		`\u0000`, `\u0001`, `\u001F`, `\u00e9`, `\uFFFF`, `\ud83d\ude00`, `\uD83D\uDE00`, `\ud83d`, `\ude00`, `\ud83d\u0041`, `\ud83dx`, `\u12`, `\u12g4`, `\x41`,
		`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\U0041`,
		`,"run":1`, `,"message":"x"`, `,"message":""`, `,"result":1`, `,"result":null`, `,"result":{"a":1,"message":"x"}`, `,"by_claim":1`, `,"retryable":true`,
		`,"retryable":false`, `,"immutable":true`, `"Run"`, `"default"`, `{"kind":"k"}`, `,"labels":{}`, `,"labels":{"a":"1","a":"2"}`, `,"actor":{}`, `,"finally":[]`, `"tasks":[]`,
		"018BCFE5-6800-7000-8100-000000000000", `urn:uuid:`, uuid.Nil.String(), strings.Repeat("[", 64), strings.Repeat("]", 64), strings.Repeat(`{"a":`, 64), strings.Repeat("}", 64),
		strings.Repeat("n", 255), strings.Repeat("ü", 128),
	}
}

// edited draws a value with a few edits, each at a place of its own.
func edited(t *rapid.T, value []byte) []byte {
	b := bytes.Clone(value)
	for range rapid.IntRange(0, 3).Draw(t, "edits") {
		from := rapid.IntRange(0, len(b)).Draw(t, "from")
		to := min(len(b), from+rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 5, 40}).Draw(t, "cut"))
		put := []byte(rapid.SampledFrom(fragments()).Draw(t, "put"))
		if rapid.IntRange(0, 9).Draw(t, "copy") == 0 {
			put = bytes.Clone(b[from:to])
			from = to
		}
		b = append(b[:from:from], append(put, b[to:]...)...)
	}
	return b
}
