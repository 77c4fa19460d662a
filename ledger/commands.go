package ledger

import "slices"

// judgeAsOf is the window check of R3 and R8. An as_of is not negative; that it
// may be huge is why no difference with it is taken, which would overflow into
// acceptance.
func (p *Partition) judgeAsOf(asOf, offset int64) Reason {
	switch {
	case asOf > offset:
		return ReasonAhead
	case asOf < offset-p.window:
		return ReasonWindow
	}
	return ""
}

// applyCreated is R3.
func (p *Partition) applyCreated(x *Parsed, e CollectionCreated) {
	if want, ok := PartitionFor(e.Tenant, e.OrderingKey, e.IdempotencyKey, p.partitions); ok && want != p.index {
		p.refuse(Invalid, "/collection_id: carries another partition than its keys")
		return
	}
	p.touch(RunID{e.CollectionID, 1})
	_, active := p.active[e.CollectionID]
	_, ending := p.ending[e.CollectionID]
	_, ended := p.win.ended(e.CollectionID)
	if active || ending || ended {
		p.refuse(Duplicate, "")
		return
	}
	if reason := p.judgeAsOf(e.AsOf, x.Offset); reason != "" {
		p.stale(reason)
		return
	}
	p.open(&run{
		id: e.CollectionID, number: 1, kind: KindTask, tenant: e.Tenant, name: e.Name,
		opened: x.Offset, orderingKey: e.OrderingKey, finally: e.Finally,
		chain: chain{tasks: slices.Clone(e.Tasks), sinceMS: x.TimeMS},
	})
}

// applyRetry is R8. That the run before was the last one, and has failed or was
// canceled, is the author's promise as of as_of; the window proves that nothing
// has happened since.
func (p *Partition) applyRetry(x *Parsed, e RetryRequested) {
	// The idempotency key is the retry's, not the collection's: it has no say.
	if want, ok := PartitionFor(e.Tenant, e.OrderingKey, "", p.partitions); ok && want != p.index {
		p.refuse(Invalid, "/ordering_key: belongs to another partition")
		return
	}
	p.touch(RunID{e.CollectionID, e.Run})
	if reason := p.judgeRetry(e, x.Offset); reason != "" {
		p.stale(reason)
		return
	}
	p.open(&run{
		id: e.CollectionID, number: e.Run, kind: KindTask, tenant: e.Tenant, name: e.Name,
		opened: x.Offset, orderingKey: e.OrderingKey, finally: e.Finally,
		chain: chain{tasks: slices.Clone(e.Tasks), input: e.Input, sinceMS: x.TimeMS},
	})
}

// judgeRetry returns why a retry is refused, "" when it is accepted. That its
// author has seen more than there is comes first: history was lost, and what
// stands in its place says nothing.
func (p *Partition) judgeRetry(e RetryRequested, offset int64) Reason {
	if e.AsOf > offset {
		return ReasonAhead
	}
	if _, active := p.active[e.CollectionID]; active {
		return ReasonActive
	}
	if at, ok := p.win.ended(e.CollectionID); ok && at >= e.AsOf {
		return ReasonChanged
	}
	for _, r := range p.ending[e.CollectionID] {
		if e.Run <= r.number {
			return ReasonChanged
		}
	}
	return p.judgeAsOf(e.AsOf, offset)
}

// applyCancel is R7.
func (p *Partition) applyCancel(x *Parsed, e CancelRequested) {
	id := RunID{e.CollectionID, e.Run}
	p.touch(id)
	r := p.active[e.CollectionID]
	switch {
	case r == nil || r.number != e.Run:
		p.stale(ReasonClosed)
	case r.tenant != e.Tenant:
		p.refuse(Invalid, "/tenant: is not the collection's")
	case r.canceled:
		p.refuse(Duplicate, "")
	case r.isOpen():
		r.canceled = true
	default:
		p.end(x, r, StatusCanceled, nil, nil)
	}
}
