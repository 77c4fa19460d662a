// Package eventlogtest is what a broker must do to carry a ledger, as a test
// suite: [Exercise] runs the event log against any Kafka-compatible broker. The
// same suite runs on the embedded broker and on Apache Kafka, so that what holds
// on the one holds on the other.
//
// It also has a [Gate], which makes a broker silent or unreachable without
// touching it.
package eventlogtest
