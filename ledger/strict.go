package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrMalformed reports bytes that are not one JSON document in valid UTF-8
// with every member there once.
var ErrMalformed = errors.New("malformed JSON")

// DecodeStrict reads one JSON document into v, a pointer to a struct. Members
// that v does not have, names in another case, duplicates, a null for anything
// but a [json.RawMessage], and data behind the document are errors: whoever
// sends them means something that would be lost. Numbers within a RawMessage
// keep every digit. The error wraps an *[InvalidError] with the JSON pointer of
// the place and, when the bytes are no document at all, [ErrMalformed]; v is
// then half filled.
func DecodeStrict(body []byte, v any) error {
	err := unmarshalStrict(body, v)
	if err == nil {
		return nil
	}
	if semantic, ok := errors.AsType[*jsonv2.SemanticError](err); ok {
		return strictError(semantic)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, decodeError(err))
}

var errNull = errors.New("null")

// refuseNull leaves every value but a null to the decoder, which would take a
// null for an empty string and the like.
func refuseNull(d *jsontext.Decoder, v any) error {
	if _, raw := v.(*json.RawMessage); raw || d.PeekKind() != 'n' {
		return errors.ErrUnsupported // the decoder's own way
	}
	return errNull
}

func strictError(err *jsonv2.SemanticError) error {
	path := string(err.JSONPointer)
	switch {
	case errors.Is(err, jsonv2.ErrUnknownName):
		return invalid(path, "is not a known member")
	case errors.Is(err, errNull):
		return invalid(path, "must not be null")
	case err.GoType == nil:
		return invalid(path, "is not of the right type")
	}
	switch err.GoType.Kind().String() {
	case "string":
		return invalid(path, "must be a string")
	case "bool":
		return invalid(path, "must be true or false")
	case "int", "int32", "int64":
		return invalid(path, "must be an integer")
	case "slice":
		return invalid(path, "must be an array")
	case "struct", "map":
		return invalid(path, "must be an object")
	}
	return invalid(path, "is not of the right type")
}
