package handlers

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// maxFrameBytes bounds what the two ends of a supervisor's socket take from
// each other: a program's args and environment, and no system starts one with
// more than a few MiB of them.
const maxFrameBytes = 16 << 20

// An order goes to a supervisor. Exactly one of its fields is set. Orders to a
// command that has ended are too late and do nothing.
type order struct {
	Run  *program `json:"run,omitempty"` // comes with the three standard streams
	Term bool     `json:"term,omitzero"` // SIGTERM to the command's group
	Kill bool     `json:"kill,omitzero"` // SIGKILL to everything it started

	files []int // of Run
}

// A reply comes from a supervisor: for each Run started, then ended, then clear,
// or failed alone.
type reply struct {
	Started int                 `json:"started,omitempty"` // process id
	Failed  syscall.Errno       `json:"failed,omitempty"`
	Ended   *syscall.WaitStatus `json:"ended,omitempty"`
	Clear   bool                `json:"clear,omitzero"` // nothing of the command is left
}

// writeFrame writes v as JSON behind its length. The files travel with the
// length.
func writeFrame(c *net.UnixConn, v any, files ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(body) > maxFrameBytes {
		return fmt.Errorf("a frame of %d bytes is over the limit of %d: %w", len(body), maxFrameBytes, syscall.E2BIG)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body))) //nolint:gosec // at most maxFrameBytes
	var rights []byte
	if len(files) > 0 {
		rights = syscall.UnixRights(files...)
	}
	// The kernel takes the first byte with the rights or nothing at all.
	n, _, err := c.WriteMsgUnix(head, rights, nil)
	if err != nil {
		return err
	}
	_, err = c.Write(append(head[n:], body...))
	return err
}

// readFrame reads what writeFrame wrote, and returns the files. They are closed
// on exec.
func readFrame(c *net.UnixConn, v any) (files []int, err error) {
	head, rights := make([]byte, 4), make([]byte, syscall.CmsgSpace(3*4))
	n, m, _, _, err := c.ReadMsgUnix(head, rights)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	if files, err = receivedFiles(rights[:m]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxFrameBytes {
		return files, fmt.Errorf("a frame of %d bytes is over the limit of %d", size, maxFrameBytes)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return files, err
	}
	return files, json.Unmarshal(body, v)
}

func receivedFiles(rights []byte) ([]int, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("read passed files: %w", err)
	}
	var files []int
	for i := range messages {
		more, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("read passed files: %w", err)
		}
		files = append(files, more...)
	}
	return files, nil
}

// unixConn makes a connection of a socket and takes the file over.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close() // FileConn has its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s is not a Unix socket", f.Name())
	}
	return u, nil
}
