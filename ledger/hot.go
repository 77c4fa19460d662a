package ledger

import (
	"bytes"
	"encoding/json"

	"github.com/google/uuid"
)

// decodeHot reads creations and the events of attempts, which are nearly all of
// a ledger, in the one form that [Encode] gives them: members in order, no white
// space, and where no text needs an escape. It accepts only what [decodeAny]
// accepts as well, with the same event; whatever it is not sure about is left
// to that. So a rule that is added there must hold here too: by a check that
// both call, or because this form cannot break it, as no member that Encode
// always writes can be missing.
func decodeHot(r Record, name string) (Event, bool) {
	h := hotReader{rest: r.Value}
	switch name {
	case "CollectionCreated":
		e := h.created()
		return e, h.done() && addressed(r, e.CollectionID) && checkCreated(r.Partition, e, r.Value) == nil
	case "TaskStarted":
		e := h.started()
		return e, h.done() && addressed(r, e.CollectionID) && checkStarted(e) == nil
	case "TaskSucceeded":
		e := h.succeeded()
		judged := e
		judged.Result = nil // went through the gate while it was read
		return e, h.done() && addressed(r, e.CollectionID) && checkSucceeded(judged) == nil
	case "TaskFailed":
		e := h.failed()
		return e, h.done() && addressed(r, e.CollectionID) && checkFailed(e) == nil
	case "TaskDeferred":
		e := h.deferred()
		return e, h.done() && addressed(r, e.CollectionID) && checkDeferred(e) == nil
	}
	return nil, false
}

// addressed tells whether the record's key and partition are the collection's.
func addressed(r Record, id uuid.UUID) bool {
	key, ok := parseUUID(r.Key)
	return ok && key == id && checkCollectionID(r.Partition, id) == nil
}

// hotReader takes a value apart from the front. Once bad, it stays bad, and
// what it returns means nothing.
type hotReader struct {
	rest []byte
	bad  bool
}

func (h *hotReader) fail() { h.rest, h.bad = nil, true }

// done tells whether the value was taken to its end.
func (h *hotReader) done() bool { return !h.bad && len(h.rest) == 0 }

func (h *hotReader) created() (e CollectionCreated) {
	h.must(`{"collection_id":`)
	e.CollectionID = h.uuid()
	h.must(`,"tenant":`)
	e.Tenant = h.text()
	h.must(`,"name":`)
	e.Name = h.text()
	e.Template = h.optional(`,"template":`)
	e.Description = h.optional(`,"description":`)
	if h.has(`,"labels":{`) {
		e.Labels = h.labels()
	}
	e.OrderingKey = h.optional(`,"ordering_key":`)
	e.IdempotencyKey = h.optional(`,"idempotency_key":`)
	h.must(`,"request_hash":`)
	e.RequestHash = h.text()
	h.must(`,"as_of":`)
	e.AsOf = h.number()
	if h.has(`,"actor":{"kind":`) {
		e.Actor = h.actor()
	}
	h.must(`,"tasks":[`)
	e.Tasks = h.tasks()
	if h.has(`,"finally":[`) {
		e.Finally = h.tasks()
	}
	h.must(`}`)
	return e
}

func (h *hotReader) labels() map[string]string {
	labels := make(map[string]string)
	for more := true; more && !h.bad; more = h.has(`,`) {
		n := len(labels)
		key := h.text()
		h.must(`:`)
		labels[key] = h.text()
		if len(labels) == n { // a key that was there
			h.fail()
		}
	}
	h.must(`}`)
	return labels
}

func (h *hotReader) actor() Actor {
	a := Actor{
		Kind:      h.text(),
		ID:        h.optional(`,"id":`),
		Name:      h.optional(`,"name":`),
		Address:   h.optional(`,"address":`),
		RequestID: h.optional(`,"request_id":`),
	}
	h.must(`}`)
	return a
}

func (h *hotReader) tasks() []Task {
	list := make([]Task, 0, 4)
	for more := true; more && !h.bad; more = h.has(`,`) {
		list = append(list, Task{})
		h.task(&list[len(list)-1])
	}
	h.must(`]`)
	return list
}

func (h *hotReader) task(t *Task) {
	h.must(`{"id":`)
	t.ID = h.uuid()
	h.must(`,"index":`)
	t.Index = h.count()
	h.must(`,"name":`)
	t.Name = h.text()
	h.must(`,"type":`)
	t.Type = h.text()
	h.must(`,"queue":`)
	t.Queue = h.text()
	t.Description = h.optional(`,"description":`)
	h.must(`,"args":`)
	t.Args = h.payload()
	t.Immutable = h.has(`,"immutable":true`)
	h.must(`,"on_interrupt":`)
	t.OnInterrupt = OnInterrupt(h.text())
	h.must(`,"max_attempts":`)
	t.MaxAttempts = h.count()
	h.must(`,"backoff":{"initial_ms":`)
	t.Backoff.InitialMS = h.number()
	h.must(`,"multiplier":`)
	t.Backoff.Multiplier = h.number()
	h.must(`,"max_ms":`)
	t.Backoff.MaxMS = h.number()
	h.must(`},"timeout_ms":`)
	t.TimeoutMS = h.number()
	if h.has(`,"attempts":`) {
		t.Attempts = h.count()
	}
	h.must(`}`)
}

func (h *hotReader) started() (e TaskStarted) {
	h.target(&e.CollectionID, &e.Tenant, &e.Run, &e.TaskID)
	h.must(`,"attempt":`)
	e.Attempt = h.count()
	h.must(`,"claim":`)
	e.Claim = h.number()
	h.must(`,"worker":`)
	e.Worker = h.text()
	h.must(`}`)
	return e
}

