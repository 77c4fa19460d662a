package schemas_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keten-ledger/keten/ledger"
)

// A difference is something that one of the two judges of a value, ledger and
// schema, refuses and the other takes.
type difference struct {
	why string
	// where is a pattern over the place of the value, rule over what the
	// refusing judge says.
	where, rule *regexp.Regexp
}

func differ(why, where, rule string) difference {
	return difference{why, regexp.MustCompile("(?s)^(" + where + ")$"), regexp.MustCompile("(?s)" + rule)}
}

// onlyTheLedgerRefuses is all that can be wrong with a value that follows its
// schema. Beside it stands what is lost when JSON is read: members that are
// there twice, bytes that are not UTF-8, data behind the value.
func onlyTheLedgerRefuses() []difference {
	return []difference{
		differ("JSON Schema counts characters", `.*`, `bytes long`),
		differ("JSON Schema does not look into what is free", `.*/(args|input|result)(/.*)?`, `contains U\+0000|nested deeper|number (of more|with an exponent)`),
		differ("JSON Schema takes 1.0 and 1e3 for integers", `.*`, `is not of the right type`),
		differ("parsers replace a lone surrogate", `.*`, `is not valid JSON`),
		differ("an id is computed", `/collection_id`, `carries partition|is not the one of tenant, ordering key and idempotency key`),
		differ("an id is computed", `/(tasks|finally)/\d+/id`, `is not the id of this task`),
		differ("an id is computed", `/task_id`, `is not a task of the collection`),
		differ("one member depends on another", `/amended/\d+`, `is not a task of the suffix`),
		differ("one member depends on another", `/tasks`, `has \d+ entries, want 1 to \d`),
		differ("one member depends on another", `/(tasks|finally)/\d+/index`, `want \d`),
		differ("one member depends on another", `/(tasks|finally)/\d+/backoff/max_ms`, `want \d`),
		differ("one entry depends on another", `/(tasks|finally)/\d+/name`, `is there twice`),
	}
}

// A bench holds the two judges of one event's values to each other, and counts
// what they agreed on and how they differed.
type bench struct {
	schema *jsonschema.Schema
	msg    ledger.Message // partition and headers of the values
	counts map[string]int
}

func (d difference) String() string { return d.why + ": " + d.where.String() + " " + d.rule.String() }

// judge returns an error unless both judges agree on a value or differ in a
// known way.
func (b *bench) judge(t require.TestingT, doc string) error {
	value, msg := []byte(doc), b.msg
	msg.Key = keyOf(value)
	byLedger, bySchema := decode(msg, value), fits(t, b.schema, value)
	switch {
	case byLedger == nil && bySchema == nil:
		b.counts["taken"]++
		return nil
	case byLedger != nil && bySchema != nil:
		b.counts["refused"]++
		return nil
	case byLedger == nil:
		return fmt.Errorf("the ledger takes what the schema refuses: %w", bySchema)
	}
	invalid, ok := errors.AsType[*ledger.InvalidError](byLedger)
	require.True(t, ok, "%v", byLedger)
	if b.isKnown(onlyTheLedgerRefuses(), invalid.Path, invalid.Rule) {
		return nil
	}
	return fmt.Errorf("the schema takes what the ledger refuses: %w", byLedger)
}

// keyOf is the key that fits a value. A value without a collection's id, or with
// the nil one, fits none, as what concerns the whole partition does.
func keyOf(value []byte) []byte {
	var keyed struct {
		ID any `json:"collection_id"`
	}
	_ = json.Unmarshal(value, &keyed) // what cannot be read has no id
	if id, ok := keyed.ID.(string); ok && id != uuid.Nil.String() {
		return []byte(id)
	}
	return nil
}

func (b *bench) isKnown(list []difference, where, rule string) bool {
	for _, d := range list {
		if d.where.MatchString(where) && d.rule.MatchString(rule) {
			b.counts[d.String()]++
			return true
		}
	}
	return false
}

// Whatever is done to a value, near every limit that a schema knows and far
// from all of them, ledger and schema judge it alike, but for a short list. And
// the list is no longer than it must be.
func TestLedgerAndSchemasAgree(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	total := map[string]int{}
	t.Run("events", func(t *testing.T) {
		forEachEvent(t, func(t *testing.T, event string, ex example) {
			b := &bench{schema: compile(t, event), counts: map[string]int{}}
			for _, b.msg = range []ledger.Message{ex.least, ex.most} {
				b.judgeAll(t)
			}
			require.Positive(t, b.counts["taken"])
			require.Positive(t, b.counts["refused"])
			mu.Lock()
			defer mu.Unlock()
			for name, n := range b.counts {
				total[name] += n
			}
		})
	})
	for _, d := range onlyTheLedgerRefuses() {
		require.Positive(t, total[d.String()], "nothing shows this difference any more: %v", d)
	}
}

// judgeAll makes every change there is to a document, one at a time.
func (b *bench) judgeAll(t *testing.T) {
	for _, p := range places(t, string(b.msg.Value), b.schema) {
		for _, c := range changes(p) {
			if err := b.judge(t, c.made()); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		}
	}
}

// Events drawn at random, within every limit and often at one, are accepted by
// the ledger and follow their schemas; what two random changes make of them
// is judged alike by both. A failure prints the seed and the command that repeats it.
func TestDrawnEventsAreJudgedAlike(t *testing.T) {
	t.Parallel()
	for _, event := range events(t) {
		t.Run(event, func(t *testing.T) {
			t.Parallel()
			b := &bench{schema: compile(t, event), counts: map[string]int{}}
			rapid.Check(t, func(rt *rapid.T) {
				b.msg = encode(rt, drawEvent(rt, event))
				require.NoError(rt, decode(b.msg, b.msg.Value))
				require.NoError(rt, fits(rt, b.schema, b.msg.Value), "%s", b.msg.Value)
				doc := string(b.msg.Value)
				for range 2 {
					at := places(rt, doc, b.schema)
					all := changes(at[rapid.IntRange(0, len(at)-1).Draw(rt, "place")])
					c := all[rapid.IntRange(0, len(all)-1).Draw(rt, "change")]
					doc = c.made()
					require.NoError(rt, b.judge(rt, doc), "%s makes %.2000s", c.what, doc)
				}
			})
		})
	}
}
