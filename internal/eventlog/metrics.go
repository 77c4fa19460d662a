package eventlog

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the measurements of one Log. Two Logs that share a Registerer
// share the collectors.
type metrics struct {
	appends  *prometheus.CounterVec
	duration prometheus.Histogram
	loss     *prometheus.CounterVec

	// The children of appends, looked up once.
	acknowledged, unknown, overloaded prometheus.Counter

	snapshots snapshotMetrics

	output                         *prometheus.CounterVec
	outputDelivered, outputDropped prometheus.Counter
}

// snapshotMetrics count what became of snapshots.
type snapshotMetrics struct {
	ended, bytes *prometheus.CounterVec

	// Their children, looked up once.
	written, skipped, failed, restored, unusable, refused prometheus.Counter
	bytesWritten, bytesRestored                           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_appends_total",
			Help: "Appends that ended, by result: acknowledged, unknown or overloaded.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "keten_append_duration_seconds",
			Help:    "Time from an append to the broker's acknowledgment.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		loss: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_data_loss_total",
			Help: "Times that history was found lost, replaced or corrupt, by partition and by who noticed.",
		}, []string{"partition", "by"}),
		snapshots: newSnapshotMetrics(),
		output: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_output_records_total",
			Help: "Records of tasks' progress and log lines, by result: delivered, or dropped because the brokers did not take them in time.",
		}, []string{"result"}),
	}
	if reg != nil {
		err := errors.Join(register(reg, &m.appends), register(reg, &m.duration), register(reg, &m.loss),
			register(reg, &m.snapshots.ended), register(reg, &m.snapshots.bytes), register(reg, &m.output))
		if err != nil {
			return nil, err
		}
	}
	m.acknowledged = m.appends.WithLabelValues("acknowledged")
	m.unknown = m.appends.WithLabelValues("unknown")
	m.overloaded = m.appends.WithLabelValues("overloaded")
	m.snapshots.lookUp()
	m.outputDelivered = m.output.WithLabelValues("delivered")
	m.outputDropped = m.output.WithLabelValues("dropped")
	return m, nil
}

func newSnapshotMetrics() snapshotMetrics {
	return snapshotMetrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_snapshots_total",
			Help: "Snapshots of partitions, by what became of them: written, skipped (not due), failed (to be written), restored, unusable (damaged or of another build) or refused (of another history).",
		}, []string{"result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_snapshot_bytes_total",
			Help: "Bytes of the snapshots that were written or restored.",
		}, []string{"result"}),
	}
}

func (m *snapshotMetrics) lookUp() {
	m.written = m.ended.WithLabelValues("written")
	m.skipped = m.ended.WithLabelValues("skipped")
	m.failed = m.ended.WithLabelValues("failed")
	m.restored = m.ended.WithLabelValues("restored")
	m.unusable = m.ended.WithLabelValues("unusable")
	m.refused = m.ended.WithLabelValues("refused")
	m.bytesWritten = m.bytes.WithLabelValues("written")
	m.bytesRestored = m.bytes.WithLabelValues("restored")
}

// register registers *c, or sets it to the equal collector that is there.
func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			*c = existing
			return nil
		}
	}
	return err
}

func (m *metrics) lost(partition int32, by string) {
	m.loss.WithLabelValues(strconv.Itoa(int(partition)), by).Inc()
}