func (h *hotReader) succeeded() (e TaskSucceeded) {
	h.target(&e.CollectionID, &e.Tenant, &e.Run, &e.TaskID)
	h.attempt(&e.AttemptID, &e.Worker)
	if h.has(`,"result":`) {
		e.Result = h.payload()
	}
	e.Message = h.optional(`,"message":`)
	h.must(`}`)
	return e
}

func (h *hotReader) failed() (e TaskFailed) {
	h.target(&e.CollectionID, &e.Tenant, &e.Run, &e.TaskID)
	h.attempt(&e.AttemptID, &e.Worker)
	if h.has(`,"by_claim":`) {
		claim := h.number()
		e.ByClaim = &claim
	}
	h.must(`,"error":{"code":`)
	e.Error.Code = h.text()
	e.Error.Message = h.optional(`,"message":`)
	e.Error.Detail = h.optional(`,"detail":`)
	h.must(`,"audience":`)
	e.Error.Audience = Audience(h.text())
	e.Error.Retryable = h.has(`,"retryable":true`)
	h.must(`}`)
	if h.has(`,"retry_after_ms":`) {
		e.RetryAfterMS = h.number()
	}
	h.must(`}`)
	return e
}

func (h *hotReader) deferred() (e TaskDeferred) {
	h.target(&e.CollectionID, &e.Tenant, &e.Run, &e.TaskID)
	h.attempt(&e.AttemptID, &e.Worker)
	h.must(`}`)
	return e
}

// target reads which task it is about: what all four events begin with.
func (h *hotReader) target(collection *uuid.UUID, tenant *string, run *int, task *uuid.UUID) {
	h.must(`{"collection_id":`)
	*collection = h.uuid()
	h.must(`,"tenant":`)
	*tenant = h.text()
	h.must(`,"run":`)
	*run = h.count()
	h.must(`,"task_id":`)
	*task = h.uuid()
}

func (h *hotReader) attempt(id *int64, worker *string) {
	h.must(`,"attempt_id":`)
	*id = h.number()
	h.must(`,"worker":`)
	*worker = h.text()
}

func (h *hotReader) must(text string) {
	if !h.has(text) {
		h.fail()
	}
}

func (h *hotReader) has(text string) bool {
	if len(h.rest) < len(text) || string(h.rest[:len(text)]) != text {
		return false
	}
	h.rest = h.rest[len(text):]
	return true
}

// take returns the next n bytes; nothing, when n is 0, is never right.
func (h *hotReader) take(n int) []byte {
	if n == 0 {
		h.fail()
	}
	taken := h.rest[:n]
	h.rest = h.rest[n:]
	return taken
}

func (h *hotReader) text() string {
	n, escaped := scanString(h.rest)
	if n == 0 || escaped {
		h.fail()
		return ""
	}
	return commonText(h.take(n)[1 : n-1])
}

// commonText is string(b), without a copy of what most events have.
func commonText(b []byte) string {
	switch string(b) {
	case DefaultQueue: // also the tenant of whoever has one
		return DefaultQueue
	case string(OnInterruptRestart):
		return string(OnInterruptRestart)
	case string(AudienceUser):
		return string(AudienceUser)
	case string(AudienceOperator):
		return string(AudienceOperator)
	}
	return string(b)
}

// optional returns the text of a member that may be missing.
func (h *hotReader) optional(member string) string {
	if !h.has(member) {
		return ""
	}
	return h.text()
}

func (h *hotReader) payload() json.RawMessage {
	return bytes.Clone(h.take(scanPayload(h.rest)))
}

func (h *hotReader) uuid() (id uuid.UUID) {
	const quoted = 38
	if len(h.rest) < quoted || h.rest[0] != '"' || h.rest[quoted-1] != '"' {
		h.fail()
		return id
	}
	id, ok := parseUUID(h.take(quoted)[1 : quoted-1])
	if !ok {
		h.fail()
	}
	return id
}

// number reads an integer of the events, none of which may be negative. With 18
// digits at most it cannot overflow.
func (h *hotReader) number() int64 { return h.digits(18) }

// count is number for an int, which may have 32 bits.
func (h *hotReader) count() int { return int(h.digits(9)) }

func (h *hotReader) digits(most int) int64 {
	n, value := 0, int64(0)
	for n < len(h.rest) && n <= most && h.rest[n]-'0' <= 9 {
		value = value*10 + int64(h.rest[n]-'0')
		n++
	}
	if n > most || n > 1 && h.rest[0] == '0' {
		h.fail()
		return 0
	}
	h.take(n)
	return value
}

// parseUUID reads a UUID in its canonical form: 36 characters in lower case.
func parseUUID[T string | []byte](text T) (id uuid.UUID, ok bool) {
	if len(text) != 36 {
		return id, false
	}
	from := 0
	for i := range id {
		switch from {
		case 8, 13, 18, 23:
			if text[from] != '-' {
				return id, false
			}
			from++
		}
		high, low := hexDigit(text[from]), hexDigit(text[from+1])
		if high > 15 || low > 15 {
			return id, false
		}
		id[i] = high<<4 | low
		from += 2
	}
	return id, true
}

// hexDigit returns the value of a digit, more than 15 when c is none.
func hexDigit(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 10
	}
	if '0' <= c && c <= '9' {
		return c - '0'
	}
	return 255
}
