// Package history makes histories of a ledger for tests and benchmarks: what
// an API and honest executors would have written, and on demand what goes wrong
// around them. The same options give the same records.
package history
