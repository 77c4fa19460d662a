package ledger_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// A parsed record may be applied to any number of folds: none of them writes
// into what it shares with the others.
func TestParsedRecordsNeverChange(t *testing.T) {
	t.Parallel()
	s := told(t)
	other := ledger.NewPartition(0)
	var parsed []ledger.Parsed
	var before []string
	for i, line := range []string{
		"LedgerOpened", "PartitionClaimed worker=w1", "CollectionCreated tasks=2 finally=1", "TaskStarted", "TaskFailed id=3", "TaskStarted f=0",
		"TaskFailed f=0 id=5", "RetryRequested tasks=2 attempts=1 finally=1", "TaskStarted run=2 attempt=2", "TaskSucceeded run=2 id=8",
	} {
		word, f := fields(line)
		s.offset = int64(i)
		parsed = append(parsed, ledger.Parse(record(t, 0, int64(i), s.event(word, f), nil)))
		before = append(before, marshaled(t, parsed[i].Event))
		for _, p := range []*ledger.Partition{s.p, other} {
			out, err := p.ApplyParsed(&parsed[i])
			require.NoError(t, err)
			require.Equal(t, ledger.Accepted, out.Verdict, "%s: %s", line, out.Reason)
		}
	}
	for i := range parsed {
		require.Equal(t, before[i], marshaled(t, parsed[i].Event))
	}
	require.Equal(t, s.p.StateHash(), other.StateHash())
}

// The short way through the decoder refuses what the long one refuses, also
// what nobody would write by mistake.
func TestHotEventsAreJudgedAlike(t *testing.T) {
	t.Parallel()
	for _, e := range everyEvent() {
		r := record(t, 0, 7, e, nil)
		if len(r.Key) == 0 {
			r.Key = []byte(collectionID("B").String())
		} else {
			r.Key = []byte(strings.Replace(string(r.Key), string(r.Key[9:12]), "000", 1))
		}
		_, err := bothWays(t, r)
		var invalid *ledger.InvalidError
		require.ErrorAs(t, err, &invalid, "another key: %s", r.Value)
		require.Contains(t, invalid.Rule, "key is ")
	}
	r := record(t, 0, 7, started(collectionID("A")), nil)
	for _, number := range []string{"18446744073709551617", "36893488147419103233", "184467440737095516161", "9223372036854775808", "4294967297"} {
		for _, member := range []string{`"run":1`, `"attempt":1`, `"claim":1`} {
			other := r
			name, _, _ := strings.Cut(member, ":")
			other.Value = []byte(strings.Replace(string(r.Value), member, name+":"+number, 1))
			require.NotEqual(t, r.Value, other.Value)
			env, err := bothWays(t, other)
			if number != "4294967297" || member != `"claim":1` {
				require.Error(t, err, "%s as %s", number, member)
			} else {
				require.NoError(t, err)
				require.Equal(t, ledger.TaskStarted{
					CollectionID: collectionID("A"), Tenant: "t", Run: 1, TaskID: started(collectionID("A")).TaskID, Attempt: 1, Claim: 1<<32 + 1, Worker: "w",
				}, env.Event)
			}
		}
	}
}

// An escape takes four hexadecimal digits.
func TestEscapesAreHexadecimal(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 1, 2, 3} {
		for c := range 256 {
			digits := []byte("1234")
			digits[at] = byte(c)
			p := json.RawMessage(`"\u` + string(digits) + `"`)
			isHex := strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) && c < 128
			require.Equal(t, isHex, ledger.CheckPayload(p) == nil, "%q", p)
		}
	}
}

// Whoever decides beforehand hears what the fold would say.
func TestTextIsChecked(t *testing.T) {
	t.Parallel()
	bad := map[string]string{"\xff": "/x: is not valid UTF-8", "a\x00": "/x: contains U+0000", "\x00": "/x: contains U+0000", "12345": "/x: is 5 bytes long, at most 4 are allowed"}
	for text, want := range bad {
		require.EqualError(t, ledger.CheckText("/x", text, 4), want)
	}
	require.NoError(t, ledger.CheckText("/x", "1234", 4))
	labels := map[string]string{"ok": "v"}
	for _, key := range []string{"d", "b", "c", "a", "e"} {
		labels[key] = "\x00"
	}
	for range 20 {
		require.EqualError(t, ledger.CheckLabels("/labels", labels), `/labels: entry "a": contains U+0000`)
	}
}

// A retry's definitions have the same limit as a creation's, or the collection
// could be created and never be retried.
func TestDefinitionsOfARetryAreBounded(t *testing.T) {
	t.Parallel()
	id := collectionID("A")
	e := ledger.RetryRequested{
		CollectionID: id, Tenant: "t", Run: 2, Name: "n", RequestHash: strings.Repeat("a", 64), TaskCount: 2, Tasks: tasks(id, map[string]string{"attempts": "1"}),
	}
	fill(e.Tasks, 223<<10)
	_, err := ledger.Encode(0, ledger.Meta{}, e)
	require.NoError(t, err)
	fill(e.Tasks, 225<<10)
	_, err = ledger.Encode(0, ledger.Meta{}, e)
	require.ErrorContains(t, err, "/tasks: definitions are ")
	e.Finally = finally(id, map[string]string{"finally": "2"})
	fill(e.Tasks, 114<<10)
	fill(e.Finally, 114<<10)
	_, err = ledger.Encode(0, ledger.Meta{}, e)
	require.ErrorContains(t, err, "/tasks: definitions are ")
}

// The task of an event is one of the collection's: a UUIDv8 of RFC 9562 that
// carries the collection's partition. Whether it is the next one is for the rule
// to say.
func TestTaskIDsOfEvents(t *testing.T) {
	t.Parallel()
	start := started(collectionID("A"))
	for name, edit := range map[string]func(*ledger.TaskStarted){
		"another variant":   func(e *ledger.TaskStarted) { e.TaskID[8] &= 0x3f },
		"another version":   func(e *ledger.TaskStarted) { e.TaskID[6] = 0x70 | e.TaskID[6]&0x0f },
		"another partition": func(e *ledger.TaskStarted) { e.TaskID[7] ^= 1 },
	} {
		e := start
		edit(&e)
		r := record(t, 0, 7, start, nil)
		r.Value = []byte(marshaled(t, e))
		_, err := bothWays(t, r)
		require.EqualError(t, err, "/task_id: is not a task of the collection", name)
	}
}
