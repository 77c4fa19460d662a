package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Beside the ledger's topic stand others, of what can be lost: each is made when
// it is missing, with as many partitions and replicas as the ledger's.

// preflightBeside checks them all, when the ledger is known to be what it must
// be, and names all findings at once.
func (l *Log) preflightBeside(ctx context.Context, ledgerTopic *topicState) error {
	return errors.Join(l.preflightSnapshots(ctx, ledgerTopic), l.preflightOutput(ctx, ledgerTopic))
}

// ensureBeside describes such a topic, created with configs before when it was
// missing.
func (l *Log) ensureBeside(ctx context.Context, ledgerTopic *topicState, name string, configs map[string]*string) (*topicState, error) {
	t, err := l.awaitTopic(ctx, name, false)
	if errors.Is(err, ErrNotInitialized) {
		if err := l.createBeside(ctx, ledgerTopic, name, configs); err != nil {
			return nil, err
		}
		t, err = l.awaitTopic(ctx, name, true)
	}
	if err != nil {
		return nil, fmt.Errorf("find topic %s: %w", name, err)
	}
	if t.count() != ledgerTopic.count() {
		return nil, &PreflightError{
			"partition count of topic " + t.name, strconv.Itoa(int(t.count())),
			strconv.Itoa(int(ledgerTopic.count())) + " as the ledger's; delete the topic, and it is made again",
		}
	}
	return t, nil
}

func (l *Log) createBeside(ctx context.Context, ledgerTopic *topicState, name string, configs map[string]*string) error {
	err := l.retry(ctx, func() error {
		return l.createTopic(ctx, name, ledgerTopic.count(), int16(ledgerTopic.replicas()), maps.Clone(configs)) //nolint:gosec // far fewer replicas
	})
	if refused, ok := errors.AsType[*kerr.Error](err); ok && !refused.Retriable {
		return &PreflightError{"topic " + name, "missing", "there; creating it failed: " + err.Error()}
	}
	return err
}

// remake makes a topic again that somebody deleted while the ledger is open.
func (l *Log) remake(ctx context.Context, ensure func(context.Context, *topicState) (*topicState, error)) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	t, err := l.describe(ctx, l.topic)
	if err != nil {
		return err
	}
	_, err = ensure(ctx, t)
	return err
}

// ofTopic joins what was found of a topic's settings, with its name.
func ofTopic(name string, found []error) error {
	for _, err := range found {
		if bad, ok := errors.AsType[*PreflightError](err); ok {
			bad.Setting += " of topic " + name
		}
	}
	return errors.Join(found...)
}
