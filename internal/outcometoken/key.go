package outcometoken

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// SecretBytes is the length of a secret that is made here; shorter ones are
	// refused.
	SecretBytes = 32
	// maxSecrets bounds what a forged token costs: each secret is one more hash.
	maxSecrets = 8
	// maxFileBytes bounds what is read of a file that was named by mistake.
	maxFileBytes = 64 << 10
)

// A Key signs and checks tokens. Executors and API share it. It is safe for
// concurrent use.
type Key struct {
	secrets [][]byte // the first signs, all of them verify
	exposed bool
}

// Exposed reports whether others than the file's owner may read the key: who has
// it can report outcomes of any deferred attempt. Where secrets are mounted into
// containers that is usual, so it is no error.
func (k *Key) Exposed() bool { return k.exposed }

// ParseKey reads a key as it stands in a file: one secret a line, of at least 32
// bytes in hexadecimal digits. Empty lines and those that begin with # are
// passed over. The first secret signs, all of them verify, which is how a key is
// changed without a moment in which a token is refused. Errors do not quote the
// text.
func ParseKey(text string) (*Key, error) {
	k := &Key{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := hex.DecodeString(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d is not a secret in hexadecimal digits", number)
		case len(secret) < SecretBytes:
			return nil, fmt.Errorf("line %d has a secret of %d bytes, want at least %d", number, len(secret), SecretBytes)
		case len(k.secrets) == maxSecrets:
			return nil, fmt.Errorf("line %d has one secret too many, want at most %d", number, maxSecrets)
		}
		k.secrets = append(k.secrets, secret)
	}
	if len(k.secrets) == 0 {
		return nil, errors.New("there is no secret in it")
	}
	return k, nil
}

// LoadKey reads a key file, see [ParseKey]. A file that everybody may write is
// refused, except on Windows, where permissions are not what Go shows.
func LoadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the key file: %w", err)
	case len(text) > maxFileBytes:
		return nil, fmt.Errorf("key file %s has more than %d bytes", path, maxFileBytes)
	}
	mode := info.Mode().Perm()
	if runtime.GOOS == "windows" {
		mode = 0
	}
	if mode&0o002 != 0 {
		return nil, fmt.Errorf("key file %s may be written by everybody (mode %04o): chmod 600 %s", path, mode, path)
	}
	k, err := ParseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	k.exposed = mode&0o004 != 0
	return k, nil
}

// GenerateKey returns the text of a new key file with one secret.
func GenerateKey() string {
	var secret [SecretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails
	return hex.EncodeToString(secret[:]) + "\n"
}

// EnsureKeyFile makes a key file for its owner alone unless there is one, also
// beside others that do the same, and reports whether it was made.
func EnsureKeyFile(path string) (made bool, err error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// A file that is there is whole: it is written under another name and linked,
	// which only one of several processes can.
	f, err := os.CreateTemp(filepath.Dir(path), ".outcome-key-*") // mode 0600
	if err != nil {
		return false, fmt.Errorf("make a key file: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // the file has its other name, or is not wanted
	_, err = f.WriteString(GenerateKey())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("make a key file: %w", err)
	}
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("make a key file: %w", err)
	}
	return true, nil
}
