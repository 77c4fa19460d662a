package readmodel_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/internal/pgtest"
	"github.com/keten-ledger/keten/ledger"
)

// What the gate passes jsonb stores, and gives back as the same JSON value:
// otherwise one accepted event would stop the projection of its partition for
// good. Several thousand payloads, each made to be near what is refused.
func TestJSONBKeepsWhatTheGatePasses(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	drawn, passed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var batch []string
		for range 50 {
			p := nastyJSON(rt)
			drawn++
			if ledger.CheckPayload(json.RawMessage(p)) == nil {
				batch = append(batch, p)
			}
		}
		passed += len(batch)
		kept(t.Context(), rt, conn, batch)
	})
	t.Logf("%d of %d payloads passed the gate", passed, drawn)
	require.Greater(t, passed, drawn/5, "the generator makes too little that passes")
	require.Less(t, passed, drawn, "the generator makes nothing that is refused")
}

// The edges of the gate, each as far as it goes.
func TestJSONBKeepsTheLargest(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", 397)
	const most = ledger.MaxPayloadBytes
	edges := []string{
		strings.Repeat("9", 400), "-" + strings.Repeat("9", 399), strings.Repeat("9", 395) + "E+300", strings.Repeat("9", 395) + "e-300", "0." + zeros + "1",
		"0." + zeros[:392] + "1e-300", "0." + zeros[:392] + "1e+300", "1e300", "-1E-300", "1e+0000300", "1e-" + zeros + "", "-0", "-0.0e-300", "0e300", "1.000", "1E+5",
		`"` + strings.Repeat("a", most-2) + `"`, `{"` + strings.Repeat("k", most-6) + `":0}`, `"` + strings.Repeat(`\u0001`, (most-2)/6) + `"`,
		"[" + strings.Repeat("0,", most/2-2) + "0]", "[" + strings.Repeat("{},", most/3-2) + "{}]", strings.Repeat(" ", most-2) + "{}", members(20_000),
		strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat(`{"":`, 63) + `{"":1e300}` + strings.Repeat("}", 63),
		`"` + strings.Repeat("\U0001f600", most/4-1) + `"`, `"` + strings.Repeat(`\ud83d\ude00`, most/12-1) + `"`, "\"\x7f\u0080\ufeff\ufffd\ufffe\uffff\U0010ffff\"", `"\ufffe\uffff\udbff\udfff"`,
	}
	for _, p := range edges {
		require.NoError(t, ledger.CheckPayload(json.RawMessage(p)), "%.100s", p)
	}
	kept(t.Context(), t, connect(t), edges)
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// kept sends payloads through jsonb in one round trip, and one by one when one
// of them was refused, to name it.
func kept(ctx context.Context, t rapid.TB, conn *pgx.Conn, payloads []string) {
	const sql = `select p::jsonb::text from unnest($1::text[]) with ordinality as u(p, n) order by n`
	got, err := stored(ctx, conn, sql, payloads)
	if err != nil {
		for _, p := range payloads {
			_, err := stored(ctx, conn, sql, []string{p})
			require.NoError(t, err, "jsonb refuses %q", p)
		}
	}
	require.NoError(t, err)
	require.Len(t, got, len(payloads))
	for i, p := range payloads {
		want, err := readJSON(p)
		require.NoError(t, err, "%q", p)
		back, err := readJSON(got[i])
		require.NoError(t, err, "%q", got[i])
		require.True(t, sameJSON(want, back), "sent %.2000q\ngot  %.2000q", p, got[i])
	}
}

func stored(ctx context.Context, conn *pgx.Conn, sql string, payloads []string) ([]string, error) {
	rows, err := conn.Query(ctx, sql, payloads)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// readJSON reads a JSON value with numbers as they stand. A member that is there
// twice is an error: which of the two is kept is not for a database to decide.
func readJSON(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return readValue(d)
}

func readValue(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			key := fmt.Sprint(name)
			if _, twice := object[key]; twice {
				return nil, fmt.Errorf("%q is there twice", key)
			}
			if object[key], err = readValue(d); err != nil {
				return nil, err
			}
		}
		_, err := d.Token()
		return object, err
	}
	return tok, nil
}

// sameJSON compares numbers as exact decimals and strings by code points.
func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		x, fine := new(big.Rat).SetString(a.String())
		y, too := new(big.Rat).SetString(b.String())
		return ok && fine && too && x.Cmp(y) == 0
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameJSON)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameJSON)
	}
	return a == b
}

// nastyJSON draws the text of a JSON value, as spelled by somebody who knows the
// grammar and means no good, or something near it.
func nastyJSON(t *rapid.T) string {
	s := speller{t: t}
	s.value(0)
	if s.one("damage", 4) {
		return damaged(t, s.String())
	}
	return s.String()
}

type speller struct {
	strings.Builder

	t *rapid.T
}

