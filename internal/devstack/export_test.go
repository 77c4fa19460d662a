//go:build unix

package devstack

import "context"

// ApplyRetention runs the broker's janitor now instead of within the hour.
func (b *Broker) ApplyRetention() { b.cluster.ApplyRetention() }

// PID is the server's process.
func (p *Postgres) PID() int { return p.proc.PID() }

// ServersOf lists the PostgreSQL processes working in the data folder.
func ServersOf(dataDir string) []int { return serversOf(dataDir) }

// Fetch fetches binaries although the machine may have some.
func Fetch(ctx context.Context, cfg PostgresConfig) (string, error) {
	user, err := serverUser()
	if err != nil {
		return "", err
	}
	return fetch(ctx, cfg, user)
}
