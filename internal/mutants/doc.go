// Command mutants is the mutation gate, the test of the tests: it breaks the
// code at one place at a time, on purpose, and prints what notices.
//
//	go run ./internal/mutants
//
// A mutant stands in the table with the clause of the rules that it breaks. For
// each the directed tests of package ledger are run, and the simulator. Every
// mutant must be noticed by a test with a name or by an invariant of the
// simulator. One that no test can notice, because nothing observable changes,
// says so in the table, and the gate fails when it is noticed all the same. It
// also fails when a mutant is noticed by nobody, does not compile, or is no longer
// found in the code, and when less than 96 % are noticed.
//
// All mutants are woven into one binary per package: of a function with mutants
// there is the original and one variant for each, and in its place a switch over
// a number that stands in the environment. The compiler gets the woven files
// through go's -overlay; nothing is written into the tree.
//
// Tests of one golden vector are weak: they fail for whatever changes and do not
// say what. A mutant that only they notice is named at the end of the report.
package main
