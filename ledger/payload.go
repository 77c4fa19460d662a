package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// CheckPayload is the one gate for args, results and other free JSON: valid
// JSON in valid UTF-8 without duplicate keys, U+0000 or lone surrogates, at
// most 64 levels deep, numbers of at most 400 bytes with an exponent within
// ±300, at most 256 KiB. What passes it PostgreSQL's jsonb can store. The error
// is an *[InvalidError] whose path is a JSON pointer into the payload.
func CheckPayload(p json.RawMessage) error {
	if len(p) > MaxPayloadBytes {
		return invalid("", "is %d bytes long, at most %d are allowed", len(p), MaxPayloadBytes)
	}
	if passesScan(p) {
		return nil
	}
	return walkPayload(p)
}

// walkPayload is the gate but for the size: what it says is the rule. The scan
// before it only saves the walk where the answer is sure to be yes.
func walkPayload(p json.RawMessage) error {
	d := jsontext.NewDecoder(bytes.NewReader(p))
	for {
		tok, err := d.ReadToken()
		if err != nil {
			return payloadError(p, err)
		}
		if err := checkToken(d, tok); err != nil {
			return err
		}
		if d.StackDepth() == 0 {
			return payloadTail(p, d)
		}
	}
}

func checkToken(d *jsontext.Decoder, tok jsontext.Token) error {
	switch tok.Kind() {
	case '{', '[':
		if d.StackDepth() > MaxPayloadDepth {
			return invalid(string(d.StackPointer()), "is nested deeper than %d levels", MaxPayloadDepth)
		}
	case '"':
		if strings.IndexByte(tok.String(), 0) >= 0 {
			return invalid(string(d.StackPointer()), "contains U+0000")
		}
	case '0':
		if rule := numberRule([]byte(tok.String())); rule != "" {
			return invalid(string(d.StackPointer()), "%s", rule)
		}
	default: // the other kinds have no limits
	}
	return nil
}

// payloadTail refuses anything but white space behind the value.
func payloadTail(p json.RawMessage, d *jsontext.Decoder) error {
	if len(bytes.TrimLeft(p[d.InputOffset():], " \t\r\n")) > 0 {
		return invalid("", "has data behind the JSON value")
	}
	return nil
}

func payloadError(p json.RawMessage, err error) error {
	syntactic, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok || syntactic.ByteOffset >= int64(len(p)) {
		return invalid("", "is not complete JSON")
	}
	return syntaxError(syntactic)
}

// numberRule returns which rule a JSON number breaks, "" for none.
func numberRule(n []byte) string {
	if len(n) > MaxNumberBytes {
		return "is a number of more than 400 bytes"
	}
	i := max(bytes.IndexByte(n, 'e'), bytes.IndexByte(n, 'E'))
	if i < 0 {
		return ""
	}
	digits := bytes.TrimLeft(bytes.TrimLeft(n[i+1:], "+-"), "0")
	if len(digits) > 3 || len(digits) == 3 && string(digits) > "300" {
		return "is a number with an exponent outside -300 to 300"
	}
	return ""
}
