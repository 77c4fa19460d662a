package eventlog

import "github.com/twmb/franz-go/pkg/kgo"

// SortOutput returns the way of what was fetched through an [OutputReader] of a
// topic, for its test.
func SortOutput(topic string) func(kgo.Fetches) ([]OutputFetched, error) {
	r := &OutputReader{log: &Log{outputTopic: topic}, failed: make(map[int32]outputFault)}
	return r.sort
}
