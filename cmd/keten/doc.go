// Command keten is the one binary of Keten: the server's roles, the
// development stack, and the client.
//
// It is the only package that knows every other: it reads the configuration,
// makes the parts, hands them to each other and runs them until a signal says
// stop. It decides nothing about collections.
package main
