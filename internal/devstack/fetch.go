package devstack

import (
	"context"
	"errors"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

const fetchVersion = "17.5.0"

func fetch(context.Context, PostgresConfig, *child.User) (string, error) {
	return "", errors.New("no PostgreSQL on this machine")
}
