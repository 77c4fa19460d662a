//go:build unix

package devstack

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const leftoverPoll = 20 * time.Millisecond

// endLeftover waits for servers of an earlier process that was killed. They
// were told to stop when it died and may still be writing their checkpoint; one
// that was not told is told now. Only a holder of the folder's lock calls it,
// so nobody else owns them. When none is left, a lock file whose number now
// belongs to another program, common in containers, is removed: PostgreSQL
// would take that program for a server and refuse to start.
func endLeftover(ctx context.Context, logger *slog.Logger, dataDir string) error {
	start, told := time.Now(), syscall.Signal(0)
	tick := time.NewTicker(leftoverPoll)
	defer tick.Stop()
	for {
		pids := serversOf(dataDir)
		if len(pids) == 0 {
			return removeStaleLock(ctx, logger, dataDir)
		}
		sig, ok := persuasion(time.Since(start))
		if !ok {
			return fmt.Errorf("server processes %v of an earlier start still use %s and do not end", pids, dataDir)
		}
		if sig != told {
			told = sig
			logger.InfoContext(ctx, "waiting for the postgres of an earlier start to end",
				slog.Any("pids", pids), slog.String("signal", sig.String()))
			tell(dataDir, pids, sig)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// persuasion is the signal for servers that have been in the way for so long.
func persuasion(waited time.Duration) (syscall.Signal, bool) {
	switch {
	case waited < fastWait:
		return syscall.SIGINT, true
	case waited < fastWait+quitWait:
		return syscall.SIGQUIT, true
	case waited < fastWait+quitWait+killWait:
		return syscall.SIGKILL, true
	default:
		return 0, false
	}
}

func removeStaleLock(ctx context.Context, logger *slog.Logger, dataDir string) error {
	lines := postmasterLines(dataDir)
	if lines == nil {
		return nil
	}
	pid, err := strconv.Atoi(lines[0])
	if err != nil || syscall.Kill(pid, 0) == syscall.ESRCH {
		return nil // PostgreSQL finds out by itself
	}
	path := filepath.Join(dataDir, "postmaster.pid")
	logger.InfoContext(ctx, "removing the lock file of a postgres that is gone", slog.String("path", path), slog.Int("pid", pid))
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale lock file: %w", err)
	}
	return nil
}

// tell signals the server, which ends its children in order; children without a
// server are told themselves. A kill goes to all.
func tell(dataDir string, pids []int, sig syscall.Signal) {
	if lines := postmasterLines(dataDir); lines != nil && sig != syscall.SIGKILL {
		if server, err := strconv.Atoi(lines[0]); err == nil && slices.Contains(pids, server) {
			_ = syscall.Kill(server, sig)
			return
		}
	}
	if sig == syscall.SIGINT {
		sig = syscall.SIGTERM // to a child, an interrupt only cancels a statement
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}
