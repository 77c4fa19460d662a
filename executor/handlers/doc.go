// Package handlers holds the task handlers that need no Go code of the user's:
// today [Exec], which runs a command.
//
// It decides how a command is started, fed, bounded, stopped, and what its exit
// means. It knows nothing of catalogs, partitions or the log.
package handlers
