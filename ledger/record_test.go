package ledger_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

func TestCheckPayload(t *testing.T) {
	t.Parallel()
	good := []string{
		`null`, `{}`, ` [1, -0.5, 1e300, 1E-300] `, `"é😀"`, `"\ud83d\ude00"`,
		strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("9", 400), `{"a":{"b":[]}}`, `1e0000300`,
	}
	for _, p := range good {
		require.NoError(t, ledger.CheckPayload(json.RawMessage(p)), p)
	}
	bad := map[string]string{
		``:                       "is not complete JSON",
		`{"a":`:                  "is not complete JSON",
		`{"a":1,"a":2}`:          "/a: is there twice",
		`{"a":"x\u0000y"}`:       "/a: contains U+0000",
		`{"x\u0000y":1}`:         "contains U+0000",
		`["\ud800"]`:             "is not valid JSON",
		"\"\xff\"":               "is not valid JSON",
		`[1e301]`:                "/0: is a number with an exponent outside -300 to 300",
		`{"n":1e-301}`:           "/n: is a number with an exponent outside -300 to 300",
		`1e99999999999999999999`: "is a number with an exponent outside -300 to 300",
		`1 2`:                    "has data behind the JSON value",
		`{'a':1}`:                "is not valid JSON",
		strings.Repeat("9", 401): "is a number of more than 400 bytes",
		strings.Repeat("[", 65) + strings.Repeat("]", 65):       "is nested deeper than 64 levels",
		`"` + strings.Repeat("a", ledger.MaxPayloadBytes) + `"`: "at most 262144 are allowed",
	}
	for p, want := range bad {
		err := ledger.CheckPayload(json.RawMessage(p))
		var inv *ledger.InvalidError
		require.ErrorAs(t, err, &inv, "%.60s", p)
		require.Contains(t, err.Error(), want, "%.60s", p)
	}
}

func started(c uuid.UUID) ledger.TaskStarted {
	return ledger.TaskStarted{CollectionID: c, Tenant: "t", Run: 1, TaskID: ledger.TaskID(c, ledger.KindTask, 0), Attempt: 1, Claim: 1, Worker: "w"}
}

func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	c := collectionID("A")
	value := func(edit func(m map[string]any)) string {
		b, err := json.Marshal(started(c))
		require.NoError(t, err)
		m := map[string]any{}
		require.NoError(t, json.Unmarshal(b, &m))
		edit(m)
		b, err = json.Marshal(m)
		require.NoError(t, err)
		return string(b)
	}
	whole := value(func(map[string]any) {})
	bad := map[string]string{
		"duplicate key":    strings.Replace(whole, `"run":1`, `"run":1,"run":1`, 1),
		"unknown field":    value(func(m map[string]any) { m["extra"] = 1 }),
		"folded case":      strings.Replace(whole, `"run"`, `"Run"`, 1),
		"trailing data":    whole + "1",
		"invalid UTF-8":    strings.Replace(whole, `"worker":"w"`, "\"worker\":\"\xff\"", 1),
		"wrong type":       value(func(m map[string]any) { m["run"] = "1" }),
		"float":            value(func(m map[string]any) { m["run"] = 1.5 }),
		"missing":          value(func(m map[string]any) { delete(m, "run") }),
		"out of range":     value(func(m map[string]any) { m["attempt"] = 0 }),
		"NUL in text":      value(func(m map[string]any) { m["worker"] = "a\x00b" }),
		"foreign task":     value(func(m map[string]any) { m["task_id"] = uuid.NewString() }),
		"other key":        value(func(m map[string]any) { m["collection_id"] = collectionID("B").String() }),
		"not an object":    `[]`,
		"not JSON":         `hello`,
		"empty":            ``,
		"too large":        `{"x":"` + strings.Repeat("a", ledger.MaxEventBytes) + `"}`,
		"other version":    value(func(m map[string]any) { m["collection_id"] = uuid.NewString() }),
		"null":             value(func(m map[string]any) { m["run"] = nil }),
		"null text":        strings.Replace(whole, `"worker":"w"`, `"worker":null`, 1),
		"UUID in braces":   strings.Replace(whole, c.String(), "{"+c.String()+"}", 1),
		"UUID in capitals": strings.Replace(whole, c.String(), strings.ToUpper(c.String()), 1),
		"UUID as urn":      strings.Replace(whole, c.String(), "urn:uuid:"+c.String(), 1),
	}
	r := record(t, 0, 7, started(c), nil)
	_, err := ledger.Decode(r)
	require.NoError(t, err)
	for name, v := range bad {
		r := r
		r.Value = []byte(v)
		_, err := ledger.Decode(r)
		var inv *ledger.InvalidError
		require.ErrorAs(t, err, &inv, name)
	}
}

