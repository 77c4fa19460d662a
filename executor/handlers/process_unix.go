//go:build unix

package handlers

import "syscall"

func credential(as *account) *syscall.Credential {
	if as == nil {
		return nil
	}
	return &syscall.Credential{Uid: as.UID, Gid: as.GID}
}

// endGroup asks the process group led by pid to end.
func endGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGTERM) }

// killGroup ends what is left of the group. Mostly that is nobody, which is no
// error.
func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
