// Package handlers holds the task handlers that need no Go code of the user's:
// [Exec] runs a command, [HTTP] calls a server, [Sleep] waits.
//
// It decides how a command is started, fed, supervised, stopped, and what its
// exit means; how a request is made, where it may go, and what its answer means.
// It knows nothing of catalogs, partitions or the log.
package handlers