func TestDecodeHeaders(t *testing.T) {
	t.Parallel()
	base := record(t, 0, 7, started(collectionID("A")), nil)
	with := func(edit func(hs []ledger.Header) []ledger.Header) ledger.Record {
		r := base
		r.Headers = edit(append([]ledger.Header(nil), base.Headers...))
		return r
	}
	var inv *ledger.InvalidError
	_, err := ledger.Decode(with(func([]ledger.Header) []ledger.Header { return nil }))
	require.ErrorIs(t, err, ledger.ErrForeign)
	_, err = ledger.Decode(with(func(hs []ledger.Header) []ledger.Header {
		return append(hs, ledger.Header{Key: ledger.HeaderType, Value: []byte("other")})
	}))
	require.ErrorAs(t, err, &inv, "two types, one of them ours")
	env, err := ledger.Decode(with(func(hs []ledger.Header) []ledger.Header {
		return append(hs, ledger.Header{Key: ledger.HeaderType, Value: []byte("keten.v1.TaskSucceeded")})
	}))
	require.ErrorAs(t, err, &inv, "two types, both ours")
	require.Equal(t, "keten.v1.TaskStarted", env.Type, "the first")
	_, err = ledger.Decode(with(func(hs []ledger.Header) []ledger.Header {
		return append(hs, ledger.Header{Key: ledger.HeaderID, Value: []byte(uuid.NewString())})
	}))
	require.ErrorAs(t, err, &inv, "two ids")
	wrongKey := base
	wrongKey.Key = nil
	_, err = ledger.Decode(wrongKey)
	require.ErrorAs(t, err, &inv, "another key")
	elsewhere := base
	elsewhere.Partition = 1
	_, err = ledger.Decode(elsewhere)
	require.ErrorAs(t, err, &inv, "another partition than the id's")
}

func TestEncodeRefusesWhatTheFoldWouldRefuse(t *testing.T) {
	t.Parallel()
	c := collectionID("A")
	f := map[string]string{"tasks": "3"}
	create := func(edit func(e *ledger.CollectionCreated)) error {
		e := ledger.CollectionCreated{CollectionID: c, Tenant: "t", Name: "n", RequestHash: strings.Repeat("0", 64), Tasks: tasks(c, f)}
		edit(&e)
		_, err := ledger.Encode(0, ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Time: time.Unix(0, 0)}, e)
		return err
	}
	require.NoError(t, create(func(*ledger.CollectionCreated) {}))
	bad := map[string]func(e *ledger.CollectionCreated){
		"/tasks":                  func(e *ledger.CollectionCreated) { e.Tasks = nil },
		"/tasks/1/id":             func(e *ledger.CollectionCreated) { e.Tasks[1].ID = e.Tasks[0].ID },
		"/tasks/2/index":          func(e *ledger.CollectionCreated) { e.Tasks[2].Index = 5 },
		"/tasks/1/name":           func(e *ledger.CollectionCreated) { e.Tasks[1].Name = e.Tasks[0].Name },
		"/tasks/0/args/x":         func(e *ledger.CollectionCreated) { e.Tasks[0].Args = json.RawMessage(`{"x":"\u0000"}`) },
		"/tasks/0/timeout_ms":     func(e *ledger.CollectionCreated) { e.Tasks[0].TimeoutMS = 0 },
		"/tasks/0/max_attempts":   func(e *ledger.CollectionCreated) { e.Tasks[0].OnInterrupt, e.Tasks[0].MaxAttempts = "fail", 2 },
		"/tasks/0/on_interrupt":   func(e *ledger.CollectionCreated) { e.Tasks[0].OnInterrupt = "" },
		"/name":                   func(e *ledger.CollectionCreated) { e.Name = strings.Repeat("n", 201) },
		"/labels":                 func(e *ledger.CollectionCreated) { e.Labels = map[string]string{strings.Repeat("k", 64): ""} },
		"/request_hash":           func(e *ledger.CollectionCreated) { e.RequestHash = "x" },
		"/collection_id":          func(e *ledger.CollectionCreated) { e.IdempotencyKey = "k" },
		"/tasks: definitions are": func(e *ledger.CollectionCreated) { fill(e.Tasks, 200<<10) },
		"is 8":                    func(e *ledger.CollectionCreated) { e.Tasks = append(e.Tasks, e.Tasks...); fill(e.Tasks, 140<<10) },
		"/tasks: has 201":         func(e *ledger.CollectionCreated) { e.Tasks = make([]ledger.Task, 201) },
	}
	for path, edit := range bad {
		err := create(edit)
		var inv *ledger.InvalidError
		require.ErrorAs(t, err, &inv, path)
		require.True(t, strings.HasPrefix(err.Error(), path), "%s: %v", path, err)
	}
}

func fill(tasks []ledger.Task, n int) {
	for i := range tasks {
		tasks[i].Args = json.RawMessage(`"` + strings.Repeat("x", n) + `"`)
	}
}

