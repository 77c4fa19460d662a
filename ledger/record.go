package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Names of the record headers: CloudEvents 1.0, Kafka binary mode, and W3C
// trace context. The fold looks at ce_type and ce_id only.
const (
	HeaderSpecVersion = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderType        = "ce_type"
	HeaderSource      = "ce_source"
	HeaderSubject     = "ce_subject"
	HeaderTime        = "ce_time"
	HeaderContentType = "content-type"
	HeaderTraceparent = "traceparent"
)

// TypePrefix opens every ce_type of the ledger; whatever has no such type is
// foreign. typeV1 opens those of the events known to this build.
const (
	TypePrefix = "keten."
	typeV1     = "keten.v1."
)

// A Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// A Record is one Kafka record as it was read. The fold keeps no reference to
// its bytes beyond payloads of accepted events.
type Record struct {
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	TimeMS      int64 // the broker's, Unix milliseconds (LogAppendTime)
	Key         []byte
	Value       []byte
	Headers     []Header
}

// A Message is a record to be appended.
type Message struct {
	Partition int32
	EventID   uuid.UUID // ce_id; the same whenever the append is repeated
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Meta is what a writer adds to an event.
type Meta struct {
	EventID     uuid.UUID // a UUIDv7
	Source      string    // /keten/<ledger id>/<role>
	Time        time.Time // the writer's clock; informative
	Traceparent string    // W3C, optional
}

// Source returns the ce_source of a role of a ledger.
func Source(ledgerID uuid.UUID, role string) string {
	return "/keten/" + ledgerID.String() + "/" + role
}

// Encode makes the record of an event. The error is an *[InvalidError] when
// the event breaks a limit: such a record would be refused by every fold.
func Encode(partition int32, m Meta, e Event) (Message, error) {
	value, err := marshal(e)
	if err != nil {
		return Message{}, fmt.Errorf("encode %s: %w", e.EventName(), err)
	}
	if err := checkEvent(partition, e, value); err != nil {
		return Message{}, err
	}
	msg := Message{Partition: partition, EventID: m.EventID, Value: value}
	subject := ""
	if id := e.collection(); id != uuid.Nil {
		subject = id.String()
		msg.Key = []byte(subject)
	}
	msg.Headers = headers(m, e.EventName(), subject)
	return msg, nil
}

// headersBytes is room for the values of the headers but source and traceparent.
const headersBytes = 192

// headers are made often: their values share one piece of memory.
func headers(m Meta, name, subject string) []Header {
	hs := make([]Header, 0, 8)
	buf := make([]byte, 0, headersBytes+len(m.Source)+len(m.Traceparent))
	add := func(key string) {
		hs = append(hs, Header{key, slices.Clip(buf)})
		buf = buf[len(buf):]
	}
	buf = append(buf, "1.0"...)
	add(HeaderSpecVersion)
	buf = append(buf, m.EventID.String()...)
	add(HeaderID)
	buf = append(append(buf, typeV1...), name...)
	add(HeaderType)
	buf = append(buf, m.Source...)
	add(HeaderSource)
	buf = m.Time.UTC().AppendFormat(buf, "2006-01-02T15:04:05.000Z07:00")
	add(HeaderTime)
	buf = append(buf, "application/json"...)
	add(HeaderContentType)
	if subject != "" {
		buf = append(buf, subject...)
		add(HeaderSubject)
	}
	if m.Traceparent != "" {
		buf = append(buf, m.Traceparent...)
		add(HeaderTraceparent)
	}
	return hs
}

// An Envelope is a decoded record.
type Envelope struct {
	EventID uuid.UUID // ce_id
	Type    string    // ce_type
	Event   Event     // nil when the record is invalid
}

// ErrForeign reports a record that is not ours: it has no ce_type that begins
// with keten.
var ErrForeign = errors.New("no keten type")

// ErrUnknownType reports a record of a type or version that this build does
// not know: whoever folds must stop.
var ErrUnknownType = errors.New("unknown keten type")

// Decode reads a record strictly. The error is [ErrForeign], [ErrUnknownType]
// or an *[InvalidError]; the envelope then holds what was known by then.
func Decode(r Record) (Envelope, error) {
	env, name, err := readEnvelope(r)
	if err != nil {
		return env, err
	}
	if e, ok := decodeHot(r, name); ok {
		env.Event = e
		return env, nil
	}
	env.Event, err = decodeAny(r, name)
	return env, err
}

// readEnvelope reads all but the event, of which it returns the name.
func readEnvelope(r Record) (Envelope, string, error) {
	env, err := readHeaders(r)
	if err != nil {
		return env, "", err
	}
	name, ok := strings.CutPrefix(env.Type, typeV1)
	if !ok || !isKnown(name) {
		return env, "", ErrUnknownType
	}
	if env.EventID == uuid.Nil {
		return env, "", invalid("", "header ce_id is not one UUIDv7")
	}
	if len(r.Value) > MaxEventBytes {
		return env, "", invalid("", "is %d bytes long, at most %d are allowed", len(r.Value), MaxEventBytes)
	}
	return env, name, nil
}

// decodeAny reads and checks the event of that name however it is written: what
// it says is the rule.
func decodeAny(r Record, name string) (Event, error) {
	e, err := decodeNamed(name, r.Value)
	if err != nil {
		return nil, decodeError(err)
	}
	if err := checkKey(r.Key, e); err != nil {
		return nil, err
	}
	if err := checkEvent(r.Partition, e, r.Value); err != nil {
		return nil, err
	}
	if err := checkPresent(e); err != nil {
		return nil, err
	}
	return e, nil
}

// readHeaders finds ce_type and ce_id. A record with a keten type among
// several types is ours, and invalid.
func readHeaders(r Record) (Envelope, error) {
	var env Envelope
	types, ids, ours := 0, 0, false
	for _, h := range r.Headers {
		switch h.Key {
		case HeaderType:
			types++
			if !ours && bytes.HasPrefix(h.Value, []byte(TypePrefix)) {
				ours, env.Type = true, typeName(h.Value)
			}
		case HeaderID:
			ids++
			if id, ok := parseUUID(h.Value); ok && id.Version() == 7 && id.Variant() == uuid.RFC4122 {
				env.EventID = id
			}
		}
	}
	if !ours {
		return Envelope{}, ErrForeign
	}
	if ids != 1 {
		env.EventID = uuid.Nil
	}
	if types != 1 {
		env.Type = tame(env.Type)
		return env, invalid("", "has %d headers ce_type", types)
	}
	return env, nil
}

// typeName is string(b), without a copy of the commonest types.
func typeName(b []byte) string {
	const started, succeeded = typeV1 + "TaskStarted", typeV1 + "TaskSucceeded"
	switch string(b) {
	case started:
		return started
	case succeeded:
		return succeeded
	}
	return string(b)
}

func checkKey(key []byte, e Event) error {
	want := ""
	if id := e.collection(); id != uuid.Nil {
		want = id.String()
	}
	if string(key) != want {
		return invalid("", "key is %.64q, want %q", key, want)
	}
	return nil
}

// isKnown tells whether this build knows an event.
func isKnown(name string) bool {
	switch name {
	case "LedgerOpened", "RulesActivated", "CollectionCreated", "RetryRequested", "CancelRequested",
		"PartitionClaimed", "PartitionReleased", "TaskStarted", "TaskSucceeded", "TaskFailed", "TaskDeferred":
		return true
	}
	return false
}

// missing stands in numbers for which 0 means something until they are read. It
// is none that any of them may be.
const missing = math.MinInt32

// decodeNamed decodes the event of that name. Texts, ids and the other numbers
// may not be empty or 0, so that a missing one is noticed as such.
func decodeNamed(name string, value []byte) (Event, error) {
	switch name {
	case "LedgerOpened":
		return decodeInto(value, LedgerOpened{Rules: missing})
	case "RulesActivated":
		return decodeInto(value, RulesActivated{Rules: missing})
	case "CollectionCreated":
		return decodeInto(value, CollectionCreated{AsOf: missing})
	case "RetryRequested":
		return decodeInto(value, RetryRequested{AsOf: missing})
	case "CancelRequested":
		return decodeInto(value, CancelRequested{})
	case "PartitionClaimed":
		return decodeInto(value, PartitionClaimed{Prev: missing})
	case "PartitionReleased":
		return decodeInto(value, PartitionReleased{Claim: missing, GraceMS: missing})
	case "TaskStarted":
		return decodeInto(value, TaskStarted{Claim: missing})
	case "TaskSucceeded":
		return decodeInto(value, TaskSucceeded{AttemptID: missing})
	case "TaskFailed":
		return decodeInto(value, TaskFailed{AttemptID: missing})
	case "TaskDeferred":
		return decodeInto(value, TaskDeferred{AttemptID: missing})
	}
	return nil, ErrUnknownType
}

func decodeInto[E Event](value []byte, blank E) (Event, error) {
	err := unmarshalStrict(value, &blank)
	return blank, err
}

// blankTask does for the tasks in a list what decodeNamed does for an event,
// and leaves the rest to the decoder.
func blankTask(_ *jsontext.Decoder, t *Task) error {
	t.Index, t.Backoff.InitialMS, t.Backoff.MaxMS = missing, missing, missing
	return errors.ErrUnsupported
}

// checkPresent notices missing lists and payloads, which writers may leave nil:
// they are then encoded as empty ones.
func checkPresent(e Event) error {
	switch e := e.(type) {
	case CollectionCreated:
		return first(argsPresent("/tasks/", e.Tasks), argsPresent("/finally/", e.Finally))
	case RetryRequested:
		return first(argsPresent("/tasks/", e.Tasks), argsPresent("/finally/", e.Finally))
	case PartitionReleased:
		if e.Running == nil {
			return invalid("/running", "is missing")
		}
	default: // the others have none
	}
	return nil
}

func argsPresent(path string, tasks []Task) error {
	for i := range tasks {
		if tasks[i].Args == nil {
			return invalid(path+strconv.Itoa(i)+"/args", "is missing")
		}
	}
	return nil
}

// unmarshalStrict refuses what the library would take beside the one form that
// the schemas know: members it does not have, a null for anything but a
// [json.RawMessage], and other notations of a UUID than the canonical one.
// Looking for nulls costs a call for every value, so it is only done where the
// word stands at all.
func unmarshalStrict(value []byte, v any) error {
	if bytes.Contains(value, []byte("null")) {
		return jsonv2.Unmarshal(value, v, jsonv2.RejectUnknownMembers(true), jsonv2.WithUnmarshalers(withoutNulls))
	}
	return jsonv2.Unmarshal(value, v, jsonv2.RejectUnknownMembers(true), jsonv2.WithUnmarshalers(canonicalUUIDs))
}

//nolint:gochecknoglobals // never changed; they remember how each type is decoded
var (
	canonicalUUIDs = jsonv2.JoinUnmarshalers(jsonv2.UnmarshalFromFunc(decodeUUID), jsonv2.UnmarshalFromFunc(blankTask))
	withoutNulls   = jsonv2.JoinUnmarshalers(canonicalUUIDs, jsonv2.UnmarshalFromFunc(refuseNull))
)

var errUUID = errors.New("not a UUID in its canonical form")

func decodeUUID(d *jsontext.Decoder, id *uuid.UUID) error {
	tok, err := d.ReadToken()
	if err != nil {
		return err
	}
	parsed, ok := parseUUID(tok.String())
	if tok.Kind() != '"' || !ok {
		return errUUID
	}
	*id = parsed
	return nil
}

// decodeError puts a library's error into words of our own: its texts may
// change, and a reason must read the same everywhere.
func decodeError(err error) error {
	if semantic, ok := errors.AsType[*jsonv2.SemanticError](err); ok {
		if errors.Is(err, jsonv2.ErrUnknownName) {
			return invalid(string(semantic.JSONPointer), "is not a known member")
		}
		if errors.Is(err, errNull) {
			return invalid(string(semantic.JSONPointer), "must not be null")
		}
		return invalid(string(semantic.JSONPointer), "is not of the right type")
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxError(syntactic)
	}
	return invalid("", "is not valid JSON")
}

func syntaxError(err *jsontext.SyntacticError) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return invalid(string(err.JSONPointer), "is there twice")
	}
	return invalid(string(err.JSONPointer), "is not valid JSON")
}

// marshal encodes deterministically: struct fields in order, map keys sorted.
func marshal(v any) ([]byte, error) {
	return jsonv2.Marshal(v, jsonv2.Deterministic(true))
}

// RequestHash is SHA-256, in hex, over a request's route and the canonical form
// of its body: what makes two requests the same. The form is RFC 8785's but for
// numbers, which keep their text: as 64-bit floats, which that RFC makes of
// them, different big integers would be one request. The error is an
// *[InvalidError] when body is not valid JSON.
func RequestHash(route string, body json.RawMessage) (string, error) {
	v := jsontext.Value(append([]byte(nil), body...))
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return "", decodeError(err)
	}
	return fmt.Sprintf("%x", hashParts(route, string(v))), nil
}
