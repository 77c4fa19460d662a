package outbox_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/ledger"
)

// Beyond the limit nothing is kept; Full says so one record of the largest size
// earlier, and drops make room.
func TestBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	var held []ledger.Message
	for n := 0; ; n++ {
		_, bytes := b.Size()
		full := outbox.HeaderBytes+bytes+outbox.MostBytes > limit
		require.Equal(t, full, b.Full())
		m := message(n, 50<<10)
		err := put(b, m)
		if fits := outbox.HeaderBytes+bytes+outbox.RecordBytes(m) <= limit; fits {
			require.NoError(t, err)
			held = append(held, m)
			continue
		}
		require.ErrorIs(t, err, outbox.ErrFull)
		break
	}
	require.True(t, b.Full())
	require.NoError(t, put(b, held[0]), "it is held already")
	b.Drop(held[0].EventID)
	require.NoError(t, put(b, message(9999, 50<<10)), "dead bytes do not count")
	require.LessOrEqual(t, fileSize(t, dir), int64(limit))
	require.NoError(t, b.Close())
	require.Equal(t, append(held[1:], message(9999, 50<<10)), left(t, dir))

	huge := message(-1, ledger.MaxEventBytes+70<<10)
	b = openOn(t, dir, noSync)
	require.ErrorContains(t, put(b, huge), "at most")
	require.NotErrorIs(t, put(b, huge), outbox.ErrFull)
}

// What waits to be written counts: a slow disk does not lift the bound.
func TestBoundCountsWhatWaits(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	syncing, goOn := make(chan struct{}), make(chan struct{})
	b := openOn(t, t.TempDir(), func(*os.File) error {
		if armed.CompareAndSwap(true, false) {
			close(syncing)
			<-goOn
		}
		return nil
	})
	armed.Store(true)
	answers := make(chan error, 100)
	b.Put(message(0, 40), func(err error) { answers <- err })
	<-syncing
	for n := range 99 {
		b.Put(message(1+n, 50<<10), func(err error) { answers <- err })
	}
	require.True(t, b.Full())
	close(goOn)
	refused := 0
	for range 100 {
		if err := <-answers; err != nil {
			require.ErrorIs(t, err, outbox.ErrFull)
			refused++
		}
	}
	require.Greater(t, refused, 15)
}

// One record that stays does not make the file grow with what comes and goes.
func TestDeadBytesAreReclaimed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	stays := message(0, 40)
	putAll(t, b, stays)
	most := int64(0)
	for round := range 2_000 {
		msgs := messages(1+round*10, 11+round*10)
		for i := range msgs {
			msgs[i].Value = append(msgs[i].Value, make([]byte, 1000)...)
		}
		putAll(t, b, msgs...)
		for _, m := range msgs {
			b.Drop(m.EventID)
		}
		most = max(most, fileSize(t, dir))
	}
	require.Less(t, most, int64(3<<20), "20 MiB came and went")
	require.Greater(t, most, int64(1<<20), "and not every drop rewrote the file")
	require.NoError(t, b.Close())
	require.Equal(t, []ledger.Message{stays}, left(t, dir))
}

// When nothing is left the file is as small as a new one.
func TestEmptiedFileIsCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	putAll(t, b, messages(0, 100)...)
	for _, m := range messages(0, 100) {
		b.Drop(m.EventID)
	}
	require.NoError(t, b.Close())
	require.Equal(t, outbox.HeaderBytes, fileSize(t, dir))
	require.Empty(t, left(t, dir))
}

// Records left under a larger limit stay; new ones wait until there is room.
func TestSmallerLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var msgs []ledger.Message
	for n := range 30 {
		msgs = append(msgs, message(n, 100<<10))
	}
	b := openOn(t, dir, noSync)
	putAll(t, b, msgs...)
	require.NoError(t, b.Close())
	b, err := outbox.Open(dir, outbox.MinLimit)
	require.NoError(t, err)
	require.Equal(t, msgs, b.Left())
	require.ErrorIs(t, put(b, message(100, 40)), outbox.ErrFull)
	for _, m := range msgs[1:] {
		b.Drop(m.EventID)
	}
	require.NoError(t, put(b, message(100, 40)))
	require.LessOrEqual(t, fileSize(t, dir), outbox.MinLimit)
	require.NoError(t, b.Close())
	require.Equal(t, []ledger.Message{msgs[0], message(100, 40)}, left(t, dir))
}

// A rewriting that was cut short leaves the old file as it was.
func TestUnfinishedRewriting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	putAll(t, b, messages(0, 10)...)
	require.NoError(t, b.Close())
	half := outbox.File(messages(5, 10)...)
	path := filepath.Join(dir, outbox.NewName)
	require.NoError(t, os.WriteFile(path, half[:len(half)/2], 0o600))
	require.Equal(t, messages(0, 10), left(t, dir))
	require.NoFileExists(t, path)
}

// Drops of records that never were do nothing.
func TestUnknownDrop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	putAll(t, b, message(0, 40))
	size := fileSize(t, dir)
	b.Drop(uuid.New())
	require.NoError(t, b.Close())
	require.Equal(t, size, fileSize(t, dir))
}

// A drop for which the full file has no room is done at the latest on closing.
func TestDropInFullFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openOn(t, dir, noSync)
	first, second := message(0, 700<<10), message(1, 40)
	putAll(t, b, first, second)
	_, bytes := b.Size()
	var rest []ledger.Message
	for n := 2; limit-outbox.HeaderBytes-bytes > outbox.MostBytes; n++ {
		m := message(n, 600<<10)
		rest = append(rest, m)
		bytes += outbox.RecordBytes(m)
	}
	last := message(100, int(limit-outbox.HeaderBytes-bytes-200))
	rest = append(rest, last)
	putAll(t, b, rest...)
	for limit-fileSize(t, dir) >= 37 {
		m := message(200+len(rest), 0)
		room := limit - fileSize(t, dir) - outbox.RecordBytes(m)
		if room < 0 {
			break
		}
		m = message(200+len(rest), int(room))
		rest = append(rest, m)
		putAll(t, b, m)
	}
	require.Less(t, limit-fileSize(t, dir), int64(37), "no room for a drop")
	b.Drop(second.EventID)
	require.NoError(t, b.Close())
	require.Equal(t, append([]ledger.Message{first}, rest...), left(t, dir))
}
