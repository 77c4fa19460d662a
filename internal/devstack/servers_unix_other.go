//go:build unix && !linux

package devstack

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// psWait bounds one look at the process table.
const psWait = 5 * time.Second

// serversOf returns the server that the lock file in the data folder names, if
// that process is one for this folder: the number alone may by now belong to
// any program.
func serversOf(dataDir string) []int {
	lines := postmasterLines(dataDir)
	if lines == nil {
		return nil
	}
	pid, err := strconv.Atoi(lines[0])
	if err != nil || pid <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), psWait) //nolint:forbidigo // bounded, and of no caller's concern
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec // a number
	if err != nil || !strings.Contains(string(out), "postgres") || !strings.Contains(string(out), dataDir) {
		return nil
	}
	return []int{pid}
}
