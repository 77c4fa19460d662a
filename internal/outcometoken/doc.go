// Package outcometoken makes and checks the one-time tokens with which the
// outcome of a deferred attempt is reported from outside.
//
// It must not know Kafka, Postgres, HTTP, or what a task does.
package outcometoken
