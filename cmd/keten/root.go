package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes, printed by `keten help exit-codes`.
const (
	exitOK          = 0
	exitFailure     = 1 // anything else that went wrong
	exitUsage       = 2 // wrong flags, arguments or configuration
	exitNotDone     = 3 // the collection that was waited for failed or was canceled
	exitTimeout     = 5 // waited for as long as allowed
	exitNotFound    = 6
	exitUnavailable = 7 // the broker, Postgres or the API cannot be reached
)

const exitCodesHelp = `Exit codes:
  0  done
  1  something else went wrong
  2  wrong flags, arguments or configuration
  3  the collection that was waited for failed or was canceled
  5  waited for as long as allowed
  6  not found
  7  the broker, Postgres or the API cannot be reached
`

// exitError is an error with an exit code of its own. err may be nil when all
// has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, err error) error { return &exitError{code: code, err: err} }

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	return exitFailure
}

func errorText(err error) string { return err.Error() }

func newRoot(io stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "keten",
		Short: "An event-sourced task ledger on Kafka",
		Long: `Keten runs collections: chains of tasks that run in the background, strictly
in order, and that can be retried from outside where they failed.

Every flag can be given as an environment variable: KETEN_ and the flag's name
in capitals, with _ for -. Flags win.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags())
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitWith(exitUsage, err) })
	root.AddCommand(
		newInit(io), newServe(io), newDev(io), newDemo(io), newBench(io),
		newStart(io), newList(io), newShow(io), newWatch(io), newOutput(io), newRetry(io),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp},
	)
	return root
}

// fromEnvironment fills flags that were not given from KETEN_*. An empty
// variable counts as not set.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "KETEN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if f.Name == "database-url" && value == "" {
			name, value = "DATABASE_URL", os.Getenv("DATABASE_URL")
		}
		if f.Changed || value == "" || f.Name == "help" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return exitWith(exitUsage, err)
	}
	return nil
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exitWith(exitUsage, fmt.Errorf("unexpected argument %q", args[0]))
	}
	return nil
}

func oneArg(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return exitWith(exitUsage, fmt.Errorf("want one argument, %s", what))
		}
		return nil
	}
}