func payload(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// What a handler returned comes back as it was: also what JSON calls empty.
func TestEmptyResultsSurvive(t *testing.T) {
	t.Parallel()
	c := collectionID("A")
	for _, result := range []string{``, `null`, `{}`, `[]`, `""`, `0`, `false`} {
		r := record(t, 0, 7, ledger.TaskSucceeded{CollectionID: c, Tenant: "t", Run: 1, TaskID: ledger.TaskID(c, ledger.KindTask, 0), AttemptID: 3, Worker: "w", Result: payload(result)}, nil)
		env, err := ledger.Decode(r)
		require.NoError(t, err)
		got, ok := env.Event.(ledger.TaskSucceeded)
		require.True(t, ok)
		require.Equal(t, result, string(got.Result))
		require.Equal(t, result != "", strings.Contains(string(r.Value), `"result"`))
	}
}

// The fold takes any bytes: no panic, and every record moves the position.
func FuzzApply(f *testing.F) {
	base := record(f, 0, 1, started(collectionID("A")), nil)
	f.Add([]byte("keten.v1.TaskStarted"), base.Headers[1].Value, base.Key, base.Value)
	f.Add([]byte("keten.v1.CollectionCreated"), []byte("x"), []byte{}, []byte("{}"))
	f.Fuzz(func(t *testing.T, typ, id, key, value []byte) {
		p := ledger.NewPartition(0)
		_, err := p.Apply(record(t, 0, 0, ledger.LedgerOpened{LedgerID: uuid.New(), Partitions: 1, Rules: ledger.Rules, Window: 10}, nil))
		require.NoError(t, err)
		_, err = p.Apply(ledger.Record{Offset: 1, Key: key, Value: value, Headers: []ledger.Header{{Key: ledger.HeaderType, Value: typ}, {Key: ledger.HeaderID, Value: id}}})
		if err == nil {
			require.EqualValues(t, 2, p.Position())
		}
	})
}

// What is not there is not read as 0, empty or none.
func TestMissingMembersAreNoticed(t *testing.T) {
	t.Parallel()
	id := collectionID("A")
	task := ledger.TaskID(id, ledger.KindTask, 0)
	for _, c := range []struct {
		event   ledger.Event
		without string // a text of the value
		says    string
	}{
		{ledger.LedgerOpened{LedgerID: uuid.New(), Partitions: 1, Rules: ledger.Rules, Window: 5}, `,"rules":1`, "/rules: is missing"},
		{ledger.RulesActivated{Rules: 1}, `"rules":1`, "/rules: is missing"},
		{ledger.PartitionClaimed{Queue: "q", Prev: -1, Worker: "w"}, `"prev":-1,`, "/prev: is missing"},
		{ledger.PartitionReleased{Queue: "q", Worker: "w"}, `"claim":0,`, "/claim: is missing"},
		{ledger.PartitionReleased{Queue: "q", Worker: "w"}, `,"running":[]`, "/running: is missing"},
		{ledger.PartitionReleased{Queue: "q", Worker: "w"}, `,"grace_ms":0`, "/grace_ms: is missing"},
		{started(id), `"claim":1,`, "/claim: is missing"},
		{ledger.TaskSucceeded{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w"}, `"attempt_id":0,`, "/attempt_id: is missing"},
		{ledger.TaskDeferred{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w"}, `"attempt_id":0,`, "/attempt_id: is missing"},
		{ledger.TaskFailed{CollectionID: id, Tenant: "t", Run: 1, TaskID: task, Worker: "w", Error: ledger.TaskError{Code: "c", Audience: "user"}}, `"attempt_id":0,`, "/attempt_id: is missing"},
		{created(id), `"as_of":0,`, "/as_of: is missing"},
		{created(id), `"index":1,`, "/tasks/1/index: is missing"},
		{created(id), `"index":0,`, "/tasks/0/index: is missing"},
		{created(id), `"args":{},`, "/tasks/0/args: is missing"},
		{created(id), `"initial_ms":1000,`, "/tasks/0/backoff/initial_ms: is missing"},
		{created(id), `,"max_ms":300000`, "/tasks/0/backoff/max_ms: is missing"},
		{created(id), `"backoff":{"initial_ms":1000,"multiplier":2,"max_ms":300000},`, "/tasks/0/backoff/initial_ms: is missing"},
	} {
		r := record(t, 0, 7, c.event, nil)
		value := strings.Replace(string(r.Value), c.without, "", 1)
		require.NotEqual(t, string(r.Value), value, c.without)
		r.Value = []byte(value)
		_, err := ledger.Decode(r)
		require.EqualError(t, err, c.says)
	}
	r := record(t, 0, 7, created(id), nil)
	r.Value = []byte(strings.Replace(string(r.Value), `"as_of":0`, `"as_of":-9223372036854775808`, 1))
	_, err := ledger.Decode(r)
	require.EqualError(t, err, "/as_of: is -9223372036854775808, want at least 0")
}

func created(id uuid.UUID) ledger.CollectionCreated {
	return ledger.CollectionCreated{CollectionID: id, Tenant: "t", Name: "n", RequestHash: strings.Repeat("0", 64), Tasks: tasks(id, nil)}
}
