package projector

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/ledger"
)

type metrics struct {
	lagRecords *prometheus.GaugeVec
	lagSeconds prometheus.GaugeFunc
	records    *prometheus.CounterVec
	batch      prometheus.Histogram
	duration   prometheus.Histogram
	conflicts  prometheus.Counter
	stopped    prometheus.Gauge
	standby    prometheus.Gauge

	outputRecords *prometheus.CounterVec
	outputLag     prometheus.Gauge

	// oldestMS is the record time of the oldest record that is known and not
	// in the tables, 0 for none.
	oldestMS atomic.Int64
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		lagRecords: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keten_projector_lag_records", Help: "Records of the ledger that are not in the read model yet, by partition.",
		}, []string{"partition"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_records_total", Help: "Records written to the read model, by event type and verdict.",
		}, []string{"type", "verdict"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keten_projector_batch_records", Help: "Records written in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keten_projector_batch_duration_seconds", Help: "Time that one transaction took.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keten_projector_conflicts_total", Help: "Transactions given up because another projector had moved a checkpoint.",
		}),
		stopped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keten_projector_stopped_partitions", Help: "Partitions that this projector has stopped for good.",
		}),
		standby: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keten_projector_standby_partitions", Help: "Partitions where this projector stands by because another one writes.",
		}),
		outputRecords: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_projector_output_records_total",
			Help: "Records of tasks' output that were read, by result: stored, unreadable or refused (by PostgreSQL).",
		}, []string{"result"}),
		outputLag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keten_projector_output_lag_records", Help: "Records of tasks' output in the partitions last read that are not in the read model yet.",
		}),
	}
	m.lagSeconds = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keten_projector_lag_seconds", Help: "Age of the oldest record read that is not in the read model yet.",
	}, m.lag)
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.lagRecords, m.lagSeconds, m.records, m.batch, m.duration, m.conflicts, m.stopped, m.standby,
		m.outputRecords, m.outputLag,
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) lag() float64 {
	oldest := m.oldestMS.Load()
	if oldest == 0 {
		return 0
	}
	return max(0, time.Since(time.UnixMilli(oldest)).Seconds())
}

// lagOf returns the gauge of one partition's lag.
func (m *metrics) lagOf(partition int32) prometheus.Gauge {
	return m.lagRecords.WithLabelValues(strconv.Itoa(int(partition)))
}

// observe takes in how far the parts are.
func (m *metrics) observe(parts map[int32]*part) {
	oldest := int64(0)
	for _, x := range parts {
		x.lag.Set(float64(max(0, x.high-x.stored.Next)))
		if first := x.firstMS(); first != 0 && (oldest == 0 || first < oldest) {
			oldest = first
		}
	}
	m.oldestMS.Store(oldest)
}

// count takes in changes that were written.
func (m *metrics) count(p *pending) {
	for l, n := range p.verdicts {
		m.records.WithLabelValues(l.event, string(l.verdict)).Add(float64(n))
	}
}

// verdictLabels are the labels of a record.
type verdictLabels struct {
	event   string
	verdict ledger.Verdict
}

// labelsOf returns a record's labels. The type of one that could not be decoded
// is whatever its writer put there, so only known names become labels.
func labelsOf(o ledger.Outcome) verdictLabels {
	l := verdictLabels{event: "other", verdict: o.Verdict}
	if o.Event != nil {
		l.event = o.Event.EventName()
		return l
	}
	switch name := strings.TrimPrefix(o.Type, ledger.TypePrefix+"v1."); name {
	case "LedgerOpened", "RulesActivated", "CollectionCreated", "RetryRequested", "CancelRequested", "PartitionClaimed",
		"PartitionReleased", "TaskStarted", "TaskSucceeded", "TaskFailed", "TaskDeferred":
		l.event = name
	}
	return l
}
