//go:build unix

package child

import (
	"os"
	"syscall"
)

// ownGroup puts the process into a group of its own and drops to user with no
// supplementary groups.
func ownGroup(user *User) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if user != nil {
		attr.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID}
	}
	return attr
}

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
}
