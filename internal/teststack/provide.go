package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
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
}

func needs() []need {
	return []need{
		{"Java 17 or newer", kafkatest.HaveJava, []string{"openjdk-17-jre-headless", "default-jre-headless"}, "openjdk"},
		{"Maven", func(context.Context) bool { return kafkatest.Fetched() || onPath("mvn") }, []string{"maven"}, "maven"},
		{"PostgreSQL", devstack.HavePostgres, []string{"postgresql"}, "postgresql@17"},
		{"openssl", func(context.Context) bool { return onPath("openssl") }, []string{"openssl"}, "openssl"},
	}
}

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
	if !onPath("apt-get") {
		return fmt.Errorf("missing: %s; install with: %s", names(missing), elsewhere(missing))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s; install with: sudo apt-get update && sudo apt-get install -y %s",
			names(missing), strings.Join(firstPackages(missing), " "))
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

func firstPackages(ns []need) (out []string) {
	for _, n := range ns {
		out = append(out, n.debian[0])
	}
	return out
}

// available chooses, per need, the first package this release has.
func available(ctx context.Context, ns []need) (out []string) {
	for _, n := range ns {
		chosen := n.debian[len(n.debian)-1]
		for _, pkg := range n.debian {
			//nolint:gosec // the names are constants of this file
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
	cmd := exec.CommandContext(ctx, "apt-get", args...) //nolint:gosec // the arguments are constants of this file
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

func elsewhere(ns []need) string {
	var out []string
	for _, n := range ns {
		out = append(out, n.brew)
	}
	if runtime.GOOS == "darwin" {
		return "brew install " + strings.Join(out, " ")
	}
	return "the package manager of this system"
}
