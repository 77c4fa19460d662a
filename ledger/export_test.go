package ledger

import (
	"encoding/json"

	"github.com/google/uuid"
)

// DecodeAny is [Decode] without the short cut for hot events.
func DecodeAny(r Record) (Envelope, error) {
	env, name, err := readEnvelope(r)
	if err != nil {
		return env, err
	}
	env.Event, err = decodeAny(r, name)
	return env, err
}

// IsHot tells whether [Decode] takes the short cut.
func IsHot(r Record) bool {
	_, name, err := readEnvelope(r)
	_, hot := decodeHot(r, name)
	return err == nil && hot
}

// WalkPayload is [CheckPayload] without the scan.
func WalkPayload(p json.RawMessage) error { return walkPayload(p) }

// PassesScan tells whether [CheckPayload] can do without the walk.
func PassesScan(p json.RawMessage) bool { return passesScan(p) }

// ParseUUID reads a UUID in its canonical form.
func ParseUUID(b []byte) (uuid.UUID, bool) { return parseUUID(b) }

// RememberedEnds is how many ends of runs the window has in memory.
func (p *Partition) RememberedEnds() int { return len(p.win.order) }

// Lanes is how many lanes are in memory.
func (p *Partition) Lanes() int { return len(p.lanes) }
