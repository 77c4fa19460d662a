package kafkatest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/keten-ledger/keten/internal/devstack/child"
)

// Version is the Apache Kafka that is run.
const Version = "4.3.1"

const (
	oldestJava = 17
	// fetchWait bounds the one download of about 45 MB.
	fetchWait = 10 * time.Minute
	lockRetry = 200 * time.Millisecond
)

//go:embed pom.xml
var pom []byte

// ErrMissing says that Java or Maven is not on this machine; the message holds
// the command that installs them.
var ErrMissing = errors.New("missing program")

// Jars returns the folder of Kafka's jars and the java to run them with. The
// jars are fetched by the first process that asks; others wait for it.
func Jars(ctx context.Context) (dir, java string, err error) {
	java, err = findJava(ctx)
	if err != nil {
		return "", "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("find cache folder: %w", err)
	}
	dir = jarsDir(cache)
	if fetched(dir) {
		return dir, java, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", "", fmt.Errorf("create cache folder: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchWait, fmt.Errorf("not fetched within %s", fetchWait))
	defer cancel()
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return "", "", fmt.Errorf("wait for another process that fetches Kafka: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if fetched(dir) {
		return dir, java, nil
	}
	return dir, java, fetch(ctx, dir)
}

// fetched is safe without the lock: the folder appears under its name only when
// complete.
func fetched(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

func fetch(ctx context.Context, dir string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: mvn (Maven), needed once to fetch Apache Kafka; install it with: %s", ErrMissing, installCommand("maven"))
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "kafka-fetch-")
	if err != nil {
		return fmt.Errorf("create folder for jars: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	pomPath, libs := filepath.Join(tmp, "pom.xml"), filepath.Join(tmp, "libs")
	if err := os.WriteFile(pomPath, pom, 0o600); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	out, err := child.Run(ctx, child.Config{
		Path: mvn, Dir: tmp, Env: os.Environ(),
		Args: []string{"-B", "-q", "-f", pomPath, "dependency:copy-dependencies", "-Dkafka.version=" + Version, "-DoutputDirectory=" + libs},
	})
	if err != nil {
		return fmt.Errorf("fetch Apache Kafka %s with Maven: %w: %s", Version, err, strings.TrimSpace(string(out)))
	}
	if _, err := os.Stat(filepath.Join(libs, "kafka_2.13-"+Version+".jar")); err != nil {
		return fmt.Errorf("fetch Apache Kafka %s with Maven: it left no jar: %w", Version, err)
	}
	if err := os.Rename(libs, dir); err != nil {
		return fmt.Errorf("put jars in place: %w", err)
	}
	return nil
}

var javaVersion = regexp.MustCompile(`version "(\d+)`)

func findJava(ctx context.Context) (string, error) {
	missing := fmt.Errorf("%w: java %d or newer, needed to run Apache Kafka; install it with: %s",
		ErrMissing, oldestJava, installCommand("openjdk-17-jre-headless"))
	java := ""
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	} else if path, err := exec.LookPath("java"); err == nil {
		java = path
	}
	if java == "" {
		return "", missing
	}
	out, err := child.Run(ctx, child.Config{Path: java, Args: []string{"-version"}, Env: os.Environ()})
	if err != nil {
		return "", fmt.Errorf("%w (%s does not run: %w)", missing, java, err)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%w (%s tells no version)", missing, java)
	}
	if major, err := strconv.Atoi(string(m[1])); err != nil || major < oldestJava {
		return "", fmt.Errorf("%w (%s is version %s)", missing, java, m[1])
	}
	return java, nil
}

func installCommand(debianPackage string) string {
	if _, err := exec.LookPath("apt-get"); err == nil {
		return "apt-get update && apt-get install -y " + debianPackage
	}
	if _, err := exec.LookPath("brew"); err == nil {
		return "brew install openjdk maven"
	}
	return "your package manager (on Debian and Ubuntu: apt-get install -y " + debianPackage + ")"
}

// HaveJava tells whether a Java that runs Kafka is here.
func HaveJava(ctx context.Context) bool {
	_, err := findJava(ctx)
	return err == nil
}

// Fetched tells whether Kafka's jars are here, so that Maven is not needed.
func Fetched() bool {
	cache, err := os.UserCacheDir()
	return err == nil && fetched(jarsDir(cache))
}

func jarsDir(cache string) string { return filepath.Join(cache, "keten", "kafka-"+Version) }
