package ledger

import "encoding/json"

// WalkPayload is [CheckPayload] without the scan.
func WalkPayload(p json.RawMessage) error { return walkPayload(p) }

// PassesScan tells whether [CheckPayload] can do without the walk.
func PassesScan(p json.RawMessage) bool { return passesScan(p) }
