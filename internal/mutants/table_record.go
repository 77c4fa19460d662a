package main

// headers breaks what is read of a record beside its value.
func headers() []mutant {
	list := inFile("ledger/record.go", []mutant{
		{name: "header-type-prefix", in: "readHeaders", old: `!ours && bytes.HasPrefix(h.Value, []byte(TypePrefix))`, new: `!ours`, breaks: "a record of another type is foreign"},
		{name: "header-types", in: "readHeaders", old: `if types != 1 {`, new: `if false {`, breaks: "a record with several types is invalid"},
		{name: "header-ids", in: "readHeaders", old: `if ids != 1 {`, new: `if false {`, breaks: "a record with several ce_id is invalid"},
		{name: "header-id-version", in: "readHeaders", old: ` && id.Version() == 7`, new: ``, breaks: "ce_id is a UUIDv7"},
		{name: "header-id-variant", in: "readHeaders", old: ` && id.Variant() == uuid.RFC4122`, new: ``, breaks: "ce_id is a UUID of RFC 9562"},
		{name: "header-id", in: "readEnvelope", old: `if env.EventID == uuid.Nil {`, new: `if false {`, breaks: "ce_id is checked"},
		{name: "header-key", in: "checkKey", old: `if string(key) != want {`, new: `if false {`, breaks: "the key is the collection id, else empty"},
		{name: "header-key-claims", in: "checkKey", old: `if string(key) != want {`, new: `if want != "" && string(key) != want {`, breaks: "the key of a claim is empty"},
	})
	return append(list, inFile("ledger/parse.go", []mutant{
		{name: "hash-offset", in: "RecordHash", old: `uint64(r.Offset)`, new: `uint64(0)`, breaks: "the record's hash is over its offset"},
		{name: "hash-key", in: "RecordHash", old: `b = appendPart(b, r.Key)`, new: ``, breaks: "the record's hash is over its key"},
		{name: "hash-header-key", in: "RecordHash", old: `b = appendPart(b, []byte(h.Key))`, new: ``, breaks: "the record's hash is over its headers' names"},
		{name: "hash-header-value", in: "RecordHash", old: `b = appendPart(b, h.Value)`, new: ``, breaks: "the record's hash is over its headers' values"},
		{name: "hash-value", in: "RecordHash", old: `appendPart(b, r.Value)`, new: `b`, breaks: "the record's hash is over its value"},
		{name: "hash-lengths", in: "appendPart", old: `uint32(len(part))`, new: `uint32(0*len(part))`, breaks: "every hashed part is behind its length"},
	})...)
}

// decoding breaks the strictness of the decoder.
func decoding() []mutant {
	const options = `jsonv2.RejectUnknownMembers(true), jsonv2.WithUnmarshalers(canonicalUUIDs)`
	list := inFile("ledger/record.go", []mutant{
		{name: "decode-unknown-members", in: "unmarshalStrict", old: options, new: `jsonv2.RejectUnknownMembers(false), jsonv2.WithUnmarshalers(canonicalUUIDs)`, breaks: "unknown members are errors"},
		{name: "decode-duplicates", in: "unmarshalStrict", old: options, new: options + `, jsontext.AllowDuplicateNames(true)`, breaks: "duplicate keys are errors (H36)"},
		{name: "decode-utf8", in: "unmarshalStrict", old: options, new: options + `, jsontext.AllowInvalidUTF8(true)`, breaks: "invalid UTF-8 is an error"},
		{name: "decode-case", in: "unmarshalStrict", old: options, new: options + `, jsonv2.MatchCaseInsensitiveNames(true)`, breaks: "members in another case are errors (H36)"},
		{name: "decode-null", in: "unmarshalStrict", old: `bytes.Contains(value, []byte("null"))`, new: `bytes.Contains(value, nil) && false`, breaks: "null is an error but for free JSON"},
		{name: "decode-uuid-form", in: "decodeUUID", old: `|| !ok {`, new: `|| !ok && len(tok.String()) == 36 {`, breaks: "UUIDs are in their canonical form"},
	})
	return append(list, inFile("ledger/strict.go", []mutant{
		{name: "decode-null-payload", in: "refuseNull", old: `raw || d.PeekKind() != 'n'`, new: `raw && false || d.PeekKind() != 'n'`, breaks: "free JSON may be null"},
	})...)
}

