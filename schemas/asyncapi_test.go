package schemas_test

import (
	"slices"
	"testing"
)

// An operation is what one role does with the ledger.
type operation struct {
	Name, Action, Says string
	Events             []eventDoc
}

// The committed description is the one that the schemas make:
// go test ./schemas -run Committed -update rewrites it. make test-clients has it
// judged by AsyncAPI's own parser.
func TestAsyncAPIIsCommitted(t *testing.T) {
	t.Parallel()
	all := describedEvents(t)
	doc := struct {
		Events     []eventDoc
		Operations []operation
	}{Events: all}
	for _, o := range []operation{
		{Name: roleInit, Says: "keten init opens every partition, once."},
		{Name: roleAPI, Says: "The API appends what its users ask for, and outcomes that come from outside."},
		{Name: roleExecutor, Says: "Executors claim queues, start tasks and report outcomes."},
		{Name: roleAdmin, Says: "An operator activates the next version of the rules."},
	} {
		o.Action = "send"
		for _, e := range all {
			if slices.Contains(e.Roles, o.Name) {
				o.Events = append(o.Events, e)
			}
		}
		doc.Operations = append(doc.Operations, o)
	}
	doc.Operations = append(doc.Operations, operation{
		Name: "read", Action: "receive", Events: all,
		Says: "Executors and projectors fold every record, oldest first. So can anybody else.",
	})
	isCommitted(t, "asyncapi.yaml", asyncAPI, doc)
}

const asyncAPI = `# Generated from schemas/events by go test ./schemas -run Committed -update.
asyncapi: 3.1.0
id: https://github.com/keten-ledger/keten
info:
  title: Keten ledger
  version: "1"
  description: >-
    Every state change of every collection, as one event each, in one Kafka topic.
    Appending is only proposing: what is true of a record follows from the records
    before it, by rules that all readers share. docs/reference/events.md tells it
    for people.
  license: {name: Apache 2.0, url: "https://www.apache.org/licenses/LICENSE-2.0"}
defaultContentType: application/json
servers:
  development:
    host: 127.0.0.1:9092
    protocol: kafka
    description: The broker that keten dev brings along.
channels:
  ledger:
    address: "{prefix}.ledger"
    title: Ledger
    description: >-
      All records, in one topic for good. A collection's records are in one
      partition, in order. Beside it stands {prefix}.snapshots, which is internal:
      a compacted topic with the state of each partition, from which readers can resume.
    parameters:
      prefix:
        description: What the names of a ledger's topics begin with.
        default: keten
    messages:
{{- range .Events}}
      {{.Name}}: {$ref: "#/components/messages/{{.Name}}"}
{{- end}}
    bindings:
      kafka:
        bindingVersion: 0.5.0
        replicas: 3
        topicConfiguration:
          cleanup.policy: [delete]
          retention.ms: -1
          retention.bytes: -1
operations:
{{- range .Operations}}
  {{.Name}}:
    action: {{.Action}}
    channel: {$ref: "#/channels/ledger"}
    summary: {{.Says}}
    messages:
{{- range .Events}}
      - {$ref: "#/channels/ledger/messages/{{.Name}}"}
{{- end}}
{{- end}}
components:
  messages:
{{- range .Events}}
    {{.Name}}:
      name: keten.v1.{{.Name}}
      title: {{.Name}}
      summary: >-
        {{.Says}}
      traits:
        - {$ref: "#/components/messageTraits/cloudEvent"}
        - {$ref: "#/components/messageTraits/{{if .Keyed}}ofCollection{{else}}ofPartition{{end}}"}
      headers:
        type: object
        properties:
          ce_type: {const: keten.v1.{{.Name}}}
      payload: {$ref: "./events/keten.v1.{{.Name}}.json"}
{{- end}}
  messageTraits:
    cloudEvent:
      contentType: application/json
      headers:
        type: object
        required: [ce_specversion, ce_id, ce_type, ce_source, ce_time, content-type]
        properties:
          ce_specversion: {const: "1.0"}
          ce_id:
            description: A UUIDv7, the same when an append is repeated.
            type: string
            format: uuid
          ce_source:
            description: "/keten/<ledger id>/<role of the writer>"
            type: string
            format: uri-reference
          ce_time:
            description: The writer's clock; informative.
            type: string
            format: date-time
          content-type: {const: application/json}
          traceparent:
            description: W3C trace context of the request, if there is one.
            type: string
    ofCollection:
      headers:
        type: object
        properties:
          ce_subject:
            description: The collection's id.
            type: string
            format: uuid
      bindings:
        kafka:
          bindingVersion: 0.5.0
          key:
            description: The collection's id.
            type: string
            format: uuid
    ofPartition:
      bindings:
        kafka:
          bindingVersion: 0.5.0
          key:
            description: Empty; the event concerns the whole partition.
            type: string
            maxLength: 0
`
