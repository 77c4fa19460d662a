package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// ErrFolderInUse says that another process holds the folder. Stop that process
// or use another folder; trying again at once is pointless.
var ErrFolderInUse = errors.New("folder is in use")

const (
	lockName = "keten.lock"
	// lockWait lets a predecessor that was just killed finish dying.
	lockWait  = time.Second
	lockRetry = 20 * time.Millisecond
)

const (
	// private is for folders only this account uses, passable for those that
	// lead to a server under another account.
	private  = 0o700
	passable = 0o711
)

// lockFolder creates the folder and takes its lock, which ends with the process
// at the latest. Folders above it are created passable: beside a broker's
// folder there is usually a server's.
func lockFolder(dir string, mode os.FileMode) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Dir(dir), passable); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockName))
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		locked, err := lock.TryLock()
		if locked {
			return lock, nil
		}
		if err != nil {
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: another keten dev uses %s; stop it or choose another folder", ErrFolderInUse, dir)
		}
	}
}

// Scratch creates a folder for data that may be lost, in the system's place for
// temporary files, and returns it with a function that removes it. Other users
// can enter but not list it, so that a server under another account finds its
// data. A process that was killed leaves its folder behind; the next Scratch
// with the same prefix removes it.
func Scratch(prefix string) (dir string, remove func() error, err error) {
	sweep(prefix)
	for {
		dir, err = os.MkdirTemp("", prefix)
		if err != nil {
			return "", nil, fmt.Errorf("create scratch folder: %w", err)
		}
		lock, err := lockFolder(dir, private)
		if err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
		// Another process's sweep may have seen the lock file between its
		// creation and its locking, and have taken the folder for abandoned.
		if !exists(filepath.Join(dir, lockName)) {
			_ = lock.Close()
			continue
		}
		remove = func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }
		if err := os.Chmod(dir, passable); err != nil {
			return "", nil, errors.Join(fmt.Errorf("open scratch folder: %w", err), remove())
		}
		return dir, remove, nil
	}
}

// sweep removes scratch folders whose owner is gone. One without a lock file is
// left alone: another process is about to lock it.
func sweep(prefix string) {
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		dir := filepath.Join(os.TempDir(), e.Name())
		if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
			continue
		}
		lock := flock.New(filepath.Join(dir, lockName))
		if locked, err := lock.TryLock(); err != nil || !locked {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}
