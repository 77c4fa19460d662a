package executor_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/keten-ledger/keten/ledger"
)

// An executor is not ready while the outbox cannot take an outcome that the brokers
// do not take either, and is again when the disk is well.
func TestReadyAgainWhenTheDiskIs(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		p := w.start(t, reg, outboxIn(dir))
		w.create(t, 0, task("hold"))
		b := await(t, starts)
		require.NoError(t, p.executor.Ready())
		// The disk fails: writes do, and nothing can be created in the folder.
		full, err := unix.Open("/dev/full", unix.O_RDWR, 0)
		require.NoError(t, err)
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		folder := ""
		for _, fd := range fds {
			to, _ := os.Readlink("/proc/self/fd/" + fd.Name()) // one that was closed meanwhile is not it
			if strings.HasPrefix(to, dir) && filepath.Base(to) == "records" {
				n, err := strconv.Atoi(fd.Name())
				require.NoError(t, err)
				require.NoError(t, unix.Dup2(full, n))
				folder = filepath.Dir(to)
			}
		}
		require.NotEmpty(t, folder)
		require.NoError(t, os.RemoveAll(folder))
		p.wire.setCut(true)
		b.end <- nil
		time.Sleep(3 * time.Second)
		require.ErrorContains(t, p.executor.Ready(), "outcomes cannot be kept")
		p.wire.setCut(false)
		w.witness.await(t, "the outcome", func([]fact) bool { return w.witness.count("TaskSucceeded", ledger.Accepted) == 1 })
		require.NoError(t, os.MkdirAll(folder, 0o700))
		time.Sleep(10 * time.Minute)
		id := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status, "all works again")
		require.NoError(t, p.executor.Ready())
	})
}
