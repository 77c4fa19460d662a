// Package child runs server processes that do not outlive the process that
// started them: not after a clean exit, a panic or a kill -9.
//
// On Linux the kernel promises it (PR_SET_PDEATHSIG); on other Unix systems a
// shell that waits for the end of a pipe does. The package decides nothing
// about what runs; it must not know Kafka or PostgreSQL.
package child
