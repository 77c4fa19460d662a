package executor_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/ledger"
)

func outboxIn(dir string) func(*executor.Config) {
	return func(c *executor.Config) { c.OutboxDir = dir }
}

// keptIn counts the records in the outboxes of a folder that nobody holds.
func keptIn(t *testing.T, dir string) (n int) {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	require.NoError(t, err)
	for _, f := range folders {
		box, err := outbox.Open(f, outbox.MinLimit)
		require.NoError(t, err)
		n += len(box.Left())
		require.NoError(t, box.Close())
	}
	return n
}

// What handlers have done while the brokers were away is recorded when they are
// back, also when the executor was replaced in between; nothing runs again.
func TestOutcomesOutliveTheirProcess(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		first := w.start(t, reg, outboxIn(dir))
		var ids []uuid.UUID
		for range 3 {
			ids = append(ids, w.create(t, 0, task("hold", onInterruptFail), task("add")))
		}
		begun := map[uuid.UUID]begun{}
		for range ids {
			b := await(t, starts)
			begun[b.task.Collection] = b
		}
		first.wire.setCut(true)
		begun[ids[0]].end <- nil
		begun[ids[1]].end <- executor.Fail("no_zone", ledger.AudienceUser, "there is no such zone")
		time.Sleep(time.Minute)
		begun[ids[2]].end <- nil // as late as the shutdown
		first.stop()
		require.NoError(t, first.wait(t))
		require.Zero(t, w.witness.count("TaskSucceeded", ledger.Accepted)+w.witness.count("TaskFailed", ledger.Accepted))
		require.Equal(t, 3, keptIn(t, dir))

		second := w.start(t, reg, outboxIn(dir))
		for i, want := range []ledger.Status{ledger.StatusSucceeded, ledger.StatusFailed, ledger.StatusSucceeded} {
			require.Equal(t, want, w.witness.awaitRun(t, ids[i], 1).Status)
		}
		require.Equal(t, "no_zone", w.witness.awaitRun(t, ids[1], 1).Error.Code)
		require.Empty(t, starts, "nothing that had ended runs again")
		second.stop()
		require.NoError(t, second.wait(t))
		require.Zero(t, keptIn(t, dir))
	})
}

// As long as brokers answer, nothing is written to the disk.
func TestOutboxIsNotTouchedWithoutNeed(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, _ := newStarts()
		w.start(t, reg, outboxIn(dir))
		files := func() (sizes []int64) {
			found, err := filepath.Glob(filepath.Join(dir, "*", "*", "records*"))
			require.NoError(t, err)
			for _, f := range found {
				info, err := os.Stat(f)
				require.NoError(t, err)
				sizes = append(sizes, info.Size())
			}
			return sizes
		}
		id := w.create(t, 0, task("add"))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		before := files()
		require.Len(t, before, 1)
		for range 50 {
			id = w.create(t, 0, task("add"), task("add"))
		}
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		time.Sleep(time.Minute)
		require.Equal(t, before, files())
	})
}

// Outcomes are appended once the brokers are back, by the process itself: then
// the outbox is empty again, and what it kept has been read back.
func TestOutboxEmptiesWhenTheBrokersAreBack(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		p := w.start(t, reg, outboxIn(dir))
		id := w.create(t, 0, task("hold", onInterruptFail), task("add"))
		b := await(t, starts)
		p.wire.setCut(true)
		b.end <- nil
		time.Sleep(2 * time.Minute)
		require.Error(t, p.executor.Ready())
		p.wire.setCut(false)
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		time.Sleep(time.Minute)
		require.NoError(t, p.executor.Ready())
		p.stop()
		require.NoError(t, p.wait(t))
		require.Zero(t, keptIn(t, dir))
	})
}

// Processes of a machine share a folder, and what one of them left is appended
// by the next that starts, whichever place it had.
func TestProcessesShareAnOutboxFolder(t *testing.T) {
	t.Parallel()
	bubble(t, 2, func(t *testing.T, w *world) {
		dir := t.TempDir()
		reg, starts := newStarts()
		first := w.start(t, reg, outboxIn(dir))
		w.claimed(t, first.worker, 2)
		second := w.start(t, reg, outboxIn(dir))
		w.claimed(t, second.worker, 1)
		id := w.create(t, 0, task("hold", onInterruptFail))
		if w.holderOf(0) != second.worker {
			first, second = second, first
		}
		b := await(t, starts)
		second.wire.setCut(true)
		b.end <- nil
		time.Sleep(time.Second)
		second.stop()
		first.stop()
		require.NoError(t, second.wait(t))
		require.NoError(t, first.wait(t))
		require.Equal(t, 1, keptIn(t, dir))
		w.start(t, reg, outboxIn(dir))
		require.Equal(t, ledger.StatusSucceeded, w.witness.awaitRun(t, id, 1).Status)
		var result struct{ Sum int }
		require.NoError(t, json.Unmarshal(w.witness.attempts(id)[0].Result, &result))
		require.Equal(t, 1, result.Sum)
	})
}
