//go:build unix

package kafkatest

import "syscall"

// Pause freezes the server as it is; connections stay open and unanswered.
func (k *Kafka) Pause() error { return k.proc.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (k *Kafka) Resume() error { return k.proc.Signal(syscall.SIGCONT) }
