package schemas_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// An example is one event twice, as records: with as little and with as much as
// it can carry.
type example struct{ least, most ledger.Message }

// examples are the events that the ledger's corpus of records has, by name. Its
// test sees to it that each event is there.
func examples(t *testing.T) map[string]example {
	t.Helper()
	all := map[string]example{}
	for name, msg := range corpus(t) {
		event, variant, _ := strings.Cut(strings.TrimPrefix(name, "keten.v1."), ".")
		ex := all[event]
		switch variant {
		case "least":
			ex.least = msg
		case "most":
			ex.most = msg
		}
		all[event] = ex
	}
	return all
}

// events are the names of all events.
func events(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(examples(t)))
}

// corpus are the records in the ledger's testdata/wire, by file. Their form is
// told in ledger/wire_test.go.
func corpus(t *testing.T) map[string]ledger.Message {
	t.Helper()
	files, err := filepath.Glob("../ledger/testdata/wire/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := map[string]ledger.Message{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var f struct {
			Partition int32    `json:"partition"`
			Key       string   `json:"key"`
			Headers   []string `json:"headers"`
			Value     any      `json:"value"`
		}
		require.NoError(t, json.Unmarshal(text, &f))
		msg := ledger.Message{Partition: f.Partition, Key: []byte(f.Key), Value: []byte(spelledOut(f.Value))}
		for _, h := range f.Headers {
			name, value, _ := strings.Cut(h, ": ")
			msg.Headers = append(msg.Headers, ledger.Header{Key: name, Value: []byte(value)})
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = msg
	}
	return all
}

// spelledOut is a text of a file: whole, or in parts some of which repeat.
func spelledOut(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var all strings.Builder
		for _, part := range v {
			all.WriteString(spelledOut(part))
		}
		return all.String()
	case map[string]any:
		times, _ := v["times"].(float64)
		return strings.Repeat(spelledOut(v["repeat"]), int(times))
	}
	return ""
}

// Whatever the ledger has ever written follows the schema of its type.
func TestTheCorpusFollowsItsSchemas(t *testing.T) {
	t.Parallel()
	for name, msg := range corpus(t) {
		event, _, _ := strings.Cut(strings.TrimPrefix(name, "keten.v1."), ".")
		require.NoError(t, decode(msg, msg.Value), name)
		require.NoError(t, fits(t, compile(t, event), msg.Value), name)
	}
}
