// Package archtest holds the import table: which package may know which other
// package and which foreign module. It is a test and nothing else.
//
// The linter says the same of direct imports, with a message at the line. This
// test also sees what an import drags in, and that no package is without a row.
package archtest
