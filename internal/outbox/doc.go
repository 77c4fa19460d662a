// Package outbox keeps records that could not be appended to the ledger yet on
// the local disk, so that they outlive the process.
//
// It must not know Kafka, and not what the records mean.
package outbox
