package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// places remembers where the partitions of topics are, for single fetches.
type places struct {
	mu sync.Mutex
	at map[string]*topicState
}

func newPlaces() *places { return &places{at: make(map[string]*topicState)} }

func (p *places) get(topic string) *topicState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[topic]
}

// set notes where a topic is; nil: not known.
func (p *places) set(topic string, t *topicState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[topic] = t
}

// fetchRequest says what one fetch is to bring.
type fetchRequest struct {
	topic     string
	partition int32
	offset    int64
	bytes     int32 // about as many; a batch is never cut
}

// fetchAnswer is what one fetch brought.
type fetchAnswer struct {
	topic   *topicState
	records []*kgo.Record // the first may lie behind the offset asked for
	next    int64         // where to go on; the offset asked for when there is nothing more
	end     int64         // the log end
}

// A fetchError is what went wrong with a fetch, and of which topic.
type fetchError struct {
	topic     string
	partition int32
	err       error
}

func (e *fetchError) Error() string {
	return fmt.Sprintf("fetch partition %d of %s: %v", e.partition, e.topic, e.err)
}

func (e *fetchError) Unwrap() error { return e.err }

// fetch asks the leader of a partition once. Unlike a Reader it needs no client,
// no session and no knowledge of what comes: at the log's end, and where
// compaction left nothing, the answer is empty at once. What goes wrong may be
// mended by asking again, see passes; an answer that cannot be decoded was asked
// for again, and is ErrCorrupt. The errors are *fetchError.
func (l *Log) fetch(ctx context.Context, req fetchRequest) (fetchAnswer, error) {
	for n := 1; ; n++ {
		answer, err := l.fetchOnce(ctx, req)
		if err == nil {
			return answer, nil
		}
		l.places.set(req.topic, nil)
		again := errors.Is(err, errUndecodable)
		switch {
		case l.client.Context().Err() != nil:
			err, again = ErrClosed, false
		case again && n >= corruptTries:
			err, again = fmt.Errorf("%w: %w", ErrCorrupt, err), false
		}
		if !again || sleep(ctx, backoff(n)) != nil {
			return answer, &fetchError{req.topic, req.partition, err}
		}
	}
}

// errUndecodable reports bytes that are no batch.
var errUndecodable = errors.New("batch cannot be decoded")

func (l *Log) fetchOnce(ctx context.Context, req fetchRequest) (fetchAnswer, error) {
	t := l.places.get(req.topic)
	if t == nil {
		var err error
		if t, err = l.describe(ctx, req.topic); err != nil {
			return fetchAnswer{}, err
		}
		l.places.set(req.topic, t)
	}
	leader, err := t.leader(req.partition)
	if err != nil {
		return fetchAnswer{}, err
	}
	resp, err := kmsgFetch(t, req).RequestWith(ctx, l.client.Broker(int(leader)))
	if err != nil {
		return fetchAnswer{}, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fetchAnswer{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fetchAnswer{}, errNoAnswer
	}
	answer := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return fetchAnswer{topic: t}, err
	}
	part, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: req.offset, Topic: req.topic, Partition: req.partition,
	}, &answer, l.decompressor, nil)
	if part.Err != nil {
		return fetchAnswer{}, fmt.Errorf("%w: %w", errUndecodable, part.Err)
	}
	return fetchAnswer{topic: t, records: part.Records, next: next, end: answer.HighWatermark}, nil
}

// kmsgFetch is the request for one partition, outside of any fetch session.
func kmsgFetch(t *topicState, from fetchRequest) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = from.bytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = t.name, t.id
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = from.partition, from.offset, from.bytes
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	return req
}
