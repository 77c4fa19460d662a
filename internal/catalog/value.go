package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The bounds of a value that is checked against a schema. They are those of
// the ledger's payloads.
const (
	maxDepth       = 64
	maxNumberBytes = 400
	// maxExponent protects the process: the schema validator compares numbers
	// as fractions, and 1e999999999 as a fraction does not fit in memory.
	maxExponent = 300
)

// parseValue decodes JSON for the schema validator, numbers as json.Number. It
// refuses what decoders disagree about: duplicate keys, lone surrogates,
// invalid UTF-8, data behind the value.
func parseValue(data json.RawMessage) (any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.ReadToken()
		if err != nil {
			return nil, syntaxViolation(err)
		}
		if message := refusal(d, token); message != "" {
			return nil, newValidationError([]Violation{{Path: string(d.StackPointer()), Message: message}})
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, newValidationError([]Violation{{Message: "is not JSON: there is data behind the value"}})
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}

func refusal(d *jsontext.Decoder, token jsontext.Token) string {
	switch token.Kind() {
	case '{', '[':
		if d.StackDepth() > maxDepth {
			return fmt.Sprintf("is nested deeper than %d levels", maxDepth)
		}
	case '"':
		if strings.IndexByte(token.String(), 0) >= 0 {
			return "contains U+0000"
		}
	case '0':
		return numberRefusal(token.String())
	default: // ends, true, false and null
	}
	return ""
}

func numberRefusal(number string) string {
	if len(number) > maxNumberBytes {
		return fmt.Sprintf("is a number of more than %d bytes", maxNumberBytes)
	}
	i := strings.IndexAny(number, "eE")
	if i < 0 {
		return ""
	}
	exponent, err := strconv.Atoi(number[i+1:])
	if err != nil || exponent > maxExponent || exponent < -maxExponent {
		return fmt.Sprintf("is a number with an exponent outside -%d to %d", maxExponent, maxExponent)
	}
	return ""
}

func syntaxViolation(err error) error {
	v := Violation{Message: "is not JSON: it ends too early"}
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		v.Message = "has the same key twice"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
	case errors.As(err, &syntax):
		v.Message = fmt.Sprintf("is not JSON: %v at byte %d", syntax.Err, syntax.ByteOffset)
	default:
		v.Message = "is not JSON: " + err.Error()
	}
	if errors.As(err, &syntax) {
		v.Path = string(syntax.JSONPointer)
	}
	return newValidationError([]Violation{v})
}

// compact removes the white space around the tokens of valid JSON and changes
// nothing else: numbers keep their digits, keys their order.
func compact(data json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return data
	}
	return b.Bytes()
}

// encode writes a decoded value as JSON, numbers as they were written.
func encode(value any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(fmt.Sprintf("encode a decoded JSON value: %v", err)) // it came from a decoder
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
