//go:build !unix

package child

import (
	"context"
	"os"
	"syscall"
)

func ownGroup(*User) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func killGroup(p *os.Process) { _ = p.Kill() }

func dieWithUs(*syscall.SysProcAttr, syscall.Signal) {}

// watchUs does nothing: on these systems a child may outlive a killed parent.
func watchUs(context.Context, *Process, syscall.Signal) error { return nil }
