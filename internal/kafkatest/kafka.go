package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

const (
	defaultHeapMB = 512
	// readyWait covers the start of a JVM on a busy machine.
	readyWait = 2 * time.Minute
	readyPoll = 50 * time.Millisecond
	// answerWait bounds one question to a server that may be half up.
	answerWait = 2 * time.Second
	// stopWait is how long a controlled shutdown may take, killWait the time
	// for the kernel.
	stopWait = 30 * time.Second
	killWait = 10 * time.Second
	// portTries bounds how often another program may take a port between our
	// finding it free and Kafka's binding it.
	portTries = 3
	// clusterID is any 16 bytes in unpadded base64; fixed, because nothing is
	// gained by a new one.
	clusterID = "a2V0ZW4tdGVzdC1jbHVzdA"
	// lastWords is how many bytes of Kafka's log an error message shows.
	lastWords = 2000
)

// Config says where a Kafka keeps its data.
type Config struct {
	// Dir is the folder of data and log, created when missing. A Kafka started
	// on the folder of an earlier one goes on with its data. Required.
	Dir string
	// Logger is required.
	Logger *slog.Logger
	// HeapMB is the size of the Java heap in MiB; 0 means 512.
	HeapMB int
	// Properties are added to the server's, replacing those of the same name.
	Properties map[string]string
}

// Kafka is one broker that is its own controller. Its methods are not safe for
// concurrent use, except Brokers. It ends with this process at the latest.
type Kafka struct {
	cfg     Config
	java    string
	jars    string
	port    int // of clients
	control int // of the controller
	proc    *child.Process
	// hold keeps the lock on a shared folder reachable: one that is collected
	// as garbage lets a neighbor sweep the folder away.
	hold func() error
}

// Start starts a Kafka and returns when it serves. [ErrMissing] tells what to
// install.
func Start(ctx context.Context, cfg Config) (*Kafka, error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, errors.New("start kafka: Dir and Logger are required")
	}
	if cfg.HeapMB == 0 {
		cfg.HeapMB = defaultHeapMB
	}
	k, err := start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	return k, nil
}

func start(ctx context.Context, cfg Config) (k *Kafka, err error) {
	k = &Kafka{cfg: cfg}
	if k.jars, k.java, err = Jars(ctx); err != nil {
		return nil, err
	}
	if k.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("find folder: %w", err)
	}
	if err := os.MkdirAll(k.cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	for try := 1; ; try++ {
		if k.port, k.control, err = freePorts(); err != nil {
			return nil, err
		}
		if err = k.up(ctx); err == nil {
			return k, nil
		}
		if try == portTries || ctx.Err() != nil || !bytes.Contains(k.log(), []byte("Address already in use")) {
			return nil, err
		}
	}
}

// up formats the data if there is none and starts the server on the ports that
// are set.
func (k *Kafka) up(ctx context.Context) error {
	if err := os.WriteFile(k.path("server.properties"), []byte(k.properties()), 0o600); err != nil {
		return fmt.Errorf("write properties: %w", err)
	}
	if _, err := os.Stat(k.path("data/meta.properties")); err != nil {
		out, err := child.Run(ctx, k.command("kafka.tools.StorageTool", "format", "-t", clusterID, "-c", k.path("server.properties")))
		if err != nil {
			return fmt.Errorf("format data: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	return k.launch(ctx)
}

func (k *Kafka) launch(ctx context.Context) error {
	out, err := os.OpenFile(k.path("kafka.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := k.command("kafka.Kafka", k.path("server.properties"))
	cmd.Output, cmd.OnDeath = out, syscall.SIGKILL
	if k.proc, err = child.Start(ctx, cmd); err != nil {
		return err
	}
	begin := time.Now()
	if err := k.becomeReady(ctx); err != nil {
		return errors.Join(err, k.end(context.WithoutCancel(ctx), kill()))
	}
	k.cfg.Logger.InfoContext(ctx, "kafka is ready", slog.String("version", Version), slog.String("addr", k.addr()),
		slog.String("dir", k.cfg.Dir), slog.Int("pid", k.proc.PID()), slog.Duration("after", time.Since(begin)))
	return nil
}

// becomeReady asks for the members of the cluster until the broker is one: it
// accepts connections well before it would create a topic.
func (k *Kafka) becomeReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("kafka is not ready after %s", readyWait))
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		if k.answers(ctx) {
			return nil
		}
		select {
		case <-tick.C:
		case <-k.proc.Done():
			return fmt.Errorf("kafka ended while starting (%w): %s", orClean(k.proc.Err()), k.log())
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), k.log())
		}
	}
}

