// Package outcometoken makes and checks the tokens with which the outcome of a
// deferred attempt is reported from outside. It decides what a token looks like,
// what its signature covers, and what a key file is.
//
// A token is good for one attempt. That it is used once is not decided here: the
// ledger takes one outcome of an attempt.
//
// It must not know Kafka, Postgres, HTTP, or what a task does.
package outcometoken
