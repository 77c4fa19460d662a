package schemas_test

import (
	"slices"
	"testing"
)

// The committed reference is the one that the schemas make:
// go test ./schemas -run Committed -update rewrites it.
func TestReferenceIsCommitted(t *testing.T) {
	t.Parallel()
	page := struct {
		Events []eventDoc
		Shared []namedSchema
	}{Events: describedEvents(t)}
	for _, e := range page.Events {
		for _, def := range e.Defs {
			if !slices.ContainsFunc(page.Shared, func(s namedSchema) bool { return s.Name == def.Name }) {
				page.Shared = append(page.Shared, def)
			}
		}
	}
	isCommitted(t, "../docs/reference/events.md", referencePage, page)
}

const referencePage = `<!-- Generated from schemas/events by go test ./schemas -run Committed -update. -->

# Events

All that ever happened to collections, as a reader of the topic sees it. There is one topic, ` + "`<prefix>.ledger`" + ` (` + "`keten.ledger`" + ` unless configured otherwise), one record is one event, and records are never deleted or changed. Any Kafka consumer can read it; [tests/clients/valid_events.py](../../tests/clients/valid_events.py) does, in a few lines. The topic, its settings and all messages in a form for programs: [asyncapi.yaml](../../schemas/asyncapi.yaml).

## What a record is

A CloudEvents 1.0 event in Kafka's binary mode: attributes in headers, data in the value.

| part | holds |
|---|---|
| key | the id of the collection that the event is about, as text; empty for events that concern a whole partition |
| value | the event as a JSON object, as described below |
| ` + "`ce_specversion`" + ` | ` + "`1.0`" + ` |
| ` + "`ce_id`" + ` | a UUIDv7; the same when a writer appends an event again because it does not know whether it arrived |
| ` + "`ce_type`" + ` | ` + "`keten.v1.`" + ` and the event's name |
| ` + "`ce_source`" + ` | ` + "`/keten/<ledger id>/<role>`" + ` of the writer |
| ` + "`ce_time`" + ` | the writer's clock, RFC 3339; informative |
| ` + "`ce_subject`" + ` | the key; absent when that is empty |
| ` + "`content-type`" + ` | ` + "`application/json`" + ` |
| ` + "`traceparent`" + ` | W3C trace context of the request, if there is one |

Offsets count. A claim is named by the offset of its PartitionClaimed, an attempt by the offset of its TaskStarted, and *position* means the offset of the next record. All records of a collection are in one partition, which is in the 12 bits behind the version of its id.

**Appending is only proposing.** Two writers may race, so a record in the topic is not yet a fact: each reader that folds the log comes to the same verdict on each record, and what is refused changes nothing. Who wants facts reads them from the API, or asks it for the verdict. Who reads the topic alone sees what was asked for and reported, in order, and complete.

**What may change.** What a version of an event says here stays true. New members come with a new version, under another ` + "`ce_type`" + `. Who only looks may pass over types that are new; who folds must stop at them. Writers refuse an event that breaks a bound, and readers refuse it too: it is invalid for all, for good. Bytes are those of UTF-8, no text has U+0000 in it, and every member not marked as required may be absent.

## All events

| event | written by |
|---|---|
{{- range .Events}}
| [{{.Name}}](#{{lower .Name}}) | {{join .Roles ", "}} |
{{- end}}
{{range .Events}}
## {{.Name}}

{{.Says}} Written by {{.Writers}}

` + "`keten.v1.{{.Name}}`" + ` · key: {{if .Keyed}}the collection's id{{else}}empty{{end}} · [schema](../../schemas/events/keten.v1.{{.Name}}.json)
{{template "members" .}}
An example:
` + "\n```" + `
{{- range .Headers}}
{{printf "%-15s" .Key}} {{text .}}
{{- end}}
` + "```\n```json" + `
{{.Example}}
` + "```" + `
{{end}}
{{- range .Shared}}
## {{.Name}}

{{.Description}}
{{template "members" .}}
{{- end}}
{{- define "members"}}
| member | type | bounds | required | meaning |
|---|---|---|---|---|
{{- $object := .}}
{{- range .Properties}}
| ` + "`{{.Name}}`" + ` | {{.TypeWords}} | {{.Bounds}} | {{if $object.IsRequired .Name}}yes{{end}} | {{.Meaning}} |
{{- end}}
{{end}}`
