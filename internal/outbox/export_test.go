package outbox

import (
	"os"
	"time"

	"github.com/keten-ledger/keten/ledger"
)

const (
	RecordsName = recordsName
	DamagedName = damagedName
	NewName     = newName
	HeaderBytes = int64(headerBytes)
	MostBytes   = mostBytes
)

// OpenOn opens an outbox whose syncs and pauses the test decides on.
func OpenOn(dir string, limit int64, sync func(*os.File) error, pause func(int) time.Duration) (*Outbox, error) {
	return open(dir, limit, disk{sync: sync, pause: pause})
}

// RecordBytes is how much of the limit a record takes.
func RecordBytes(m ledger.Message) int64 { return recordBytes(&m) }

// File is a file with the records.
func File(msgs ...ledger.Message) []byte {
	b := appendHeader(nil)
	for _, m := range msgs {
		b = appendRecord(b, &m)
	}
	return b
}

// Read returns what is left in a file, where it ends and what is damaged.
func Read(b []byte) (left []ledger.Message, end int64, d Damage, err error) {
	c, err := readContents(b)
	for _, e := range c.entries {
		left = append(left, e.msg)
	}
	return left, c.end, c.damage, err
}