// one is true in one of n cases.
func (s *speller) one(label string, n int) bool { return rapid.IntRange(1, n).Draw(s.t, label) == n }

func (s *speller) pick(label string, list []string) {
	s.WriteString(rapid.SampledFrom(list).Draw(s.t, label))
}

func (s *speller) value(depth int) {
	kind := rapid.IntRange(0, 9).Draw(s.t, "kind")
	switch {
	case depth >= 3 && kind >= 6 || kind <= 1:
		s.pick("word", []string{"null", "true", "false", "{}", "[]", `""`, " [ ] ", "\t0\r\n"})
	case kind <= 3:
		s.number()
	case kind <= 5:
		s.text()
	case kind <= 7:
		s.list("[", "]", func() { s.value(depth + 1) })
	case kind == 8:
		s.list("{", "}", func() {
			s.name()
			s.pick("colon", []string{":", ": ", " :\n"})
			s.value(depth + 1)
		})
	default:
		n := rapid.SampledFrom([]int{1, 10, 60, 62, 63, 64, 65, 66}).Draw(s.t, "levels")
		before, after := "[", "]"
		if s.one("objects", 2) {
			before, after = `{"a":`, "}"
		}
		s.WriteString(strings.Repeat(before, n))
		s.value(3)
		s.WriteString(strings.Repeat(after, n))
	}
}

func (s *speller) list(begin, end string, element func()) {
	s.WriteString(begin)
	for i := range rapid.IntRange(0, 4).Draw(s.t, "elements") {
		if i > 0 {
			s.pick("comma", []string{",", ", ", "\n,"})
		}
		element()
	}
	s.WriteString(end)
}

// name takes mostly from a few that look alike.
func (s *speller) name() {
	if s.one("any name", 3) {
		s.text()
		return
	}
	s.pick("name", []string{
		`"a"`, `"\u0061"`, `"A"`, `"a "`, `"\u00e4"`, "\"ä\"", "\"a\u0308\"", `""`, `" "`, `"aa"`, `"\/"`, `"/"`, `"\\"`, `"\u005c"`, "\"\U0001f600\"", `"\ud83d\uDE00"`,
		`"` + strings.Repeat("k", 10_000) + `"`, `"` + strings.Repeat("k", 10_001) + `"`,
	})
}

func (s *speller) text() {
	s.WriteByte('"')
	for range rapid.IntRange(0, 4).Draw(s.t, "pieces") {
		if s.one("code point", 3) {
			r := rapid.SampledFrom([]int{0, 1, 0x1f, ' ', 0x7f, 0x80, 0xd7ff, 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xe000, 0xfeff, 0xfffd, 0xfffe, 0xffff}).Draw(s.t, "unit")
			fmt.Fprintf(s, `\u%04x`, r)
			continue
		}
		s.pick("piece", []string{
			"plain", "\x00", "\x01", "\x1f", "\x7f", "\u0080", "é", "\u2028", "\ufeff", "\uffff", "\U0001f600", "\U0010ffff", "\xff", "\xc0\x80", "\xed\xa0\x80", "'",
			`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\ud83d\ude00`, `\uDBFF\uDFFF`, `\\u0000`, strings.Repeat("x", 5000), strings.Repeat("ü", 3000),
		})
	}
	s.WriteByte('"')
}

func (s *speller) number() {
	zeros, nines := strings.Repeat("0", 390), strings.Repeat("9", 390)
	s.pick("sign", []string{"", "", "-"})
	s.pick("integer", []string{"0", "0", "1", "9", "123456789012345678901234567890", nines, nines + "99999", "1" + zeros})
	if s.one("fraction", 2) {
		s.pick("digits", []string{".0", ".5", ".10", ".123456789012345678901234567890", "." + zeros, "." + zeros + "1", "." + nines})
	}
	if s.one("exponent", 2) {
		s.pick("e", []string{"e", "E", "e+", "E+", "e-", "E-"})
		s.pick("power", []string{"0", "1", "5", "17", "299", "300", "0300", "000000000001", "301", "1000", "999999999999999999999"})
	}
}

// damaged changes a few bytes.
func damaged(t *rapid.T, text string) string {
	b := []byte(text)
	for range rapid.IntRange(1, 3).Draw(t, "edits") {
		from := rapid.IntRange(0, len(b)).Draw(t, "from")
		to := min(len(b), from+rapid.IntRange(0, 2).Draw(t, "cut"))
		put := rapid.SampledFrom([]string{"", "", "0", "-", "1", "e", ".", `"`, `\`, `\u`, ",", ":", "[", "]", "{", "}", " ", "\x00", "\v", "\xa0", "\xff", "é", "null", "NaN", "/*", `"a":0,`}).Draw(t, "put")
		b = slices.Concat(b[:from], []byte(put), b[to:])
	}
	return string(b)
}
