package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
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
	d := jsontext.NewDecoder(bytes.NewReader(p))
	for {
		tok, err := d.ReadToken()
		if err != nil {
			return payloadEnd(d, err)
		}
		if err := checkToken(d, tok); err != nil {
			return err
		}
		if d.StackDepth() == 0 {
			return payloadTail(d)
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
		if rule := numberRule(tok.String()); rule != "" {
			return invalid(string(d.StackPointer()), "%s", rule)
		}
	}
	return nil
}

// payloadTail refuses anything but white space behind the value.
func payloadTail(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return invalid("", "has data behind the JSON value")
	}
	return nil
}

func payloadEnd(d *jsontext.Decoder, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("", "is not complete JSON")
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return syntaxError(syntactic)
	}
	return invalid(string(d.StackPointer()), "is not valid JSON")
}

// numberRule returns which rule a JSON number breaks, "" for none.
func numberRule(n string) string {
	if len(n) > MaxNumberBytes {
		return "is a number of more than 400 bytes"
	}
	i := strings.IndexAny(n, "eE")
	if i < 0 {
		return ""
	}
	digits := strings.TrimLeft(strings.TrimLeft(n[i+1:], "+-"), "0")
	if len(digits) > 3 || len(digits) == 3 && digits > "300" {
		return "is a number with an exponent beyond ±300"
	}
	return ""
}
