package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/keten-ledger/keten/internal/devstack"
	"github.com/keten-ledger/keten/internal/kafkatest"
)

// A need is something the tests run that may be missing.
type need struct {
	what    string
	present func(context.Context) bool
	// debian are the packages that bring it, the first that exists counts.
	debian []string
	brew   string
	// fetched needs come by themselves where they cannot be installed.
	fetched bool
}

func needs() []need {
	return []need{
		{what: "Java 17 or newer", present: kafkatest.HaveJava, debian: []string{"openjdk-17-jre-headless", "default-jre-headless"}, brew: "openjdk"},
		{what: "Maven", present: haveMaven, debian: []string{"maven"}, brew: "maven"},
		{what: "PostgreSQL", present: devstack.HavePostgres, debian: []string{"postgresql"}, brew: "postgresql@17", fetched: true},
		{what: "openssl", present: haveOpenSSL, debian: []string{"openssl"}, brew: "openssl"},
	}
}

// haveMaven is also true when what Maven is for is here already.
func haveMaven(context.Context) bool { return kafkatest.Fetched() || onPath("mvn") }

func haveOpenSSL(context.Context) bool { return onPath("openssl") }

func onPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// provide sees to it that all needs are met: installs what is missing as root
// on Debian and Ubuntu, else names the command that would.
func provide(ctx context.Context, stderr io.Writer) error {
	missing := missingOf(ctx, needs())
	if len(missing) == 0 {
		return nil
	}
	if !onPath("apt-get") || os.Geteuid() != 0 {
		return advise(missing)
	}
	_, _ = fmt.Fprintf(stderr, "teststack: installing what is missing: %s\n", names(missing))
	if err := apt(ctx, stderr, "update"); err != nil {
		return err
	}
	if err := apt(ctx, stderr, append([]string{"install", "-y", "--no-install-recommends"}, available(ctx, missing)...)...); err != nil {
		return err
	}
	if still := missingOf(ctx, missing); len(still) > 0 {
		return fmt.Errorf("still missing after the installation: %s", names(still))
	}
	return nil
}

// advise names the command for what is missing and does not come by itself, if
// there is such a thing.
func advise(missing []need) error {
	missing = slices.DeleteFunc(missing, func(n need) bool { return n.fetched })
	if len(missing) == 0 {
		return nil
	}
	how := "the package manager of this system"
	switch {
	case onPath("apt-get"):
		how = "sudo apt-get update && sudo apt-get install -y " + each(missing, func(n need) string { return n.debian[0] })
	case runtime.GOOS == "darwin":
		how = "brew install " + each(missing, func(n need) string { return n.brew })
	}
	return fmt.Errorf("missing: %s; install with: %s", names(missing), how)
}

func each(ns []need, word func(need) string) string {
	var out []string
	for _, n := range ns {
		out = append(out, word(n))
	}
	return strings.Join(out, " ")
}

func missingOf(ctx context.Context, all []need) (missing []need) {
	for _, n := range all {
		if !n.present(ctx) {
			missing = append(missing, n)
		}
	}
	return missing
}

func names(ns []need) string {
	var out []string
	for _, n := range ns {
		out = append(out, n.what)
	}
	return strings.Join(out, ", ")
}

// available chooses, per need, the first package this release has.
func available(ctx context.Context, ns []need) (out []string) {
	for _, n := range ns {
		chosen := n.debian[len(n.debian)-1]
		for _, pkg := range n.debian {
			if exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", pkg).Run() == nil {
				chosen = pkg
				break
			}
		}
		out = append(out, chosen)
	}
	return out
}

func apt(ctx context.Context, stderr io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	// Its progress is for people; stdout belongs to the command that follows.
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("run apt-get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
