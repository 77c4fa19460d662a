//go:build !unix

package devstack

import (
	"context"
	"errors"
	"log/slog"
	"runtime"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// platform says whether a server can be run here at all.
func platform() error {
	return errors.New("no PostgreSQL server of its own on " + runtime.GOOS + "; " + useOwnDatabase)
}

func serverUser() (*child.User, error) { return nil, platform() }

func endLeftover(context.Context, *slog.Logger, string) error { return nil }

func ownerOf(_ string, chosen *child.User) *child.User { return chosen }
