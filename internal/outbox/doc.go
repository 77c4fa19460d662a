// Package outbox keeps records that could not be appended to the ledger yet on
// the local disk, so that they outlive the process.
//
// It decides when a record is safe and which ones a next process finds. It must
// not know Kafka, and not what the records mean.
//
// # What is promised
//
// A record whose done was called with nil is found by the next [Open] of the
// folder, after kill -9 and after a power failure too, until it was dropped.
// Records come back unchanged and in the order of their Puts. Dropping is not
// safe in the same way: what was dropped since the last Put that was written may
// come back after a power failure. The one who drops must have no use for the
// record but no harm from it either, as the fold has none from a second append.
//
// # The folder
//
//	lock             held by the process whose folder it is
//	records          the records, and which of them were dropped
//	records.new      being written, to take the place of records
//	records.damaged  the last records that had unreadable places
//
// One goroutine writes. It takes all that has been put since it last looked,
// writes it in one go, syncs once and then answers: the more wait, the less each
// pays. A drop is a short mark that is written with the next batch and not
// waited for. When all is dropped, the file is cut to its header. When more than
// half of it is dropped, or there is no room for what comes, the records that
// still count are written into a new file that takes the old one's place. So the
// file never exceeds the limit, the folder hardly ever twice the limit, and dead
// bytes never keep a record out. The records are held in memory as well, which
// the caller does anyway.
//
// # The format
//
// A header (name and version of the format, checksum), then frames: a mark, the
// length of the body, a checksum of both, a checksum of the body, the body. All
// numbers are big-endian, checksums are CRC-32C. A file of another version is
// refused, never overwritten. The version stands for bodies as well.
//
// # Damage
//
// What cannot be read is never an error. At the end of the file it is what a
// write under way left when the process or the machine died; nobody was told
// that it is safe, and it is cut off. In the middle it is a broken disk: all
// frames before and behind are kept, since the records in them do not depend on
// each other, and a copy of the file is left for people to look at. The mark by
// which reading finds the next frame has a byte that is in no UTF-8 text, so it
// is not found in a record of the ledger. [Outbox.Damage] tells of both.
//
// # Trouble with the disk
//
// A record that cannot be written is answered with an error, and [Outbox.Full]
// is true until writing works again, which is tried with every Put and, with
// growing pauses, without. After a sync that failed, nothing that the kernel says
// of the file is believed any more: all is written again from memory, into a new
// file.
package outbox
