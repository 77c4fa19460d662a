package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/keten-ledger/keten/internal/devstack"
)

const (
	demoTemplate = "request-certificate"
	demoStateVar = "KETEN_CERT_STATE" // where the example's scripts keep keys and certificates
	demoTimeout  = 3 * time.Minute    // for each of the two waits
	demoEvery    = 50 * time.Millisecond
)

// demoConfig is how the story is told: on an own stack, or on given services.
type demoConfig struct {
	serverConfig
	example string // folder of examples/certificates
	exit    bool   // end when the story is over
}

func newDemo(std stdio) *cobra.Command {
	var cfg demoConfig
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Tell the whole story once: real certificates, one failure, one retry",
		Long: `Start everything, request certificates for several domains, see one fail at its
proof, put the cause right, retry that collection, and see it succeed with the
same task ids. Without --kafka-brokers it brings its own broker and PostgreSQL.
The API stays up until Ctrl-C, with --exit it doesn't.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := newLogger(std, cfg.logLevel, cfg.logFormat)
			if err != nil {
				return err
			}
			cfg.own = !cmd.Flags().Changed("kafka-brokers")
			return runDemo(cmd.Context(), std, cfg, logger)
		},
	}
	cfg.addLedgerFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&cfg.example, "example", "examples/certificates", "folder of the example")
	f.StringVar(&cfg.httpAddr, "http-addr", "127.0.0.1:0", "address of the API; the default takes a free port")
	f.BoolVar(&cfg.exit, "exit", false, "end when the story is over, with an exit code other than 0 if anything went wrong")
	f.Lookup("log-level").DefValue = "warn"
	_ = f.Set("log-level", "warn") // known flag, known value
	f.Lookup("log-level").Changed = false
	return cmd
}

func runDemo(ctx context.Context, std stdio, cfg demoConfig, logger *slog.Logger) error {
	if _, err := exec.LookPath("openssl"); err != nil {
		return exitWith(exitUsage, errors.New("the example needs openssl; on Debian or Ubuntu: apt-get install openssl"))
	}
	dir, remove, err := devstack.Scratch("keten-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = remove() }() // a folder of its own in the place for temporary files
	state := filepath.Join(dir, "certificates")
	if err := os.Setenv(demoStateVar, state); err != nil {
		return fmt.Errorf("set %s: %w", demoStateVar, err)
	}
	cfg.roles, cfg.catalogPath, cfg.slots, cfg.allowSingleReplica = allRoles(), filepath.Join(cfg.example, "catalog.yaml"), 8, true
	cfg.partitions, cfg.shutdownGrace = devPartitions, 5*time.Second
	say := storyteller{std.out}
	say.line("1. Starting the parts.")
	var st *stack
	if cfg.own {
		if st, err = startStack(ctx, logger, dir, ""); err != nil {
			return err
		}
		defer st.stop(ctx, logger)
		cfg.serverConfig = st.configure(cfg.serverConfig)
		say.line("   Broker (embedded, single node) %s, PostgreSQL %s", st.broker.Addr(), st.postgres.URL())
	} else {
		say.line("   Kafka %s", strings.Join(cfg.brokers, ","))
	}
	if err := cfg.check(); err != nil {
		return err
	}
	if err := cfg.ensureOutcomeKey(dir); err != nil {
		return err
	}
	if _, err := initLedger(ctx, cfg.serverConfig, waiter{logger: logger}); err != nil {
		return err
	}
	s, err := newServer(ctx, cfg.serverConfig, logger, nil)
	if err != nil {
		return err
	}
	say.line("   API %s/v1/collections, docs %s/docs", s.url(), s.url())
	return playDemo(ctx, cfg, s, state, say)
}

// playDemo runs the server and the story beside it.
func playDemo(ctx context.Context, cfg demoConfig, s *server, state string, say storyteller) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return s.run(run) })
	g.Go(func() error {
		defer stop()
		c := &client{base: s.url(), output: "table"}
		if err := c.check(); err != nil {
			return err
		}
		d := &demo{cfg: cfg, client: c, state: state, say: say}
		if err := d.tell(run); err != nil {
			return err
		}
		if cfg.exit {
			return nil
		}
		say.line("\nThe API stays up at %s (docs: %s/docs). Try, from another terminal:\n   go run ./cmd/keten list --api %s\nCtrl-C ends it.", s.url(), s.url(), s.url())
		<-run.Done()
		return nil
	})
	return g.Wait()
}

type storyteller struct{ out io.Writer }

func (s storyteller) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

type demo struct {
	cfg    demoConfig
	client *client
	state  string
	say    storyteller
}

// tell is the story. Every step checks what it claims.
func (d *demo) tell(ctx context.Context) error {
	domains, err := readDomains(filepath.Join(d.cfg.example, "domains.txt"))
	if err != nil {
		return err
	}
	if err := d.script(ctx, "prepare.sh"); err != nil {
		return err
	}
	d.say.line("\n2. Requesting certificates for %d domains: key, CSR, proof of the domain, signature, installation.", len(domains))
	ids, err := d.startAll(ctx, domains)
	if err != nil {
		return err
	}
	before, err := d.followAll(ctx, ids)
	if err != nil {
		return err
	}
	failed, err := d.oneFailed(before)
	if err != nil {
		return err
	}
	d.say.line("\n3. One failed, at task %d (%s):\n   %s", failed.index+1, failed.task().Name, cleanText(failed.task().Error.Message))
	d.say.line("\n4. Putting the cause right: ./publish-challenge.sh %s", failed.domain)
	if err := d.script(ctx, "publish-challenge.sh", failed.domain); err != nil {
		return err
	}
	d.say.line("\n5. Retrying the collection from outside: POST /v1/collections/%s/retry", failed.ID)
	if _, _, err := d.client.retry(ctx, failed.ID, failed.Run, "the challenge is published now"); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	after, err := d.followAll(ctx, []string{failed.ID})
	if err != nil {
		return err
	}
	return d.compare(failed, after[0])
}

func readDomains(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the domains: %w", err)
	}
	defer f.Close()
	var domains []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := strings.TrimSpace(sc.Text()); line != "" && !strings.HasPrefix(line, "#") {
			domains = append(domains, line)
		}
	}
	return domains, nil
}

// script runs one of the example's scripts, as a person would.
func (d *demo) script(ctx context.Context, name string, args ...string) error {
	path, err := filepath.Abs(filepath.Join(d.cfg.example, name))
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = d.cfg.example
	cmd.Env = append(os.Environ(), demoStateVar+"="+d.state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, cleanText(string(out)))
	}
	return nil
}

func (d *demo) startAll(ctx context.Context, domains []string) ([]string, error) {
	var ids []string
	for _, domain := range domains {
		col, _, err := d.client.start(ctx, demoTemplate, "", map[string]any{
			"name": domain, "input": map[string]any{"domain": domain}, "labels": map[string]any{"domain": domain},
		})
		if err != nil {
			return nil, fmt.Errorf("request a certificate for %s: %w", domain, err)
		}
		ids = append(ids, col.ID)
	}
	return ids, nil
}

func (d *demo) followAll(ctx context.Context, ids []string) ([]collection, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	v := newLiveView(stdio{out: d.say.out}, "table")
	return d.client.follow(ctx, ids, demoEvery, v.show)
}

// failedCollection is the one that failed, and where.
type failedCollection struct {
	collection
	domain string
	index  int
}

func (f *failedCollection) task() task { return f.Tasks[f.index] }

// oneFailed expects exactly one failure, at the proof.
func (d *demo) oneFailed(cols []collection) (*failedCollection, error) {
	var failed []*failedCollection
	for _, c := range cols {
		if c.Status == "succeeded" {
			continue
		}
		f := &failedCollection{collection: c, domain: c.Labels["domain"], index: -1}
		for i, t := range c.Tasks {
			if t.Status == "failed" && f.index < 0 {
				f.index = i
			}
		}
		if f.index < 0 || f.task().Error == nil {
			return nil, fmt.Errorf("collection %s (%s) is %s without a failed task", c.ID, f.domain, c.Status)
		}
		failed = append(failed, f)
	}
	if len(failed) != 1 || failed[0].index != 2 {
		return nil, fmt.Errorf("expected one collection to fail at task 3, got %d failures", len(failed))
	}
	return failed[0], nil
}

// compare prints before and after side by side and checks the promise: the
// same ids, and only what did not succeed ran again.
func (d *demo) compare(before *failedCollection, after collection) error {
	d.say.line("\n6. %s: run 1 %s, run %d %s. The same task ids, and who ran how often:\n", before.domain, before.Status, after.Run, after.Status)
	t := newTable(d.say.out, "   #", "TASK", "ID BEFORE", "ID AFTER", "SAME", "ATTEMPTS", "STATUS")
	same := map[bool]string{true: "yes", false: "NO"}
	var errs []error
	for i, k := range after.Tasks {
		b := before.Tasks[i]
		row(t, fmt.Sprintf("   %d", i+1), k.Name, b.ID, k.ID, same[b.ID == k.ID], fmt.Sprintf("%d → %d", b.Attempts, k.Attempts), k.Status)
		want := 1
		if i == before.index {
			want = 2
		}
		if b.ID != k.ID || k.Status != "succeeded" || k.Attempts != want {
			errs = append(errs, fmt.Errorf("task %s: id %s → %s, %s with %d attempts, want %d", k.Name, b.ID, k.ID, k.Status, k.Attempts, want))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if after.Status != "succeeded" || after.Run != 2 {
		errs = append(errs, fmt.Errorf("collection %s: run %d %s", after.ID, after.Run, after.Status))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.say.line("\n   Installed: %s", cleanText(string(after.Tasks[len(after.Tasks)-1].Result)))
	return nil
}
