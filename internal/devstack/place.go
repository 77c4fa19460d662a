package devstack

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

const (
	dataName   = "data"
	socketName = "socket"
	// stampName is a file with a random word. It ties data kept elsewhere to
	// this very folder: one that is deleted and made anew starts empty.
	stampName = "postgres.stamp"
	// elsewhere is where data goes when the server's account cannot enter the
	// folder it was meant for.
	elsewhere = "/var/lib/keten"
	// socketPathMax is the kernel's bound for the path of a socket, less the
	// name PostgreSQL appends ("/.s.PGSQL.5432") and the terminating zero.
	socketPathMax = 107 - len("/.s.PGSQL.5432")
)

// useOwnDatabase is what somebody can do whose machine does not allow a server.
const useOwnDatabase = "set KETEN_DATABASE_URL to a PostgreSQL database of your own instead"

// A place is where a server's data lies and who owns it.
type place struct {
	root string      // folder of data and socket
	data string      // the server's data folder
	user *child.User // nil: the account we run as
}

func (p place) moved(dir string) bool { return p.root != dir }

// findPlace chooses between the folder and /var/lib/keten. The test is to enter
// the folder as that account, which knows about access lists and namespaces
// that permission bits do not tell.
func findPlace(ctx context.Context, dir string, user *child.User) (place, error) {
	at := place{root: dir, data: filepath.Join(dir, dataName), user: user}
	if user == nil {
		return at, nil
	}
	if err := canEnter(ctx, "/", user); err != nil {
		return place{}, fmt.Errorf("%w; root may not change to another account here, and PostgreSQL refuses to run as root; %s", err, useOwnDatabase)
	}
	err := canEnter(ctx, dir, user)
	if err == nil {
		at.user = ownerOf(at.data, user)
		return at, nil
	}
	if exists(at.data) {
		return place{}, fmt.Errorf("%w: the data is in %s, which user %s can no longer enter; allow it with chmod a+x on that folder and those above it",
			err, at.data, user.Name)
	}
	stamp, err := folderStamp(dir)
	if err != nil {
		return place{}, err
	}
	sum := sha256.Sum256([]byte(dir + "\x00" + stamp))
	at.root = filepath.Join(elsewhere, hex.EncodeToString(sum[:8]))
	at.data = filepath.Join(at.root, dataName)
	for _, d := range []string{elsewhere, at.root} {
		if err := os.MkdirAll(d, passable); err != nil {
			return place{}, fmt.Errorf("create folder for postgres: %w", err)
		}
	}
	if err := canEnter(ctx, at.root, user); err != nil {
		return place{}, fmt.Errorf("%w; neither can it enter %s; %s", err, dir, useOwnDatabase)
	}
	at.user = ownerOf(at.data, user)
	return at, nil
}

func canEnter(ctx context.Context, dir string, user *child.User) error {
	if out, err := child.Run(ctx, child.Config{Path: "/bin/sh", Args: []string{"-c", ":"}, Dir: dir, User: user}); err != nil {
		return fmt.Errorf("enter %s: %w %s", dir, err, out)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func folderStamp(dir string) (string, error) {
	path := filepath.Join(dir, stampName)
	raw, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read stamp: %w", err)
	}
	stamp := rand.Text()
	if err := os.WriteFile(path, []byte(stamp+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write stamp: %w", err)
	}
	return stamp, nil
}

// dataMajor returns the PostgreSQL version of the data, "" when there is none.
func (p place) dataMajor() (string, error) {
	raw, err := os.ReadFile(filepath.Join(p.data, "PG_VERSION"))
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read version of the data: %w", err)
	}
	entries, err := os.ReadDir(p.data)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read data folder: %w", err)
	}
	return "", fmt.Errorf("%w: %s is not empty and has no PG_VERSION, so it is no PostgreSQL data; nothing was changed", ErrForeignData, p.data)
}

// initialize makes the data on the first start. It is built beside its place
// and renamed when complete, so that a start that was killed in between leaves
// no half-made data behind.
func (p place) initialize(ctx context.Context, bins binaries) error {
	major, err := p.dataMajor()
	if err != nil || major != "" {
		return err
	}
	fresh := p.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove half-made data: %w", err)
	}
	if err := p.mkdir(fresh); err != nil {
		return err
	}
	out, err := child.Run(ctx, child.Config{
		Path: bins.path("initdb"),
		Args: []string{"-D", fresh, "-U", superuser, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-instructions"},
		Env:  serverEnv(), Dir: fresh, User: p.user,
	})
	if err != nil {
		return explainInitdb(err, string(out))
	}
	if err := os.Remove(p.data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put data in place: %w", err)
	}
	if err := os.Rename(fresh, p.data); err != nil {
		return fmt.Errorf("put data in place: %w", err)
	}
	return nil
}

// explainInitdb knows the one complaint users of containers meet: an account
// that is a number without a name.
func explainInitdb(err error, out string) error {
	out = strings.TrimSpace(out)
	if strings.Contains(out, "could not look up effective user ID") {
		return fmt.Errorf("create data: user id %d has no entry in the password file (/etc/passwd), which PostgreSQL insists on; add one or %s",
			os.Getuid(), useOwnDatabase)
	}
	return fmt.Errorf("create data: initdb: %w: %s", err, out)
}

// mkdir makes a private folder of the server's account.
func (p place) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if p.user == nil {
		return nil
	}
	if err := os.Lchown(dir, int(p.user.UID), int(p.user.GID)); err != nil {
		return fmt.Errorf("give folder to user %s: %w", p.user.Name, err)
	}
	return nil
}

// socketDir makes the private folder of the socket anew: beside the data when
// the path is short enough for a socket, else under the temporary folder. Only
// an owner of the folder's lock calls it, so whatever is there is left over.
func (p place) socketDir() (string, error) {
	dir := filepath.Join(p.root, socketName)
	if !socketFits(dir) {
		sum := sha256.Sum256([]byte(p.data))
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("keten-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])))
	}
	if !socketFits(dir) {
		return "", fmt.Errorf("folder %s is too long for a socket (%d bytes at most); set TMPDIR to a shorter one", dir, socketPathMax)
	}
	// In a shared temporary folder the removal fails when the folder is another
	// user's, and Mkdir then refuses to take what exists.
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove old socket: %w", err)
	}
	if err := p.mkdir(dir); err != nil {
		return "", err
	}
	return dir, nil
}

// socketFits also refuses a comma, which separates hosts in a database URL.
func socketFits(dir string) bool {
	return len(dir) <= socketPathMax && !strings.Contains(dir, ",")
}
