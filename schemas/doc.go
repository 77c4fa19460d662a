// Package schemas holds the public contract of Keten as files: the JSON Schema
// of every version of every event in events, the OpenAPI description of the
// HTTP API, and the JSON Schema of the catalog.
//
// The schemas of events are written by hand and only grow: what they say of a
// version stays true. openapi.yaml is generated from httpapi; its test says how.
// Limits in bytes appear as maxLength, which counts characters: whatever a
// schema refuses the ledger refuses too, not always the other way round.
package schemas