// gates breaks CheckPayload.
func gates() []mutant {
	list := inFile("ledger/payload.go", []mutant{
		{name: "gate-size", in: "CheckPayload", old: `if len(p) > MaxPayloadBytes {`, new: `if false {`, breaks: "a payload is at most 256 KiB"},
		{name: "gate-size-off-by-one", in: "CheckPayload", old: `len(p) > MaxPayloadBytes`, new: `len(p) >= MaxPayloadBytes`, breaks: "a payload of 256 KiB is fine"},
		{name: "gate-depth", in: "checkToken", old: `if d.StackDepth() > MaxPayloadDepth {`, new: `if d.StackDepth() > MaxPayloadDepth+1 {`, breaks: "depth ≤ 64"},
		{name: "gate-nul", in: "checkToken", old: `strings.IndexByte(tok.String(), 0) >= 0`, new: `false`, breaks: "no U+0000 (H42)"},
		{name: "gate-nul-first", in: "checkToken", old: `strings.IndexByte(tok.String(), 0) >= 0`, new: `strings.IndexByte(tok.String(), 0) > 0`, breaks: "no U+0000, also at the beginning"},
		{name: "gate-tail", in: "payloadTail", old: `> 0 {`, new: `> 0 && false {`, breaks: "trailing data is an error"},
		{name: "gate-duplicates", in: "walkPayload", old: `jsontext.NewDecoder(bytes.NewReader(p))`, new: `jsontext.NewDecoder(bytes.NewReader(p), jsontext.AllowDuplicateNames(true))`, breaks: "duplicate keys are errors"},
		{name: "gate-utf8", in: "walkPayload", old: `jsontext.NewDecoder(bytes.NewReader(p))`, new: `jsontext.NewDecoder(bytes.NewReader(p), jsontext.AllowInvalidUTF8(true))`, breaks: "valid UTF-8, no lone surrogates"},
		{name: "gate-number-bytes", in: "numberRule", old: `if len(n) > MaxNumberBytes {`, new: `if len(n) > MaxNumberBytes+1 {`, breaks: "numbers of ≤ 400 bytes"},
		{name: "gate-exponent", in: "numberRule", old: `string(digits) > "300"`, new: `string(digits) > "301"`, breaks: "|exponent| ≤ 300"},
		{name: "gate-exponent-less", in: "numberRule", old: `string(digits) > "300"`, new: `string(digits) >= "300"`, breaks: "exponent 300 is fine"},
		{name: "gate-exponent-digits", in: "numberRule", old: `len(digits) > 3 || `, new: ``, breaks: "|exponent| ≤ 300, however many digits"},
		{name: "gate-exponent-sign", in: "numberRule", old: `"+-"), "0")`, new: `"+"), "0")`, breaks: "|exponent| ≤ 300, also negative ones"},
		{name: "gate-exponent-zeros", in: "numberRule", old: `bytes.TrimLeft(bytes.TrimLeft(n[i+1:], "+-"), "0")`, new: `bytes.TrimLeft(n[i+1:], "+-")`, breaks: "an exponent's leading zeros do not count"},
		{name: "gate-exponent-capital", in: "numberRule", old: "bytes.IndexByte(n, 'E')", new: `-1`, breaks: "|exponent| ≤ 300, also behind E"},
	})
	return append(list, inFile("ledger/validate.go", []mutant{
		{name: "gate-args", in: "checkTask", old: "\n\t\tcheckOptionalPayload(\"/args\", t.Args),", new: ``, breaks: "args pass the gate"},
		{name: "gate-result", in: "checkSucceeded", old: "\n\t\tcheckOptionalPayload(\"/result\", e.Result),", new: ``, breaks: "results pass the gate"},
		{name: "gate-input", in: "checkRetry", old: "\n\t\tcheckOptionalPayload(\"/input\", e.Input),", new: ``, breaks: "a retry's input passes the gate"},
	})...)
}

