//go:build !unix

package kafkatest

import "errors"

// Pause is not possible on this system.
func (k *Kafka) Pause() error { return errors.ErrUnsupported }

// Resume is not possible on this system.
func (k *Kafka) Resume() error { return errors.ErrUnsupported }
