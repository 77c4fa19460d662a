// Package catalog reads the catalog: task types and collection templates in
// one YAML file, and makes task specifications from them.
//
// It decides whether a catalog is sound, and reports everything that is wrong
// with one at once, each with file, line, column and path. It decides what a
// template's input must look like, what the input's values become in the args
// of its tasks, and which defaults a task gets. Whoever starts a collection
// asks it before appending; the ledger never does, so no verdict depends on a
// catalog and a changed catalog changes no collection that exists.
//
// # Types
//
// A type with exec is run as a command: argv and no shell, in dir (relative to
// the catalog file, default its directory), with the variables named in env
// and nothing else of the environment (default PATH; a variable that is not
// set is not passed on), as user if given, with at most output_limit bytes of
// result on its standard output (default and most 262,144). A type with http is
// run as a request (default method POST) to a URL that is the file's and never
// the input's, one with sleep waits. A type has one of the three at most; one
// without is served by a handler registered in Go under the same name. Defaults:
// queue default, timeout 1h (at most 24h), max_attempts 1 (at most 1,000),
// backoff initial 1s, multiplier 2, max 5m, on_interrupt restart, audience
// operator. Durations are whole numbers with the units ms, s, m and h, such as
// 90s or 1h30m. args_schema and result_schema are JSON Schema 2020-12 with
// formats asserted; a type without one takes any JSON. $ref stays within the
// schema, patterns are Go's regular expressions.
//
// # Templates
//
// input_schema describes an object; without one the input is the empty object.
// A string in a task's args may refer to the input: "${input.a.b}" alone takes
// the value with its JSON type, within a longer string strings, numbers and
// booleans are inserted as text. "$${" stands for "${". What refers to an
// optional property that the input lacks is left out: the key of an object,
// the element of a list. The schema keyword default is an annotation, as JSON
// Schema has it, and fills nothing in.
//
// The package must not know the ledger, Kafka, Postgres, our API, or how a
// command is run or a request made. schemas/catalog.json publishes the same rules as far as JSON Schema
// can say them; a test holds the two together.
package catalog
