package main

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

// A benchChain is the ids of one collection.
type benchChain struct {
	collection string
	tasks      [benchTasks]string
}

func newBenchChain(id uuid.UUID) benchChain {
	c := benchChain{collection: id.String()}
	for i := range c.tasks {
		c.tasks[i] = ledger.TaskID(id, ledger.KindTask, i).String()
	}
	return c
}

// The holes of a pattern beside those of the tasks, which are 0 to 4.
const (
	holeCollection = benchTasks + iota
	holeOffset     // as_of, or the attempt's id
	holeClaim
	holes
)

// A recordPattern is an encoded event with holes: filling them is far quicker
// than encoding, and the bytes are the same.
type recordPattern struct {
	headers []ledger.Header
	parts   []patternPart
}

// A patternPart is bytes, and what comes behind them, holes for nothing.
type patternPart struct {
	text []byte
	hole int
}

// chainPatterns are the records of a chain: its creation, then start and success
// of each task.
func chainPatterns(source, worker string) ([foldChainRecords]recordPattern, error) {
	const at, claim = 1_111_111_111, 2_222_222_222 // found nowhere else in the records
	var patterns [foldChainRecords]recordPattern
	id := ledger.NewCollectionID(0, time.UnixMilli(1_700_000_000_000), [8]byte{0xee})
	chain := newBenchChain(id)
	texts := append(chain.tasks[:], chain.collection, strconv.Itoa(at), strconv.Itoa(claim))
	meta := ledger.Meta{EventID: uuid.Must(uuid.NewV7()), Source: source, Time: time.Now()}
	for step := range patterns {
		task := ledger.TaskID(id, ledger.KindTask, (step-1)/2)
		var event ledger.Event
		switch {
		case step == 0:
			event = creation(id, defaultChain(countType), at)
		case step%2 == 1:
			event = ledger.TaskStarted{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, Attempt: 1, Claim: claim, Worker: worker}
		default:
			event = ledger.TaskSucceeded{
				CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: at, Worker: worker,
				Result: []byte(`{"step":0,"text":"a result that is passed on and stored"}`),
			}
		}
		msg, err := ledger.Encode(0, meta, event)
		if err != nil {
			return patterns, err
		}
		patterns[step] = recordPattern{headers: msg.Headers, parts: cutHoles(msg.Value, texts)}
	}
	return patterns, nil
}

func cutHoles(value []byte, texts []string) []patternPart {
	var parts []patternPart
	for from, at := 0, 0; ; at++ {
		if at == len(value) {
			return append(parts, patternPart{value[from:], holes})
		}
		hole := slices.IndexFunc(texts, func(t string) bool { return bytes.HasPrefix(value[at:], []byte(t)) })
		if hole >= 0 {
			parts = append(parts, patternPart{value[from:at], hole})
			from = at + len(texts[hole])
			at = from - 1
		}
	}
}

func (p *recordPattern) fill(c *benchChain, offset, claim int64) []byte {
	b := make([]byte, 0, 2_048)
	for _, part := range p.parts {
		b = append(b, part.text...)
		switch part.hole {
		case holes:
		case holeCollection:
			b = append(b, c.collection...)
		case holeOffset:
			b = strconv.AppendInt(b, offset, 10)
		case holeClaim:
			b = strconv.AppendInt(b, claim, 10)
		default:
			b = append(b, c.tasks[part.hole]...)
		}
	}
	return b
}
