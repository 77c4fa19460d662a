//go:build unix && !linux

package child

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// dieWithUs has nothing to set: these systems have no parent death signal.
func dieWithUs(*syscall.SysProcAttr, syscall.Signal) {}

// watchUs starts a shell that reads from a pipe only we hold. Our end, however
// it comes, closes the pipe, and the shell signals the process.
func watchUs(ctx context.Context, p *Process, sig syscall.Signal) error {
	const script = `read -r _; kill "-$1" "$2"`
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", script, "sh", strconv.Itoa(int(sig)), strconv.Itoa(p.pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	go func() {
		// The process is gone: the shell must go first, or it would signal
		// whoever gets the same id next.
		<-p.done
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = pipe.Close()
	}()
	return nil
}