// answers asks once, with a client of its own: one that met a closed port backs
// off for seconds.
func (k *Kafka) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", k.addr())
	if err != nil {
		return false
	}
	_ = conn.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr()), kgo.RequestRetries(0))
	if err != nil {
		return false
	}
	defer client.Close()
	meta, err := kadm.NewClient(client).BrokerMetadata(ctx)
	return err == nil && len(meta.Brokers) > 0 && meta.Controller >= 0
}

func orClean(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

func (k *Kafka) command(class string, args ...string) child.Config {
	heap := strconv.Itoa(k.cfg.HeapMB)
	jvm := []string{
		"-Xms" + heap + "m", "-Xmx" + heap + "m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dlog4j2.StatusLogger.level=OFF",
		"-cp", k.jars + "/*", class,
	}
	return child.Config{Path: k.java, Args: append(jvm, args...), Env: os.Environ(), Dir: k.cfg.Dir}
}

// properties are those of a small single node; what is durable is as in
// production, where Kafka does not sync each batch either.
func (k *Kafka) properties() string {
	controller := loopback(k.control)
	props := map[string]string{
		"process.roles": "broker,controller", "node.id": "1",
		"controller.quorum.voters": "1@" + controller, "controller.listener.names": "CONTROLLER",
		"listeners":                                        "PLAINTEXT://" + k.addr() + ",CONTROLLER://" + controller,
		"advertised.listeners":                             "PLAINTEXT://" + k.addr(),
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                         k.path("data"),
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       "1",
		"min.insync.replicas":                              "1",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "4",
		// Production waits for a fleet to assemble; a test is complete at once.
		"group.initial.rebalance.delay.ms": "0",
		// A broker that comes back after kill -9 is let in when its earlier
		// session has run out.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
		"num.network.threads":          "2",
		"num.io.threads":               "4",
	}
	maps.Copy(props, k.cfg.Properties)
	var b strings.Builder
	for name, value := range props {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(value, `\`, `\\`))
	}
	return b.String()
}

// Brokers returns the bootstrap addresses, which stay the same over Restart.
func (k *Kafka) Brokers() []string { return []string{k.addr()} }

// PID returns the process id of the running server.
func (k *Kafka) PID() int { return k.proc.PID() }

// Stop is the controlled shutdown; one that takes more than half a minute is cut
// short.
func (k *Kafka) Stop() error {
	return k.end(context.Background(), controlled(), kill()) //nolint:forbidigo // bounded; servers are ended in cleanups, after the test's context
}

// Kill is kill -9.
func (k *Kafka) Kill() error {
	return k.end(context.Background(), kill()) //nolint:forbidigo // as in Stop
}

func controlled() child.Step { return child.Step{Signal: syscall.SIGTERM, Wait: stopWait} }

func kill() child.Step { return child.Step{Signal: syscall.SIGKILL, Wait: killWait} }

func (k *Kafka) end(ctx context.Context, steps ...child.Step) error {
	if err := k.proc.Stop(ctx, steps...); err != nil {
		return fmt.Errorf("end kafka: %w", err)
	}
	return nil
}

// Restart starts the server again on the same data and ports, after Stop or
// Kill, or ends a running one first.
func (k *Kafka) Restart(ctx context.Context) error {
	if err := k.end(ctx, controlled(), kill()); err != nil {
		return err
	}
	if err := k.launch(ctx); err != nil {
		return fmt.Errorf("restart kafka: %w", err)
	}
	return nil
}

func (k *Kafka) path(name string) string { return filepath.Join(k.cfg.Dir, name) }

func (k *Kafka) addr() string { return loopback(k.port) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// log returns the end of what Kafka wrote.
func (k *Kafka) log() []byte {
	raw, err := os.ReadFile(k.path("kafka.log"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(raw[max(0, len(raw)-lastWords):])
}

// freePorts finds two ports that are free now.
func freePorts() (port, control int, err error) {
	var found [2]int
	for i := range found {
		ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return 0, 0, fmt.Errorf("find a free port: %w", err)
		}
		// Held until both are found, so that they differ.
		defer func() { _ = ln.Close() }()
		addr, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			return 0, 0, fmt.Errorf("find a free port: unexpected address %v", ln.Addr())
		}
		found[i] = addr.Port
	}
	return found[0], found[1], nil
}
