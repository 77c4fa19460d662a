package outbox_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outbox"
	"github.com/keten-ledger/keten/ledger"
)

const limit = 4 << 20

// message returns a record that is recognized by n, with a value of so many
// bytes.
func message(n, bytes int) ledger.Message {
	value := make([]byte, bytes)
	copy(value, fmt.Sprintf(`{"n":%d}`, n))
	return ledger.Message{
		Partition: int32(n % 12), EventID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)), Key: fmt.Append(nil, "key-", n), Value: value,
		Headers: []ledger.Header{{Key: "ce_id", Value: fmt.Append(nil, n)}, {Key: "content-type", Value: []byte("application/json")}},
	}
}

func messages(from, to int) []ledger.Message {
	var msgs []ledger.Message
	for n := from; n < to; n++ {
		msgs = append(msgs, message(n, 40))
	}
	return msgs
}

func open(t testing.TB, dir string) *outbox.Outbox {
	t.Helper()
	b, err := outbox.Open(dir, limit)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// openOn opens an outbox that is not tried again without a Put.
func openOn(t testing.TB, dir string, sync func(*os.File) error) *outbox.Outbox {
	t.Helper()
	b, err := outbox.OpenOn(dir, limit, sync, func(int) time.Duration { return time.Hour })
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func noSync(*os.File) error { return nil }

// putAll puts records and waits for all answers.
func putAll(t testing.TB, b *outbox.Outbox, msgs ...ledger.Message) {
	t.Helper()
	answers := make(chan error, len(msgs))
	for _, m := range msgs {
		b.Put(m, func(err error) { answers <- err })
	}
	for range msgs {
		require.NoError(t, <-answers)
	}
}

func put(b *outbox.Outbox, m ledger.Message) error {
	answer := make(chan error, 1)
	b.Put(m, func(err error) { answer <- err })
	return <-answer
}

func left(t testing.TB, dir string) []ledger.Message {
	t.Helper()
	b, err := outbox.OpenOn(dir, limit, noSync, func(int) time.Duration { return time.Hour })
	require.NoError(t, err)
	require.Zero(t, b.Damage())
	msgs := b.Left()
	require.NoError(t, b.Close())
	return msgs
}

func fileSize(t testing.TB, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, outbox.RecordsName))
	require.NoError(t, err)
	return info.Size()
}

// What was put and not dropped is there for the next process, in the order of
// the Puts, and nothing else is.
func TestLeft(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	b := open(t, dir)
	require.Empty(t, b.Left())
	msgs := messages(0, 100)
	putAll(t, b, msgs...)
	var want []ledger.Message
	for i, m := range msgs {
		if i%3 == 0 {
			b.Drop(m.EventID)
		} else {
			want = append(want, m)
		}
	}
	require.Empty(t, b.Left(), "what this process put is not left by an earlier one")
	require.NoError(t, b.Close())

	b = open(t, dir)
	require.Equal(t, want, b.Left())
	b.Drop(want[0].EventID)
	more := message(1000, 10)
	putAll(t, b, more)
	require.Equal(t, want[1:], b.Left())
	require.NoError(t, b.Close())
	require.Equal(t, append(want[1:], more), left(t, dir))

	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
}

// All fields come back as they were, none and empty told apart.
func TestFieldsArePreserved(t *testing.T) {
	t.Parallel()
	id := func(n byte) uuid.UUID { return uuid.UUID{15: n} }
	msgs := []ledger.Message{
		{EventID: id(1)},
		{EventID: id(2), Partition: math.MaxInt32, Key: []byte{}, Value: []byte{}, Headers: []ledger.Header{}},
		{EventID: id(3), Partition: math.MinInt32, Key: []byte("\xffKob\x00"), Value: []byte{0}, Headers: []ledger.Header{{}, {Key: "k", Value: []byte{}}, {Key: "k"}}},
		{EventID: id(4), Value: make([]byte, ledger.MaxEventBytes)},
		{},
	}
	dir := t.TempDir()
	b := open(t, dir)
	putAll(t, b, msgs...)
	require.NoError(t, b.Close())
	require.Equal(t, msgs, left(t, dir))
}

// The answer comes after the sync, and what waits meanwhile shares the next one.
func TestAnswersComeAfterTheSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	syncs, goOn := make(chan []byte), make(chan struct{})
	armed := false
	b := openOn(t, dir, func(f *os.File) error {
		if armed {
			data, err := os.ReadFile(filepath.Join(dir, outbox.RecordsName))
			if err != nil {
				return err
			}
			syncs <- data
			<-goOn
		}
		return f.Sync()
	})
	armed = true // the writer sees it: it is woken after this
	answers := make(chan error, 101)
	b.Put(message(0, 40), func(err error) { answers <- err })
	data := <-syncs
	require.Equal(t, outbox.File(message(0, 40)), data)
	require.Empty(t, answers)
	for _, m := range messages(1, 101) {
		b.Put(m, func(err error) { answers <- err })
	}
	goOn <- struct{}{}
	require.NoError(t, <-answers)
	data = <-syncs
	require.Equal(t, outbox.File(messages(0, 101)...), data)
	require.Empty(t, answers)
	goOn <- struct{}{}
	for range 100 {
		require.NoError(t, <-answers)
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	<-syncs
	require.Empty(t, closed)
	goOn <- struct{}{}
	require.NoError(t, <-closed)
}

