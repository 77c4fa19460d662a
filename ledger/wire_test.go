package ledger_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

const (
	wireFolder    = "testdata/wire"
	refusedFolder = "testdata/wire/invalid"
)

// A wireFile is one record as it stands in a log, in a form that people can
// read, and what becomes of it. What is in the log once is there for good, so
// these files are written once and never changed: one that does not pass any
// more shows a build that reads old ledgers differently. With -rewrite the
// tests write the files that are missing; they leave the others alone.
type wireFile struct {
	Partition int32      `json:"partition"`
	Key       wireText   `json:"key"`
	Headers   []wireText `json:"headers"` // name: value
	Value     wireText   `json:"value"`
	// Canonical is the value as we write it, when somebody else wrote it in
	// another way.
	Canonical wireText `json:"canonical,omitempty"`
	// DecodesTo are the members of the event, also those that are absent from
	// the value. Free JSON is there as its text.
	DecodesTo any `json:"decodes_to,omitempty"`
	// Verdict is that of the fold, with its exact words, or halt, with the type
	// that is not known.
	Verdict string `json:"verdict,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (f *wireFile) record(offset int64) ledger.Record {
	r := ledger.Record{Partition: f.Partition, Offset: offset, Key: []byte(f.Key), Value: []byte(f.Value)}
	for _, h := range f.Headers {
		name, value, _ := strings.Cut(string(h), ": ")
		r.Headers = append(r.Headers, ledger.Header{Key: name, Value: []byte(value)})
	}
	return r
}

func newWireFile(r ledger.Record) wireFile {
	f := wireFile{Partition: r.Partition, Key: wireText(r.Key), Value: wireText(r.Value), Headers: []wireText{}}
	for _, h := range r.Headers {
		f.Headers = append(f.Headers, wireText(h.Key+": "+string(h.Value)))
	}
	return f
}

// wireText is bytes that are a JSON string when they are text, and otherwise, or
// when they would fill pages, an array of strings, {"repeat", "times"} and
// {"hex"}.
type wireText string

type wirePart struct {
	Repeat string `json:"repeat,omitempty"`
	Times  int    `json:"times,omitempty"`
	Hex    string `json:"hex,omitempty"`
}

// longRun is from how many equal bytes on they are written as a repetition.
const longRun = 120

func (w wireText) MarshalJSON() ([]byte, error) {
	parts := w.parts()
	if len(parts) == 1 {
		if s, ok := parts[0].(string); ok {
			return encodeWire(s)
		}
	}
	return encodeWire(parts)
}

func (w wireText) parts() []any {
	s, parts, plain := string(w), []any{}, 0
	flush := func(end int) {
		if end > plain {
			parts = append(parts, s[plain:end])
		}
	}
	for i := 0; i < len(s); {
		n := len(s[i:]) - len(strings.TrimLeft(s[i:], s[i:i+1]))
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case s[i] >= utf8.RuneSelf && size == 1:
			flush(i)
			parts = append(parts, wirePart{Hex: hex.EncodeToString([]byte{s[i]})})
			i++
			plain = i
		case s[i] < utf8.RuneSelf && n >= longRun:
			flush(i)
			parts = append(parts, wirePart{Repeat: s[i : i+1], Times: n})
			i += n
			plain = i
		default:
			i += size
		}
	}
	flush(len(s))
	if len(parts) == 0 {
		return []any{""}
	}
	return parts
}

func (w *wireText) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, (*string)(w))
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	var all strings.Builder
	for _, raw := range parts {
		var text string
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &text); err != nil {
				return err
			}
		} else {
			var p wirePart
			if err := json.Unmarshal(raw, &p); err != nil {
				return err
			}
			odd, err := hex.DecodeString(p.Hex)
			if err != nil {
				return err
			}
			text = strings.Repeat(p.Repeat, p.Times) + string(odd)
		}
		all.WriteString(text)
	}
	*w = wireText(all.String())
	return nil
}

// encodeWire encodes without \u003c and the like.
func encodeWire(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// Every record that ever was in a log is read for good: it decodes to the same
// event, and the event is written in the same way. The files name themselves:
// keten.v1.TaskStarted.most.json is a TaskStarted with all that it can carry.
func TestWireIsReadForGood(t *testing.T) {
	t.Parallel()
	if *rewrite {
		for name, e := range wireEvents() {
			writeWireFile(t, filepath.Join(wireFolder, name+".json"), func() wireFile { return acceptedFile(t, wireRecord(t, e)) })
		}
		for name, value := range otherNotations() {
			writeWireFile(t, filepath.Join(wireFolder, name+".json"), func() wireFile {
				r := wireRecord(t, wireEvents()["keten.v1.TaskStarted.least"])
				r.Value = []byte(value)
				return acceptedFile(t, r)
			})
		}
	}
	files := wireFiles(t, wireFolder)
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := f.record(0)
			env, err := ledger.Decode(r)
			require.NoError(t, err)
			require.Equal(t, strings.Join(strings.Split(name, ".")[:3], "."), env.Type)
			requireCloudEvent(t, r)
			requireDecoded(t, f.DecodesTo, env.Event)
			again := reencode(t, r, env)
			want := f.Value
			if f.Canonical != "" {
				want = f.Canonical
			}
			require.Equal(t, string(want), string(again.Value))
			require.Equal(t, string(f.Key), string(again.Key))
		})
	}
	for _, event := range eventNames(t) {
		for _, variant := range []string{"least", "most"} {
			require.Contains(t, files, "keten.v1."+event+"."+variant, "go test ./ledger -run Wire -rewrite writes it")
		}
	}
}

// What the fold refuses by looking at a record alone it refuses for good, and in
// the same words: decoder, gate and limits are part of the rules.
func TestWireIsRefusedForGood(t *testing.T) {
	t.Parallel()
	if *rewrite {
		for name, r := range refusedRecords(t) {
			writeWireFile(t, filepath.Join(refusedFolder, name+".json"), func() wireFile {
				f := newWireFile(r)
				f.Verdict, f.Reason = applied(t, r)
				require.NotEqual(t, string(ledger.Accepted), f.Verdict, name)
				return f
			})
		}
	}
	files := wireFiles(t, refusedFolder)
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := f.record(1)
			verdict, reason := applied(t, r)
			require.Equal(t, f.Verdict+": "+f.Reason, verdict+": "+reason)
			_, err := ledger.Decode(r)
			requireVerdict(t, f, err)
		})
	}
	for name := range refusedRecords(t) {
		require.Contains(t, files, name, "go test ./ledger -run Wire -rewrite writes it")
	}
}

// applied returns the verdict of a record behind the genesis, or halt.
func applied(t *testing.T, r ledger.Record) (verdict, reason string) {
	t.Helper()
	genesis := wireRecord(t, ledger.LedgerOpened{LedgerID: wireLedger(), Partitions: ledger.MaxPartitions, Rules: ledger.Rules, Window: 100})
	genesis.Partition = r.Partition
	p := ledger.NewPartition(r.Partition)
	out, err := p.Apply(genesis)
	require.NoError(t, err)
	require.Equal(t, ledger.Accepted, out.Verdict)
	r.Offset = 1
	out, err = p.Apply(r)
	if halt, ok := errors.AsType[*ledger.HaltError](err); ok {
		return "halt", halt.Type
	}
	require.NoError(t, err)
	return string(out.Verdict), string(out.Reason)
}

func requireVerdict(t *testing.T, f wireFile, err error) {
	t.Helper()
	switch f.Verdict {
	case "halt":
		require.ErrorIs(t, err, ledger.ErrUnknownType)
	case string(ledger.Foreign):
		require.ErrorIs(t, err, ledger.ErrForeign)
	default:
		require.Equal(t, string(ledger.Invalid), f.Verdict)
		var invalid *ledger.InvalidError
		require.ErrorAs(t, err, &invalid)
		if !strings.Contains(f.Reason, `\`) { // the fold puts into ASCII what is not
			require.Equal(t, f.Reason, invalid.Error())
		}
	}
}

func acceptedFile(t *testing.T, r ledger.Record) wireFile {
	t.Helper()
	env, err := ledger.Decode(r)
	require.NoError(t, err)
	f := newWireFile(r)
	f.DecodesTo = decoded(reflect.ValueOf(env.Event))
	if again := reencode(t, r, env); !bytes.Equal(again.Value, r.Value) {
		f.Canonical = wireText(again.Value)
	}
	return f
}

func reencode(t *testing.T, r ledger.Record, env ledger.Envelope) ledger.Message {
	t.Helper()
	msg, err := ledger.Encode(r.Partition, ledger.Meta{EventID: env.EventID, Source: "/keten/test/test", Time: time.UnixMilli(0)}, env.Event)
	require.NoError(t, err)
	return msg
}

// requireCloudEvent holds a record to CloudEvents 1.0, Kafka binary mode.
func requireCloudEvent(t *testing.T, r ledger.Record) {
	t.Helper()
	given := map[string]string{}
	for _, h := range r.Headers {
		require.NotContains(t, given, h.Key)
		require.True(t, utf8.Valid(h.Value))
		given[h.Key] = string(h.Value)
	}
	require.Equal(t, "1.0", given["ce_specversion"])
	require.Equal(t, "application/json", given["content-type"])
	require.NotEmpty(t, given["ce_type"])
	id, err := uuid.Parse(given["ce_id"])
	require.NoError(t, err)
	require.EqualValues(t, 7, id.Version())
	source, err := url.Parse(given["ce_source"])
	require.NoError(t, err)
	require.Regexp(t, `^/keten/[0-9a-f-]{36}/[a-z]+$`, source.Path)
	_, err = time.Parse(time.RFC3339Nano, given["ce_time"])
	require.NoError(t, err)
	subject, ok := given["ce_subject"]
	require.Equal(t, len(r.Key) > 0, ok)
	require.Equal(t, string(r.Key), subject)
}

// writeWireFile creates a file that is not there yet.
func writeWireFile(t *testing.T, name string, create func() wireFile) {
	t.Helper()
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	text, err := encodeWire(create())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, text, 0o644))
}

func wireFiles(t *testing.T, folder string) map[string]wireFile {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	files := map[string]wireFile{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		d.UseNumber()
		var f wireFile
		require.NoError(t, d.Decode(&f), name)
		files[strings.TrimSuffix(filepath.Base(name), ".json")] = f
	}
	return files
}

// eventNames are the events that this build knows, read from its source.
func eventNames(t *testing.T) []string {
	t.Helper()
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var names []string
	for _, source := range sources {
		text, err := os.ReadFile(source)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`\) EventName\(\) string\s*\{\s*return "(\w+)"`).FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	require.NotEmpty(t, names)
	return names
}

// decoded are the members of an event, or of a part of one, under their names in
// JSON.
func decoded(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case json.RawMessage:
		if x == nil {
			return nil
		}
		return wireText(x)
	case uuid.UUID:
		return x.String()
	}
	switch v.Kind() { //nolint:exhaustive // what events are made of
	case reflect.Struct:
		members := map[string]any{}
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			members[name] = decoded(v.Field(i))
		}
		return members
	case reflect.String:
		return wireText(v.String())
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return decoded(v.Elem())
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, decoded(v.Index(i)))
		}
		return list
	case reflect.Map:
		members := map[string]any{}
		for _, k := range v.MapKeys() {
			members[k.String()] = decoded(v.MapIndex(k))
		}
		return members
	}
	return v.Interface()
}

// requireDecoded compares an event with what a file says of it. Members that are
// younger than the file must be zero.
func requireDecoded(t *testing.T, want any, event ledger.Event) {
	t.Helper()
	text, err := encodeWire(decoded(reflect.ValueOf(event)))
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var got any
	require.NoError(t, d.Decode(&got))
	require.Equal(t, want, withoutYounger(want, got))
}

func withoutYounger(want, got any) any {
	switch got := got.(type) {
	case map[string]any:
		known, _ := want.(map[string]any)
		for name, v := range got {
			if _, ok := known[name]; !ok && isZero(v) {
				delete(got, name)
			} else {
				got[name] = withoutYounger(known[name], v)
			}
		}
	case []any:
		known, _ := want.([]any)
		for i := range min(len(got), len(known)) {
			got[i] = withoutYounger(known[i], got[i])
		}
	}
	return got
}

// isZero tells whether a member's decoded form says nothing.
func isZero(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			if !isZero(member) {
				return false
			}
		}
		return true
	case []any:
		return len(v) == 0
	}
	return v == nil || v == "" || v == false || v == json.Number("0")
}
