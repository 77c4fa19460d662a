package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor/executortest"
)

// greet is the chain of the template greet.
func greet(name string) []executortest.Definition {
	return []executortest.Definition{
		executortest.Task("compose", "greeting.compose", composeArgs{Name: name}),
		executortest.Task("deliver", "greeting.deliver", nil).MaxAttempts(3),
	}
}

// A greeting that cannot be delivered is delivered by a retry, once there is a
// mailbox, without being composed again.
func TestGreeting(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "greetings")
	kit := executortest.New(t, handlers(folder))

	run := kit.Run(greet("Ada")...).Failed("deliver")
	require.Equal(t, "no_mailbox", run.Failure().Code)
	require.Len(t, run.Attempts("deliver"), 1, "an operator is needed: trying again by itself is of no use")

	require.NoError(t, os.Mkdir(folder, 0o700))
	run = run.Retry().Succeeded()
	require.Empty(t, run.Attempts("compose"))
	var d delivery
	run.Result("deliver", &d)
	text, err := os.ReadFile(d.File)
	require.NoError(t, err)
	require.Equal(t, "Hello, Ada!\n", string(text))
}

func TestNobodyToGreet(t *testing.T) {
	t.Parallel()
	run := executortest.New(t, handlers(t.TempDir())).Run(greet(" ")...).Failed("compose")
	require.Equal(t, "no_name", run.Failure().Code)
}
