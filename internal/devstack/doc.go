// Package devstack runs the two servers Keten stands on, for trying it out, for
// development and for tests: a broker inside this process and a PostgreSQL
// server beside it, both with their data in a folder.
//
// It decides where data and binaries lie, under which account PostgreSQL runs,
// and that nothing is ever wiped: data of another PostgreSQL version is refused.
// Neither server can be reached from another machine and neither outlives this
// process, not even after kill -9. The package knows nothing of topics, tables
// or the ledger, and is not for production: one node, no replication.
package devstack
