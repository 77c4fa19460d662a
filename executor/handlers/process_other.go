//go:build unix && !linux

package handlers

import "syscall"

func processAttributes(as *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential(as)}
}
