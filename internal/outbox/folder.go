package outbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// ErrInUse says that another process holds the folder. Stop that process or use
// another folder.
var ErrInUse = errors.New("another process holds it")

const (
	lockName    = "lock"
	recordsName = "records"
	newName     = "records.new"
	damagedName = "records.damaged"

	folderMode = 0o700
	fileMode   = 0o600

	// lockWait lets a predecessor that was just killed finish dying.
	lockWait  = time.Second
	lockRetry = 20 * time.Millisecond
)

// lockFolder makes the folder and takes its lock, which ends with the process at
// the latest.
func lockFolder(dir string) (*flock.Flock, error) {
	if err := makeFolder(filepath.Clean(dir)); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockName), flock.SetPermissions(fileMode))
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		locked, err := lock.TryLock()
		if locked {
			return lock, nil
		}
		if err != nil {
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("folder %s: %w", dir, ErrInUse)
		}
	}
}

// makeFolder makes the folder and those above it, each of which is there after a
// power failure.
func makeFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeFolder(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (b *Outbox) path(name string) string { return filepath.Join(b.dir, name) }

// syncFolder makes sure that names of files outlive a power failure.
func (b *Outbox) syncFolder() error {
	f, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	return errors.Join(b.disk.sync(f), f.Close())
}

// load reads what is there, or makes the file.
func (b *Outbox) load() error {
	if err := remove(b.path(newName)); err != nil {
		return err
	}
	data, err := os.ReadFile(b.path(recordsName))
	if errors.Is(err, fs.ErrNotExist) {
		return b.rewrite(0)
	}
	if err != nil {
		return err
	}
	c, err := readContents(data)
	if err != nil {
		return err
	}
	for _, e := range c.entries {
		e.left = true
		b.hold(e)
		b.keptBytes += e.bytes
	}
	if b.file, err = os.OpenFile(b.path(recordsName), os.O_RDWR, 0); err != nil {
		return err
	}
	b.size, b.damage = c.end, c.damage
	b.mend(&c)
	return nil
}

// mend makes the file one that can be appended to. What goes wrong here is
// treated like a write that failed: what could be read is more important.
func (b *Outbox) mend(c *contents) {
	if c.damage.Places > 0 {
		b.damage.Copy = b.keepCopy()
	}
	var err error
	switch {
	case !c.whole:
		b.suspect = true
		err = b.rewrite(0)
	case c.damage.Torn > 0:
		if err = b.file.Truncate(b.size); err == nil {
			err = b.disk.sync(b.file)
		}
		b.suspect = err != nil
	}
	if err != nil {
		b.failing, b.tries = true, 1
	}
}

// keepCopy gives the damaged file, which is about to be replaced, a second name.
func (b *Outbox) keepCopy() string {
	to := b.path(damagedName)
	if remove(to) != nil || os.Link(b.path(recordsName), to) != nil {
		return ""
	}
	return to
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
