// Package pgtest gives each test an empty PostgreSQL database.
//
// The server is the one KETEN_TEST_DATABASE_URL names, else one started for the
// test process. Where there can be none, tests are skipped with the reason, and
// fail when CI=true. The package knows no tables.
package pgtest
