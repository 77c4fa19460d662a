package devstack

// ApplyRetention runs the broker's janitor now instead of within the hour.
func (b *Broker) ApplyRetention() { b.cluster.ApplyRetention() }
