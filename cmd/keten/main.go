package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/internal/devstack"
)

func main() {
	if code, ok := handlers.Supervise(); ok {
		os.Exit(code) // this process was the supervisor of commands
	}
	if code, ok := devstack.FetchChild(); ok {
		os.Exit(code) // this process is the fetcher of PostgreSQL's binaries
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	cmd := newRoot(io) //nolint:contextcheck // the commands take theirs from ExecuteContext
	cmd.SetArgs(args)
	cmd.SetIn(io.in)
	cmd.SetOut(io.out)
	cmd.SetErr(io.err)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if text := errorText(err); text != "" {
		fmt.Fprintln(io.err, "keten: "+text)
	}
	return code
}