// The name of a new file is on the disk before anything in it counts as safe.
func TestFolderIsSyncedBeforeAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	failing := false
	b := openOn(t, dir, func(f *os.File) error {
		if info, err := f.Stat(); err == nil && info.IsDir() && failing {
			return errors.New("no sync of folders today")
		}
		return nil
	})
	putAll(t, b, messages(0, 1000)...)
	for _, m := range messages(1, 1000) {
		b.Drop(m.EventID)
	}
	failing = true
	big := message(5000, 700<<10)
	require.NoError(t, put(b, big), "nothing is replaced yet")
	b.Drop(big.EventID)
	big.EventID = uuid.New()
	require.NoError(t, put(b, big))
	b.Drop(big.EventID)
	require.ErrorContains(t, put(b, message(5001, 40)), "sync folder", "the file is written anew")
	require.True(t, b.Full())
	require.Error(t, put(b, message(5001, 40)), "the name is still not safe")
	failing = false
	require.NoError(t, put(b, message(5001, 40)))
	require.False(t, b.Full())
	require.NoError(t, b.Close())
	require.Equal(t, []ledger.Message{message(0, 40), message(5001, 40)}, left(t, dir))
}

// A second Put of the same event is answered like the first and written once.
func TestSameEventTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir)
	m := message(1, 40)
	putAll(t, b, m, m, m)
	size := fileSize(t, dir)
	putAll(t, b, m)
	require.Equal(t, size, fileSize(t, dir))
	records, bytes := b.Size()
	require.Equal(t, 1, records)
	require.Equal(t, outbox.RecordBytes(m), bytes)
	b.Drop(m.EventID)
	b.Drop(m.EventID)
	putAll(t, b, message(2, 40), m)
	require.NoError(t, b.Close())
	require.Equal(t, []ledger.Message{message(2, 40), m}, left(t, dir))
}

// A record that is dropped before it was written is answered, and not kept.
func TestDropOvertakesTheWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	syncing, goOn := make(chan struct{}), make(chan struct{})
	armed := false
	b := openOn(t, dir, func(*os.File) error {
		if armed {
			syncing <- struct{}{}
			<-goOn
		}
		return nil
	})
	armed = true
	answers := make(chan error, 3)
	b.Put(message(0, 40), func(err error) { answers <- err })
	<-syncing
	b.Put(message(1, 40), func(err error) { answers <- err })
	b.Put(message(2, 40), func(err error) { answers <- err })
	b.Drop(message(0, 40).EventID)
	b.Drop(message(1, 40).EventID)
	goOn <- struct{}{}
	<-syncing
	goOn <- struct{}{}
	for range 3 {
		require.NoError(t, <-answers)
	}
	go func() {
		<-syncing
		goOn <- struct{}{}
	}()
	require.NoError(t, b.Close())
	require.Equal(t, messages(2, 3), left(t, dir))
}

// A record that nobody needs any more cannot fail to be kept.
func TestDroppedWhileWritingFails(t *testing.T) {
	t.Parallel()
	syncing, goOn := make(chan struct{}), make(chan error)
	armed := false
	b := openOn(t, t.TempDir(), func(*os.File) error {
		if !armed {
			return nil
		}
		syncing <- struct{}{}
		return <-goOn
	})
	armed = true
	answers := make(chan error, 2)
	b.Put(message(0, 40), func(err error) { answers <- err })
	b.Put(message(1, 40), func(err error) { answers <- err })
	<-syncing
	b.Drop(message(0, 40).EventID)
	b.Drop(message(1, 40).EventID)
	armed = false // the writer sees it: it goes on after this
	goOn <- errors.New("broken disk")
	require.NoError(t, <-answers)
	require.NoError(t, <-answers)
}

func TestClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir)
	putAll(t, b, message(0, 40))
	require.NoError(t, b.Close())
	require.ErrorIs(t, put(b, message(1, 40)), outbox.ErrClosed)
	b.Drop(message(0, 40).EventID)
	require.NoError(t, b.Close())
	require.Equal(t, messages(0, 1), left(t, dir))
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := outbox.Open(dir, outbox.MinLimit-1)
	require.ErrorContains(t, err, "limit is 852001 bytes, at least 852002 are needed")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = outbox.Open(file, limit)
	require.ErrorContains(t, err, file+" is not a folder")
	require.NoError(t, os.Mkdir(filepath.Join(dir, outbox.RecordsName), 0o700))
	_, err = outbox.Open(dir, limit)
	require.ErrorContains(t, err, filepath.Join(dir, outbox.RecordsName))
	require.NoError(t, os.Remove(filepath.Join(dir, outbox.RecordsName)))
	open(t, dir) // the failed ones did not keep the lock
}

// Many goroutines at once: what is left is what was put and not dropped.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir)
	var mu sync.Mutex
	want := make(map[uuid.UUID]ledger.Message)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				m := message(g*1000+i, 40)
				if err := put(b, m); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if i%4 != 0 {
					b.Drop(m.EventID)
				} else {
					mu.Lock()
					want[m.EventID] = m
					mu.Unlock()
				}
				_ = b.Full()
				_, _ = b.Size()
			}
		})
	}
	all.Wait()
	require.NoError(t, b.Close())
	got := left(t, dir)
	require.Len(t, got, len(want))
	for _, m := range got {
		require.Equal(t, want[m.EventID], m)
	}
}

// What a record costs when they come one by one, and a hundred at a time.
func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(strconv.Itoa(batch), func(b *testing.B) {
			box := open(b, b.TempDir())
			n := 0
			for b.Loop() {
				msgs := make([]ledger.Message, batch)
				for i := range msgs {
					n++
					msgs[i] = message(n, 500)
				}
				putAll(b, box, msgs...)
				for _, m := range msgs {
					box.Drop(m.EventID)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/record")
		})
	}
}
