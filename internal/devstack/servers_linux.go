package devstack

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// serversOf returns the PostgreSQL processes that work in the data folder: the
// server and its children, which all stay in it as their working directory.
// Processes we may not look at are of other accounts and cannot enter it.
func serversOf(dataDir string) []int {
	dataDir, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err != nil || cwd != dataDir {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres" {
			pids = append(pids, pid)
		}
	}
	return pids
}
