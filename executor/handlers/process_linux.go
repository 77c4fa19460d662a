package handlers

import "syscall"

// processAttributes makes the command the leader of a group of its own, which
// dies with us.
func processAttributes(as *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: credential(as)}
}
