// Package kafkatest runs a real Apache Kafka for tests and benchmarks: one node
// in KRaft mode, on loopback, from the jars Maven has, which are fetched once.
//
// It can be killed, paused and started again on the same data and port, so that
// tests see how their code takes it. The package knows no topics.
package kafkatest
