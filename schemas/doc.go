// Package schemas holds the public contract of Keten as files: the JSON Schema
// of every version of every event in events, those of the records in the output
// topic in output, the AsyncAPI description of the ledger's topic, the OpenAPI
// description of the HTTP API, and the JSON Schema of the catalog.
//
// The schemas of events are written by hand and only grow: what they say of a
// version stays true. Each stands alone. Ledger and schemas refuse the same; the
// little that only the ledger can refuse is listed in agree_test.go, such as
// limits in bytes: maxLength counts characters.
//
// The schemas of the output topic are open: what tasks say is no truth, and a
// reader passes over what it does not know. Each holds for all that its version
// ever wrote, which lies in internal/eventlog/testdata/output.
//
// asyncapi.yaml and docs/reference/events.md are generated from the schemas,
// openapi.yaml from httpapi; their tests say how.
package schemas
