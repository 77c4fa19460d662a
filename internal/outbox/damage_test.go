package outbox_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/ledger"
)

func folderWith(t *testing.T, file []byte) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, outbox.RecordsName), file, 0o600))
	return dir
}

// Wherever the file is torn, all records before that are there, and the next
// ones are found behind them.
func TestTornTail(t *testing.T) {
	t.Parallel()
	msgs := messages(0, 4)
	file := outbox.File(msgs...)
	for cut := range len(file) {
		whole := 0
		for len(outbox.File(msgs[:whole+1]...)) <= cut {
			whole++
		}
		end := len(outbox.File(msgs[:whole]...))
		dir := folderWith(t, file[:cut])
		b := openOn(t, dir, noSync)
		require.Equal(t, msgs[:whole], append([]ledger.Message{}, b.Left()...), cut)
		d := b.Damage()
		require.Zero(t, d.Places, cut)
		torn := cut - end
		if cut < len(outbox.File()) {
			torn = cut // not even the header is whole
		}
		require.Equal(t, int64(torn), d.Torn, cut)
		require.NoError(t, put(b, message(99, 40)))
		require.False(t, b.Full())
		require.NoError(t, b.Close())
		require.Equal(t, append(slices.Clone(msgs[:whole]), message(99, 40)), left(t, dir), cut)
	}
}

// A long torn tail does not stay behind what is written next.
func TestLongTornTail(t *testing.T) {
	t.Parallel()
	file := outbox.File(messages(0, 2)...)
	torn := bytes.Repeat(file[len(outbox.File(message(0, 40))):len(file)-1], 5)
	dir := folderWith(t, append(file, torn[1:]...))
	b := openOn(t, dir, noSync)
	require.Equal(t, int64(len(torn)-1), b.Damage().Torn)
	require.NoError(t, put(b, message(2, 0)))
	require.NoError(t, b.Close())
	require.Equal(t, []ledger.Message{message(0, 40), message(1, 40), message(2, 0)}, left(t, dir))
}

// The same event twice in a file is one record.
func TestRepeatedRecord(t *testing.T) {
	t.Parallel()
	other := message(0, 40)
	other.Value = nil
	got, _, _, err := outbox.Read(outbox.File(message(0, 40), message(1, 40), other))
	require.NoError(t, err)
	require.Equal(t, messages(0, 2), got)
}

// Wherever a bit flips, at most the record it is in is lost.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	msgs := messages(0, 3)
	file := outbox.File(msgs...)
	for i := range len(file) * 8 {
		at := i / 8
		hit := -1
		for n := range msgs {
			if at >= len(outbox.File(msgs[:n]...)) {
				hit = n
			}
		}
		want := slices.Clone(msgs)
		if hit >= 0 {
			want = slices.Delete(want, hit, hit+1)
		}
		flipped := bytes.Clone(file)
		flipped[at] ^= 1 << (i % 8)
		got, end, d, err := outbox.Read(flipped)
		require.NoError(t, err, i)
		require.Equal(t, want, got, i)
		require.Equal(t, hit == len(msgs)-1, d.Torn > 0, i)
		require.Equal(t, hit < len(msgs)-1, d.Places == 1, i)
		require.Equal(t, int64(len(file)), end+d.Torn, i)
	}
}

// A damaged middle costs what is in it. The rest is written anew, and a copy of
// the file is left for people.
func TestDamagedMiddle(t *testing.T) {
	t.Parallel()
	msgs := messages(0, 10)
	file := outbox.File(msgs...)
	from, to := len(outbox.File(msgs[:3]...)), len(outbox.File(msgs[:6]...))
	broken := slices.Concat(file[:from], bytes.Repeat([]byte{0}, to-from), file[to:])
	dir := folderWith(t, broken)
	b := openOn(t, dir, noSync)
	want := slices.Concat(msgs[:3], msgs[6:])
	require.Equal(t, want, b.Left())
	path := filepath.Join(dir, outbox.DamagedName)
	require.Equal(t, outbox.Damage{Places: 1, Bytes: int64(to - from), Copy: path}, b.Damage())
	seen, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, broken, seen)
	require.False(t, b.Full())
	mended, err := os.ReadFile(filepath.Join(dir, outbox.RecordsName))
	require.NoError(t, err)
	require.Equal(t, outbox.File(want...), mended)
	require.NoError(t, put(b, message(99, 40)))
	require.NoError(t, b.Close())
	require.Equal(t, append(want, message(99, 40)), left(t, dir), "and the damage is told of once")
}

// Without its header the file is still read.
func TestDamagedHeader(t *testing.T) {
	t.Parallel()
	file := outbox.File(messages(0, 3)...)
	clear(file[:outbox.HeaderBytes])
	dir := folderWith(t, file)
	b := openOn(t, dir, noSync)
	require.Equal(t, messages(0, 3), b.Left())
	require.Equal(t, 1, b.Damage().Places)
	require.NoError(t, b.Close())
	require.Equal(t, messages(0, 3), left(t, dir))
}

// A file of a later version is refused, and stays as it is.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	file := outbox.File(messages(0, 3)...)
	sum := outbox.HeaderBytes - 4
	binary.BigEndian.PutUint16(file[sum-2:], 2)
	binary.BigEndian.PutUint32(file[sum:], crc32.Checksum(file[:sum], crc32.MakeTable(crc32.Castagnoli)))
	dir := folderWith(t, file)
	_, err := outbox.Open(dir, limit)
	require.ErrorIs(t, err, outbox.ErrVersion)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "version 2, this build knows 1")
	after, err := os.ReadFile(filepath.Join(dir, outbox.RecordsName))
	require.NoError(t, err)
	require.Equal(t, file, after)
}

// The format of version 1, byte by byte: other builds read what this one wrote.
func TestGoldenFile(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile("testdata/v1")
	require.NoError(t, err)
	left, _, d, err := outbox.Read(golden)
	require.NoError(t, err)
	require.Zero(t, d)
	require.Equal(t, messages(0, 2), left)
	require.Equal(t, golden, outbox.File(left...))
}

// Whatever a file holds, reading it ends, and reading what was read again gives
// the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	file := outbox.File(messages(0, 3)...)
	f.Add(file)
	f.Add(file[:len(file)-5])
	f.Add(slices.Concat(file, []byte("\xffKob\x00\x00\x00\x05"), file[outbox.HeaderBytes:]))
	f.Fuzz(func(t *testing.T, data []byte) {
		left, end, d, err := outbox.Read(data)
		if err != nil {
			require.ErrorIs(t, err, outbox.ErrVersion)
			return
		}
		require.Equal(t, int64(len(data)), end+d.Torn)
		again, _, _, err := outbox.Read(data[:end])
		require.NoError(t, err)
		require.Equal(t, left, again)
		file := outbox.File(left...)
		clean, cleanEnd, cd, err := outbox.Read(file)
		require.NoError(t, err)
		require.Zero(t, cd)
		require.Equal(t, int64(len(file)), cleanEnd)
		require.Equal(t, left, clean)
	})
}
