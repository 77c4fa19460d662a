package main

// hot breaks the short way through the decoder, which must say what the long one
// says.
func hot() []mutant {
	return inFile("ledger/hot.go", []mutant{
		{name: "hot-key", in: "addressed", old: `ok && key == id && `, new: `ok && key != uuid.Nil && `, breaks: "the key is the collection id"},
		{name: "hot-partition", in: "addressed", old: ` && checkCollectionID(r.Partition, id) == nil`, new: ``, breaks: "ids carry their partition (H28)"},
		{name: "hot-created", in: "decodeHot", old: ` && checkCreated(r.Partition, e, r.Value) == nil`, new: ``, breaks: "a creation is checked"},
		{name: "hot-started", in: "decodeHot", old: ` && checkStarted(e) == nil`, new: ``, breaks: "a start is checked"},
		{name: "hot-succeeded", in: "decodeHot", old: ` && checkSucceeded(judged) == nil`, new: ``, breaks: "a success is checked"},
		{name: "hot-failed", in: "decodeHot", old: ` && checkFailed(e) == nil`, new: ``, breaks: "a failure is checked"},
		{name: "hot-deferred", in: "decodeHot", old: ` && checkDeferred(e) == nil`, new: ``, breaks: "a deferral is checked"},
		{name: "hot-tail", in: "done", old: ` && len(h.rest) == 0`, new: ``, breaks: "trailing data is an error"},
		{name: "hot-bad", in: "done", old: `!h.bad && `, new: ``, breaks: "what cannot be read the short way is read the long one"},
		{name: "hot-label-twice", in: "labels", old: `if len(labels) == n {`, new: `if len(labels) < n {`, breaks: "duplicate keys are errors (H36)"},
		{name: "hot-escaped", in: "hotReader.text", old: `n == 0 || escaped`, new: `n == 0 || escaped && false`, breaks: "text is what its escapes stand for"},
		{name: "hot-number-overflow", in: "number", old: `h.digits(18)`, new: `h.digits(20)`, breaks: "a number beyond 64 bits is an error"},
		{name: "hot-count-overflow", in: "hotReader.count", old: `h.digits(9)`, new: `h.digits(18)`, breaks: "a number beyond 32 bits is an error on every machine", equivalent: "an int has 64 bits where the gate runs, and within checks the range of each; on 32 bits the short way would wrap around"},
		{name: "hot-leading-zero", in: "digits", old: ` || n > 1 && h.rest[0] == '0'`, new: ``, breaks: "01 is no JSON"},
		{name: "hot-uuid-quotes", in: "hotReader.uuid", old: ` || h.rest[0] != '"' || h.rest[quoted-1] != '"'`, new: ``, breaks: "a UUID is a string"},
		{name: "hot-uuid-case", in: "hexDigit", old: `if '0' <= c`, new: `if 'A' <= c && c <= 'F' {
		return c - 'A' + 10
	}
	if '0' <= c`, breaks: "UUIDs are in their canonical form"},
		{name: "hot-uuid-hyphen", in: "parseUUID", old: `if text[from] != '-' {`, new: `if text[from] == 0 {`, breaks: "UUIDs are in their canonical form"},
		{name: "hot-immutable", in: "hotReader.task", old: `h.has(` + "`,\"immutable\":true`" + `)`, new: `h.has(` + "`,\"immutable\":true`" + `) && false`, breaks: "the short way reads immutable"},
		{name: "hot-retryable", in: "hotReader.failed", old: `h.has(` + "`,\"retryable\":true`" + `)`, new: `h.has(` + "`,\"retryable\":true`" + `) && false`, breaks: "the short way reads retryable"},
	})
}

// scans breaks the short way through the gate.
func scans() []mutant {
	return inFile("ledger/scan.go", []mutant{
		{name: "scan-size", in: "scanPayload", old: ` || s.i > MaxPayloadBytes`, new: ``, breaks: "a payload is at most 256 KiB"},
		{name: "scan-tail", in: "passesScan", old: `return s.i == len(p)`, new: `return true`, breaks: "trailing data is an error"},
		{name: "scan-depth-objects", in: "payloadScan.value", old: `depth < MaxPayloadDepth && s.object(depth+1)`, new: `depth <= MaxPayloadDepth && s.object(depth+1)`, breaks: "depth ≤ 64"},
		{name: "scan-depth-arrays", in: "payloadScan.value", old: `depth < MaxPayloadDepth && s.array(depth+1)`, new: `depth <= MaxPayloadDepth && s.array(depth+1)`, breaks: "depth ≤ 64"},
		{name: "scan-duplicates", in: "payloadScan.name", old: `if bytes.Equal(other, name) {`, new: `if bytes.Equal(other, name) && false {`, breaks: "duplicate keys are errors"},
		{name: "scan-duplicates-escaped", in: "payloadScan.name", old: `n == 0 || escaped || `, new: `n == 0 || escaped && false || `, breaks: "duplicate keys are errors, however they are written"},
		{name: "scan-number", in: "payloadScan.number", old: `numberRule(s.b[start:s.i]) == ""`, new: `start <= s.i`, breaks: "numbers of ≤ 400 bytes and |exponent| ≤ 300"},
		{name: "scan-number-zero", in: "payloadScan.number", old: `!s.take('0') && !s.digits()`, new: `!s.digits()`, breaks: "01 is no JSON"},
		{name: "scan-control", in: "scanString", old: `case c < ' ':`, new: `case c < '\n':`, breaks: "a control character in a string is an error"},
		{name: "scan-utf8", in: "scanString", old: `r == utf8.RuneError && size == 1`, new: `r == utf8.RuneError && size == 0`, breaks: "valid UTF-8"},
		{name: "scan-plain", in: "plain8", old: `|((w^each*'\\')-each)`, new: ``, breaks: "an escape is seen wherever it stands"},
		{name: "scan-plain-control", in: "plain8", old: `|(w-each*' ')`, new: ``, breaks: "a control character in a string is an error"},
		{name: "scan-plain-quote", in: "plain8", old: `|((w^each*'"')-each)`, new: ``, breaks: "a string ends where it ends"},
		{name: "scan-nul", in: "scanEscape", old: `case r <= 0:`, new: `case r < 0:`, breaks: "no U+0000"},
		{name: "scan-low-surrogate", in: "scanEscape", old: `case r >= 0xdc00 && r < 0xe000:`, new: `case r > 0xdc00 && r < 0xe000:`, breaks: "no lone surrogates"},
		{name: "scan-high-surrogate", in: "scanEscape", old: `low < 0xdc00 || low >= 0xe000`, new: `low < 0`, breaks: "no lone surrogates"},
		{name: "scan-hex", in: "scanUnit", old: `c|0x20 <= 'f'`, new: `c|0x20 <= 'g'`, breaks: "\\u takes hexadecimal digits"},
	})
}
