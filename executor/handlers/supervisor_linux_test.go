package handlers_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/ledger"
)

func needsSupervisor(t *testing.T) {
	t.Helper()
	if os.Getenv(unsupervised) != "" {
		t.Skip("there is no supervisor")
	}
	if _, err := exec.LookPath("setsid"); err != nil && os.Getenv("CI") == "" {
		t.Skip("setsid is not installed")
	}
}

// family writes the ids of a child, of an orphan in the command's group, of one
// that listens to no signal, and of one in a session of its own whose parent has
// ended.
const family = `
sleep 600 & echo $! > child.pid
(sh -c 'echo $$ > orphan.pid; exec sleep 600' &)
sh -c 'trap "" TERM HUP INT; echo $$ > deaf.pid; while :; do sleep 1; done' &
(setsid sh -c 'echo $$ > session.pid; setsid sh -c "echo \$\$ > second.pid; exec sleep 600" & exec sleep 600' >/dev/null 2>&1 </dev/null &)
`

var members = []string{"child", "orphan", "deaf", "session", "second"}

// pids waits for the family to be there.
func pids(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.Eventually(t, func() bool {
		for _, name := range members {
			b, err := os.ReadFile(filepath.Join(dir, name+".pid"))
			if err != nil || !bytes.HasSuffix(b, []byte("\n")) {
				return false
			}
			found[name] = strings.TrimSpace(string(b))
		}
		return true
	}, patience, 10*time.Millisecond)
	return found
}

func requireGone(t *testing.T, pids map[string]string) {
	t.Helper()
	for name, pid := range pids {
		require.Eventually(t, func() bool { return gone(pid) }, patience, 10*time.Millisecond, "%s (%s) is still there", name, pid)
	}
}

// Nothing that a command started outlives the executor's kill -9.
func TestExecLeavesNothingBehindWhenKilled(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.sh"), []byte("#!/bin/sh\necho $$ > main.pid\n"+family+"wait\n"), 0o700))
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentOf+"="+dir)
	require.NoError(t, parent.Start())
	family := pids(t, dir)
	b, err := os.ReadFile(filepath.Join(dir, "main.pid"))
	require.NoError(t, err)
	family["main"] = strings.TrimSpace(string(b))
	for name, pid := range family {
		require.False(t, gone(pid), name)
	}
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	requireGone(t, family)
}

// Nor the end of the context, nor the command's own end.
func TestExecLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	for name, last := range map[string]string{"succeeds": "exit 0\n", "fails": "exit 1\n", "hangs": "wait\n", "ends on request": "trap 'exit 0' TERM\nwait\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, dir := script(t, family+"while ! [ -s second.pid -a -s deaf.pid -a -s orphan.pid ]; do sleep 0.01; done\n"+last)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { _, err := h(ctx, rawTask()); done <- err }()
			there := pids(t, dir)
			if !strings.HasPrefix(last, "exit") {
				cancel()
			}
			err := <-done
			if name == "succeeds" {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
			for name, pid := range there {
				require.True(t, gone(pid), "%s (%s) is still there when the handler has returned", name, pid)
			}
		})
	}
}

// A command has the three streams in the state in which any program expects
// them, and leads its group.
func TestExecCommandsAreOrdinaryProcesses(t *testing.T) {
	t.Parallel()
	// Whoever started the test may ignore signals, which is inherited.
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	ignored := regexp.MustCompile(`SigIgn:.*`).FindString(string(status))
	h, _ := script(t, `
for fd in 0 1 2; do grep -q 'flags:.*4...$' /proc/$$/fdinfo/$fd && { echo "file $fd does not block" >&2; exit 1; }; done
ls -l /proc/$$/fd | grep socket >&2 && exit 1
[ "$(cut -d ' ' -f 5 /proc/$$/stat)" = $$ ] || { echo 'no group of its own' >&2; exit 1; }
grep SigBlk: /proc/$$/status | grep -v '0000000000000000$' >&2 && exit 1
[ "$(grep SigIgn: /proc/$$/status)" = "`+ignored+`" ] || { grep SigIgn: /proc/$$/status >&2; exit 1; }
cat >/dev/null; echo '"fine"'
`)
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.JSONEq(t, `"fine"`, string(result))
}

// What the executor was started with is not handed on.
func TestExecCommandsInheritNoFiles(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.sh"), []byte("#!/bin/sh\nfor fd in 3 4; do [ -e /proc/$$/fd/$fd ] && exit 1; done; exit 0\n"), 0o700))
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentOf+"="+dir)
	parent.ExtraFiles = []*os.File{f, f}
	out, err := parent.CombinedOutput()
	require.NoError(t, err, string(out))
}

// A command that was killed is told from one that ended, and what is read of
// neither is lost.
func TestExecPassesEndingsOn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"kill -KILL $$\n":              "the command ended with signal: killed",
		"kill -TERM $$\n":              "the command ended with signal: terminated",
		"exit 255\n":                   "the command ended with exit status 255",
		"exec false\n":                 "the command ended with exit status 1",
		"ulimit -c 0; kill -SEGV $$\n": "the command ended with signal: segmentation fault",
	} {
		h, _ := script(t, text)
		_, err := h(t.Context(), rawTask())
		require.Equal(t, want, failure(t, err).Message, text)
	}
}

