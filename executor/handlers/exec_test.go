package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/ledger"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// script makes a handler of a shell script in a folder of its own.
func script(t *testing.T, text string, edit ...func(*handlers.ExecConfig)) (h executor.RawHandler, dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.sh"), []byte("#!/bin/sh\n"+text), 0o700))
	cfg := handlers.ExecConfig{Command: []string{"./run.sh"}, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH")}}
	for _, e := range edit {
		e(&cfg)
	}
	h, err := handlers.Exec(cfg)
	require.NoError(t, err)
	return h, dir
}

func rawTask() executor.RawTask {
	return executor.RawTask{
		Args: json.RawMessage(`{"n":12345678901234567890}`),
		TaskInfo: executor.TaskInfo{
			Previous: json.RawMessage(`"before"`), Collection: uuid.MustParse("018bcfe5-6800-7abc-8102-030405060708"),
			TaskID: uuid.MustParse("018bcfe5-6800-8abc-919f-1b41779ed621"), Run: 2, Attempt: 3, Fence: 42, Deadline: time.Unix(1_700_000_000, 0),
		},
	}
}

func failure(t *testing.T, err error) *executor.Error {
	t.Helper()
	failed, ok := errors.AsType[*executor.Error](err)
	require.True(t, ok, "%v", err)
	return failed
}

func TestExecHandsTheTaskInAndTheResultOut(t *testing.T) {
	t.Parallel()
	h, _ := script(t, "echo 'a word to the log' >&2\ncat\n")
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	//nolint:testifylint // the digits must survive
	require.Equal(t, `{"args":{"n":12345678901234567890},"previous":"before","collection_id":"018bcfe5-6800-7abc-8102-030405060708",`+
		`"task_id":"018bcfe5-6800-8abc-919f-1b41779ed621","run":2,"attempt":3,"fence":42,"deadline":"2023-11-14T22:13:20Z","type":"","name":""}`, string(result))
}

func TestExecWithoutOutputHasNoResult(t *testing.T) {
	t.Parallel()
	h, _ := script(t, "exit 0\n")
	result, err := h(t.Context(), executor.RawTask{})
	require.NoError(t, err)
	require.Empty(t, result)
}

func TestExecExitCodes(t *testing.T) {
	t.Parallel()
	h, _ := script(t, "echo first >&2\necho 'the reason' >&2\necho >&2\nexit 75\n")
	_, err := h(t.Context(), rawTask())
	failed := failure(t, err)
	require.Equal(t, "the reason", failed.Message)
	require.True(t, failed.Retryable)
	require.Equal(t, ledger.CodeExit, failed.Code)
	require.Contains(t, failed.Detail, "first\nthe reason")

	h, _ = script(t, "exit 3\n", func(c *handlers.ExecConfig) { c.Audience = ledger.AudienceUser })
	_, err = h(t.Context(), rawTask())
	failed = failure(t, err)
	require.Equal(t, "the command ended with exit status 3", failed.Message)
	require.False(t, failed.Retryable)
	require.Equal(t, ledger.AudienceUser, failed.Audience)
}

func TestExecRefusesWhatIsNoResult(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"echo hello\n":                          "standard output is not a result: is not valid JSON",
		`echo '{"a":1} {"b":2}'` + "\n":         "has data behind the JSON value",
		`printf '{"a":"%su0000"}' '\'` + "\n":   "/a: contains U+0000",
		"head -c 2000 /dev/zero | tr '\\0' x\n": "standard output is longer than 1000 bytes",
		"while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done\n": "standard output is longer than 1000 bytes",
	} {
		h, _ := script(t, text, func(c *handlers.ExecConfig) { c.OutputLimit = 1000 })
		_, err := h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Equal(t, ledger.CodeInvalidResult, failed.Code, text)
		require.Contains(t, failed.Message, want, text)
	}
}

