package handlers

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// pipes connect the standard streams of a command that is started elsewhere
// with ours.
type pipes struct {
	theirs, ours [3]*os.File // standard input, output, error
	outputs      sync.WaitGroup
	input        sync.WaitGroup
}

func newPipes() (*pipes, error) {
	p := &pipes{}
	for i := range p.ours {
		r, w, err := os.Pipe()
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
			return nil, err
		}
		p.ours[i], p.theirs[i] = r, w
		if i == 0 {
			p.ours[i], p.theirs[i] = w, r
		}
	}
	return p, nil
}

// begin copies until the command's ends are closed or finish is called.
func (p *pipes) begin(s streams) {
	p.input.Go(func() {
		_, _ = io.Copy(p.ours[0], bytes.NewReader(s.stdin)) // a command need not read it
		_ = p.ours[0].Close()
	})
	for i, w := range []io.Writer{s.stdout, s.stderr} {
		p.outputs.Go(func() { _, _ = io.Copy(w, p.ours[i+1]) })
	}
}

// drained is closed when the command's outputs have ended.
func (p *pipes) drained() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		p.outputs.Wait()
		close(done)
	}()
	return done
}

// finish stops copying. Afterwards nothing is written anymore.
func (p *pipes) finish() {
	p.closeOurs()
	p.outputs.Wait()
	p.input.Wait()
}

func (p *pipes) closeTheirs() { closeAll(p.theirs) }
func (p *pipes) closeOurs()   { closeAll(p.ours) }

func closeAll(files [3]*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nobody can do anything about it
		}
	}
}
