package catalog

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// json returns what stands at c as compact JSON, keys in the file's order;
// false after reporting numbers that JSON does not have.
func (c cursor) json() (json.RawMessage, bool) {
	before := len(c.doc.errs)
	var b bytes.Buffer
	c.writeJSON(&b)
	return b.Bytes(), len(c.doc.errs) == before
}

func (c cursor) writeJSON(b *bytes.Buffer) {
	switch c.node.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i, e := range c.entries() {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(encode(e.key))
			b.WriteByte(':')
			e.value.writeJSON(b)
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range c.node.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			c.doc.cursor(item, pointer(c.path, strconv.Itoa(i))).writeJSON(b)
		}
		b.WriteByte(']')
	default:
		b.Write(c.scalarJSON())
	}
}

func (c cursor) scalarJSON() json.RawMessage {
	switch c.node.ShortTag() {
	case "!!null":
		return json.RawMessage("null")
	case "!!bool":
		var v bool
		if err := c.node.Decode(&v); err != nil {
			c.fail("%v", err)
		}
		return strconv.AppendBool(nil, v)
	case "!!int", "!!float":
		return c.numberJSON()
	}
	return encode(c.node.Value)
}

// numberJSON keeps the digits of a number that is written as in JSON, so that
// none is rounded, and converts what only YAML has, such as 0x1F and 1_000.
func (c cursor) numberJSON() json.RawMessage {
	text := []byte(c.node.Value)
	if json.Valid(text) {
		if message := numberRefusal(c.node.Value); message != "" {
			c.fail("%s", message)
			return json.RawMessage("0")
		}
		return text
	}
	var whole int64
	if c.node.ShortTag() == "!!int" && c.node.Decode(&whole) == nil {
		return strconv.AppendInt(nil, whole, 10)
	}
	var v float64
	if err := c.node.Decode(&v); err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		c.fail("is not a number that JSON can express")
		return json.RawMessage("0")
	}
	return encode(v)
}