// Arguments are an argv: nothing in them is looked at by a shell, and the
// environment is the one that was given.
func TestExecHasNoShellAndNoEnvironmentOfOurs(t *testing.T) {
	t.Setenv("KETEN_TEST_SECRET", "leaked")
	h, dir := script(t, `printf '{"arg":"%s","given":"%s","secret":"%s","dir":"%s"}' "$1" "$GIVEN" "$KETEN_TEST_SECRET" "$(pwd -P)"`, func(c *handlers.ExecConfig) {
		c.Command = append(c.Command, "$(touch pwned); `id`")
		c.Env = append(c.Env, "GIVEN=yes")
	})
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	absolute, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	require.JSONEq(t, `{"arg":"$(touch pwned); `+"`id`"+`","given":"yes","secret":"","dir":"`+absolute+`"}`, string(result))
	require.NoFileExists(t, filepath.Join(dir, "pwned"))
}

// The end of the context ends the command and all it started, also when it does
// not listen to SIGTERM.
func TestExecStopsTheWholeGroup(t *testing.T) {
	t.Parallel()
	h, dir := script(t, "trap '' TERM\n(trap '' TERM; echo $$ > child; while :; do sleep 0.1; done) &\necho $! > child.pid\necho working >&2\nwait\nwhile :; do sleep 0.1; done\n")
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for ctx.Err() == nil {
			if b, err := os.ReadFile(filepath.Join(dir, "child.pid")); err == nil && strings.TrimSpace(string(b)) != "" {
				cancel(cause)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	_, err := h(ctx, rawTask())
	require.ErrorIs(t, err, cause)
	require.Contains(t, failure(t, err).Detail, "working")
	b, err := os.ReadFile(filepath.Join(dir, "child.pid"))
	require.NoError(t, err)
	pid := strings.TrimSpace(string(b))
	require.Eventually(t, func() bool { return gone(pid) }, patience, 10*time.Millisecond, "the grandchild is gone too")
}

// The command is asked to end before it is made to.
func TestExecAsksFirst(t *testing.T) {
	t.Parallel()
	h, dir := script(t, "trap 'echo \"asked to end\" >&2; exit 0' TERM\n: > ready\nwhile :; do sleep 0.05; done\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
				cancel(cause)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	_, err := h(ctx, rawTask())
	require.ErrorIs(t, err, cause, "an exit code of 0 does not make it a success")
	require.Contains(t, failure(t, err).Detail, "asked to end")
}

// What a command leaves in its group does not outlive it.
func TestExecKillsWhatIsLeftBehind(t *testing.T) {
	t.Parallel()
	h, dir := script(t, "sleep 600 >/dev/null 2>&1 &\necho $! > child.pid\necho '{\"ok\":true}'\n")
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.JSONEq(t, `{"ok":true}`, string(result))
	b, err := os.ReadFile(filepath.Join(dir, "child.pid"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return gone(strings.TrimSpace(string(b))) }, patience, 10*time.Millisecond)
}

// gone tells whether a process has ended; a zombie has.
func gone(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestExecThatCannotStartIsForOperators(t *testing.T) {
	t.Parallel()
	h, err := handlers.Exec(handlers.ExecConfig{Command: []string{"./missing"}, Dir: t.TempDir(), Audience: ledger.AudienceUser})
	require.NoError(t, err)
	_, err = h(t.Context(), rawTask())
	failed := failure(t, err)
	require.Equal(t, ledger.CodeConfig, failed.Code)
	require.Equal(t, ledger.AudienceOperator, failed.Audience)
	require.False(t, failed.Retryable)
}

func TestExecConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []handlers.ExecConfig{
		{Dir: "/"},
		{Command: []string{"true"}, Dir: "relative"},
		{Command: []string{"true"}, Dir: "/", OutputLimit: ledger.MaxPayloadBytes + 1},
		{Command: []string{"true"}, Dir: "/", User: "nobody-by-this-name"},
	} {
		_, err := handlers.Exec(cfg)
		require.Error(t, err)
	}
}
