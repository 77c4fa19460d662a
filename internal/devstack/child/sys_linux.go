package child

import (
	"context"
	"syscall"
)

// dieWithUs asks the kernel to send sig when the thread that forks is gone. Go
// sets it after dropping privileges, which would clear it.
func dieWithUs(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// watchUs has nothing to do where the kernel watches.
func watchUs(context.Context, *Process, syscall.Signal) error { return nil }
