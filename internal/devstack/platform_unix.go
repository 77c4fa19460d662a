//go:build unix

package devstack

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// platform says whether a server can be run here at all.
func platform() error { return nil }

// serverUser returns the account for the server: nil for our own, another when
// we are root, because PostgreSQL refuses to run as root.
func serverUser() (*child.User, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is the documented word for "ourselves"
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read id of user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read group of user %s: %w", name, err)
		}
		if uid == 0 {
			continue
		}
		return &child.User{UID: uint32(uid), GID: uint32(gid), Name: name}, nil
	}
	return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody (/etc/passwd); add one or %s", useOwnDatabase)
}

// ownerOf returns the account existing data belongs to, which may not be the
// one we would choose today: a user postgres may have come since. Without data,
// or when root owns it, it is the chosen one.
func ownerOf(data string, chosen *child.User) *child.User {
	info, err := os.Lstat(data)
	if err != nil {
		return chosen
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 || stat.Uid == chosen.UID {
		return chosen
	}
	owner := &child.User{UID: stat.Uid, GID: stat.Gid, Name: strconv.FormatUint(uint64(stat.Uid), 10)}
	if u, err := user.LookupId(owner.Name); err == nil {
		owner.Name = u.Username
	}
	return owner
}
