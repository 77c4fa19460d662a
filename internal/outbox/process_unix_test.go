//go:build linux || darwin

package outbox_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outbox"
)

// The test binary is also the other process: KETEN_OUTBOX_CHILD says what it
// does with the folder in KETEN_OUTBOX_DIR.
const (
	childEnv = "KETEN_OUTBOX_CHILD"
	dirEnv   = "KETEN_OUTBOX_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "put":
		putForEver(os.Getenv(dirEnv))
	case "disk":
		fullDisk(os.Getenv(dirEnv))
	default:
		os.Exit(m.Run())
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// putForEver says on standard output which record is safe.
func putForEver(dir string) {
	b, err := outbox.Open(dir, 1<<30)
	must(err)
	fmt.Println("open")
	busy := make(chan struct{}, 64)
	for n := 0; ; n++ {
		busy <- struct{}{}
		b.Put(message(n, n%3000), func(err error) {
			must(err)
			fmt.Println(n)
			<-busy
		})
	}
}

func child(t *testing.T, what, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+what, dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// Whatever was answered before a kill -9 is there afterwards, in order and
// unchanged; and while the process lives, nobody else gets the folder.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	for _, lines := range []int{1, 50, 700, 3000} {
		t.Run(strconv.Itoa(lines), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := child(t, "put", dir)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			said := bufio.NewScanner(out)
			require.True(t, said.Scan())
			if lines == 1 {
				_, err := outbox.Open(dir, limit)
				require.ErrorIs(t, err, outbox.ErrInUse)
				require.ErrorContains(t, err, "folder "+dir+": another process holds it")
			}
			for range lines {
				require.True(t, said.Scan())
			}
			require.NoError(t, cmd.Process.Kill())
			answered := lines
			for said.Scan() {
				if _, err := strconv.Atoi(said.Text()); err == nil {
					answered++ // the last line may be cut short, and is then a number too
				}
			}
			require.Error(t, cmd.Wait())
			answered-- // which is why it does not count

			b, err := outbox.Open(dir, limit)
			require.NoError(t, err)
			defer func() { require.NoError(t, b.Close()) }()
			require.Zero(t, b.Damage().Places)
			left := b.Left()
			require.GreaterOrEqual(t, len(left), answered)
			for n, m := range left {
				require.Equal(t, message(n, n%3000), m)
			}
		})
	}
}

// fullDisk runs against a limit of the size of files, as if the disk were full,
// and lifts it.
func fullDisk(dir string) {
	limitFiles := func(bytes uint64) {
		var r syscall.Rlimit
		must(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r))
		r.Cur = min(bytes, r.Max)
		must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r))
	}
	check := func(ok bool, what string) {
		if !ok {
			must(errors.New(what))
		}
	}
	failures := make(chan int, 1000)
	b, err := outbox.OpenOn(dir, 64<<20, (*os.File).Sync, func(n int) time.Duration {
		failures <- n
		return time.Millisecond
	})
	must(err)
	limitFiles(1 << 20)
	n := 0
	for ; ; n++ {
		if err := put(b, message(n, 60<<10)); err != nil {
			check(errors.Is(err, syscall.EFBIG), "another error: "+err.Error())
			break
		}
		check(!b.Full(), "full while writing works")
	}
	check(n > 10, "nothing was written")
	check(b.Full(), "not full after an error")
	must(put(b, message(n, 10))) // what is small still fits
	check(!b.Full(), "full although writing works")
	file, err := os.ReadFile(filepath.Join(dir, outbox.RecordsName))
	must(err)
	_, _, d, err := outbox.Read(file)
	must(err)
	check(d == outbox.Damage{}, fmt.Sprintf("half a record stayed: %+v", d))
	check(put(b, message(-1, 60<<10)) != nil, "written beyond the limit")
	for <-failures < 5 { // it tries without a Put
	}
	check(b.Full(), "not full without room for a record of any size")
	limitFiles(1 << 40)
	for deadline := time.Now().Add(20 * time.Second); b.Full(); time.Sleep(10 * time.Millisecond) {
		check(time.Now().Before(deadline), "it does not notice that there is room again")
	}
	must(put(b, message(n+1, 60<<10)))
	must(b.Close())
	fmt.Println(n)
}

// A full disk costs the records that found no room, and no others. That there is
// room again is noticed without a Put.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := child(t, "disk", dir).Output()
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	left := left(t, dir)
	require.Len(t, left, n+2)
	for i := range n {
		require.Equal(t, message(i, 60<<10), left[i])
	}
	require.Equal(t, message(n, 10), left[n])
	require.Equal(t, message(n+1, 60<<10), left[n+1])
}

// After a sync that failed the file is not believed: what was safe is written
// again, elsewhere.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	failing := false
	b := openOn(t, dir, func(f *os.File) error {
		if !failing {
			return nil
		}
		// As a kernel may: the pages are dropped, the error is told once.
		info, err := f.Stat()
		if err != nil || info.IsDir() {
			return err
		}
		_, err = f.WriteAt(make([]byte, info.Size()/2), info.Size()/2)
		return errors.Join(err, syscall.EIO)
	})
	putAll(t, b, messages(0, 10)...)
	failing = true
	require.ErrorIs(t, put(b, message(10, 40)), syscall.EIO)
	require.True(t, b.Full())
	require.ErrorIs(t, put(b, message(11, 40)), syscall.EIO)
	b.Drop(message(3, 40).EventID)
	failing = false
	require.NoError(t, put(b, message(12, 40)))
	require.False(t, b.Full())
	want := append(append(messages(0, 3), messages(4, 10)...), message(12, 40))
	require.NoError(t, b.Close())
	require.Equal(t, want, left(t, dir))
}
