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
	}
	if reg != nil {
		err := errors.Join(register(reg, &m.appends), register(reg, &m.duration), register(reg, &m.loss))
		if err != nil {
			return nil, err
		}
	}
	m.acknowledged = m.appends.WithLabelValues("acknowledged")
	m.unknown = m.appends.WithLabelValues("unknown")
	m.overloaded = m.appends.WithLabelValues("overloaded")
	return m, nil
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
