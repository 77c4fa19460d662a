//go:build !linux

package handlers

import (
	"context"
	"log/slog"
)

// Supervise must be the first call in the main function of a program whose
// executor runs commands. On Linux nothing that they start outlives the program
// then; on this system it has nothing to do and returns false.
func Supervise() (exitCode int, ok bool) { return 0, false }

type supervisorPool struct{}

//nolint:gochecknoglobals // as on Linux
var supervisors supervisorPool

func (supervisorPool) take() (*supervised, error) { return nil, nil }

type supervised struct{}

func (*supervised) run(context.Context, program, streams, *slog.Logger) (ending, error) {
	panic("handlers: there is no supervisor on this system")
}