// A command that reads nothing of a long input, and one that writes all at
// once, end like others.
func TestExecMovesLargeStreams(t *testing.T) {
	t.Parallel()
	large := rawTask()
	large.Args = []byte(`"` + strings.Repeat("x", 250_000) + `"`)
	h, _ := script(t, "exit 0\n")
	_, err := h(t.Context(), large)
	require.NoError(t, err)
	h, _ = script(t, `sed 's/.*"args":\("x*"\).*/\1/'`+"\n")
	result, err := h(t.Context(), large)
	require.NoError(t, err)
	require.Equal(t, string(large.Args), string(result))
}

// Who writes after the command's end is heard if it does not take long.
func TestExecWaitsForWhoStillWrites(t *testing.T) {
	t.Parallel()
	h, _ := script(t, "(sleep 0.2; echo '\"late\"') &\n")
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.JSONEq(t, `"late"`, string(result))
}

func TestExecSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("x"), 0o600))
	for want, cfg := range map[string]handlers.ExecConfig{
		"no-such-program":                    {Command: []string{"no-such-program"}, Dir: dir},
		"plain: permission denied":           {Command: []string{"./plain"}, Dir: dir},
		"missing: no such file or directory": {Command: []string{"./missing"}, Dir: dir},
		"/gone: no such file or directory":   {Command: []string{"true"}, Dir: dir + "/gone"},
	} {
		h, err := handlers.Exec(cfg)
		require.NoError(t, err)
		_, err = h(t.Context(), rawTask())
		require.Equal(t, ledger.CodeConfig, failure(t, err).Code)
		require.Contains(t, failure(t, err).Message, "the command cannot be started: ")
		require.Contains(t, failure(t, err).Message, want)
	}
}

// The supervisor's death is a failure that passes, and takes the command along.
func TestExecSurvivesItsSupervisor(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	h, dir := script(t, "[ -e again ] && exit 0\ntouch again\necho $$ > main.pid\nkill -KILL $PPID\nsleep 600\n")
	_, err := h(t.Context(), rawTask())
	require.True(t, failure(t, err).Retryable)
	require.Contains(t, err.Error(), "supervisor has ended")
	b, err := os.ReadFile(filepath.Join(dir, "main.pid"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return gone(strings.TrimSpace(string(b))) }, patience, 10*time.Millisecond)
	_, err = h(t.Context(), rawTask())
	require.NoError(t, err)
}

// Signals to the whole service do not take the supervisor before its command.
func TestExecSupervisorOutlivesSignals(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	h, _ := script(t, "kill -TERM $PPID; kill -INT $PPID; kill -HUP $PPID; echo 1\n")
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.JSONEq(t, "1", string(result))
}

// Commands of an account other than root's own cannot become anybody else.
func TestExecRunsAsAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may name another user")
	}
	dir, err := os.MkdirTemp("", "keten-exec-") //nolint:usetesting // what t.TempDir makes only we may enter
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	h, err := handlers.Exec(handlers.ExecConfig{
		Command: []string{"sh", "-c", `sleep 600 >/dev/null 2>&1 & printf '"%s %s %s"' "$(id -u)" "$(id -G)" "$(grep NoNewPrivs /proc/$$/status | cut -f 2)"`},
		Dir:     dir, User: "nobody", Env: []string{"PATH=" + os.Getenv("PATH")},
	})
	require.NoError(t, err)
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	want := `"65534 65534 1"`
	if os.Getenv(unsupervised) != "" {
		want = `"65534 65534 0"`
	}
	require.JSONEq(t, want, string(result))
}

// A supervisor serves one command after the other: the next one finds nothing
// of the one before.
func TestExecUsesSupervisorsAgain(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	h, _ := script(t, `printf '{"supervisor":%s}' $PPID`)
	seen := map[string]bool{}
	for range 20 {
		result, err := h(t.Context(), rawTask())
		require.NoError(t, err)
		seen[string(result)] = true
	}
	require.Less(t, len(seen), 20)
	require.LessOrEqual(t, handlers.IdleSupervisors(), 16)
}

// The end of the context before the start does not start the command for long.
func TestExecThatIsCanceledAtOnce(t *testing.T) {
	t.Parallel()
	h, _ := script(t, "sleep 600\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("too late")
	cancel(cause)
	began := time.Now()
	_, err := h(ctx, rawTask())
	require.ErrorIs(t, err, cause)
	require.Less(t, time.Since(began), patience)
}

func BenchmarkExec(b *testing.B) {
	dir := b.TempDir()
	h, err := handlers.Exec(handlers.ExecConfig{Command: []string{"true"}, Dir: dir})
	require.NoError(b, err)
	for b.Loop() {
		_, err := h(b.Context(), executor.RawTask{})
		require.NoError(b, err)
	}
}

// A command that stops its supervisor is not the one that decides: the supervisor
// goes on when it is given up, and ends what is below it.
func TestCommandThatStopsItsSupervisor(t *testing.T) {
	t.Parallel()
	needsSupervisor(t)
	dir := t.TempDir()
	h, _ := script(t, "echo $$ >"+filepath.Join(dir, "pid")+"; kill -STOP $PPID; exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := h(ctx, rawTask())
	require.Error(t, err)
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join("/proc", strings.TrimSpace(string(pid))))
		return errors.Is(err, fs.ErrNotExist)
	}, 20*time.Second, 10*time.Millisecond)
}