// ids breaks the ids and what the fold recomputes of them.
func ids() []mutant {
	list := inFile("ledger/ids.go", []mutant{
		{name: "id-hash-lengths", in: "hashParts", old: `uint32(len(p))`, new: `uint32(0*len(p))`, breaks: "every hashed part is behind its length"},
		{name: "id-task-kind", in: "TaskID", old: `string(kind), `, new: `"", `, breaks: "a task's id depends on its kind"},
		{name: "id-task-index", in: "TaskID", old: `strconv.Itoa(index)`, new: `strconv.Itoa(index+1)`, breaks: "index counts from 0"},
		{name: "id-task-time", in: "TaskID", old: `copy(id[:6], collection[:6])`, new: ``, breaks: "a task's id has its collection's time in front"},
		{name: "id-tenant", in: "KeyedCollectionID", old: `hashParts(tenant, `, new: `hashParts("", `, breaks: "a keyed id is the tenant's (H19)"},
		{name: "id-ordering-key", in: "KeyedCollectionID", old: `hashParts(tenant, orderingKey, `, new: `hashParts(tenant, `, breaks: "a keyed id depends on the ordering key (H18)"},
		{name: "id-route-tenant", in: "PartitionFor", old: `hashParts(tenant, key)`, new: `hashParts(key)`, breaks: "the partition depends on the tenant"},
		{name: "id-route-ordering-key", in: "PartitionFor", old: `if key == "" {`, new: `if idempotencyKey != "" {`, breaks: "the ordering key routes before the idempotency key (H18)"},
		{name: "id-version", in: "CheckID", old: `v != 7 && v != 8 {`, new: `false {`, breaks: "a collection id is a UUIDv7 or v8"},
		{name: "id-variant", in: "CheckID", old: `if id.Variant() != uuid.RFC4122 {`, new: `if false {`, breaks: "a collection id is a UUID of RFC 9562"},
	})
	return append(list, inFile("ledger/validate.go", []mutant{
		{name: "id-partition-bits", in: "checkCollectionID", old: `p != partition {`, new: `p != partition && false {`, breaks: "ids carry their partition (H28)"},
		{name: "id-check", in: "checkCollectionID", old: `err != nil {`, new: `err != nil && false {`, breaks: "a collection id is checked"},
		{name: "id-keyed-version", in: "checkRoute", old: `if keyed != (e.IdempotencyKey != "") {`, new: `if false {`, breaks: "a UUIDv8 has an idempotency key, a UUIDv7 none"},
		{name: "id-keyed", in: "checkRoute", old: `if keyed && e.CollectionID != `, new: `if false && e.CollectionID != `, breaks: "a keyed collection id is recomputed (F6)"},
		{name: "id-task", in: "checkTasks", old: `if t.ID != TaskID(id, kind, t.Index) {`, new: `if false {`, breaks: "task ids are recomputed (H17, F6)"},
		{name: "id-task-event-version", in: "checkTaskEvent", old: `task.Version() != 8 || `, new: ``, breaks: "a task id is a UUIDv8"},
		{name: "id-task-event-variant", in: "checkTaskEvent", old: `task.Variant() != uuid.RFC4122 || `, new: ``, breaks: "a task id is a UUID of RFC 9562"},
		{name: "id-task-event-partition", in: "checkTaskEvent", old: ` || PartitionOf(task) != PartitionOf(id)`, new: ``, breaks: "a task id carries the collection's partition"},
	})...)
}
