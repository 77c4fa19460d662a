package handlers_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
)

const (
	// unsupervised makes a process of these tests one whose main does not call
	// Supervise.
	unsupervised = "KETEN_TEST_UNSUPERVISED"
	// parentOf makes one run the command in that folder, as an executor would.
	parentOf = "KETEN_TEST_PARENT_OF"
)

func TestMain(m *testing.M) {
	if os.Getenv(unsupervised) == "" {
		if code, ok := handlers.Supervise(); ok {
			os.Exit(code)
		}
	}
	if dir := os.Getenv(parentOf); dir != "" {
		os.Exit(beParent(dir))
	}
	os.Exit(m.Run())
}

// beParent runs the command in a folder until somebody ends this process.
func beParent(dir string) int {
	h, err := handlers.Exec(handlers.ExecConfig{Command: []string{"./run.sh"}, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err == nil {
		_, err = h(context.Background(), executor.RawTask{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Where there is no supervisor commands behave the same, as long as nobody is
// killed.
func TestWithoutSupervisor(t *testing.T) {
	t.Parallel()
	if os.Getenv(unsupervised) != "" {
		t.Skip("this is it")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestExec")
	cmd.Env = append(os.Environ(), unsupervised+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
