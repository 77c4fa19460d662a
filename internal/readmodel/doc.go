// Package readmodel keeps what the ledger means in PostgreSQL tables.
//
// It is the only package that owns tables and SQL. It decides which rows an
// outcome of the fold makes, writes them together with the positions they stand
// for, and answers every read of the API from one snapshot. All of it derives
// from the ledger: it can be dropped and made again, and never decides what is
// true. It must not know Kafka.
package readmodel
