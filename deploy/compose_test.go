// Package deploy_test checks the Docker files of the project without Docker.
package deploy_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keten-ledger/keten/internal/kafkatest"
)

// composeFile is the part of docker-compose.yml that is checked here.
type composeFile struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Build       struct{ Context, Dockerfile string }
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Healthcheck struct {
		Test    []string
		Disable bool
	}
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	raw, err := os.ReadFile("../docker-compose.yml")
	require.NoError(t, err)
	var file composeFile
	require.NoError(t, yaml.Unmarshal(raw, &file))
	return file
}

// Nobody is authenticated, so a port on all interfaces would let anybody on the
// network run commands.
func TestComposePublishesOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for name, s := range readCompose(t).Services {
		for _, port := range s.Ports {
			require.Truef(t, strings.HasPrefix(port, "127.0.0.1:"), "%s publishes %s", name, port)
		}
	}
}

// An image that moves under its name is another stack tomorrow.
func TestComposePinsImages(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[a-z/]+:[0-9]+(\.[0-9]+)*$`)
	services := readCompose(t).Services
	for name, s := range services {
		if s.Build.Dockerfile == "" {
			require.Regexp(t, pinned, s.Image, name)
		}
	}
	require.Equal(t, "apache/kafka:"+kafkatest.Version, services["kafka"].Image, "the tests run another Kafka")
}

func TestDockerfileFollowsGoMod(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindSubmatch(mod)
	require.Contains(t, string(dockerfile), "FROM golang:"+string(version[1])+" AS build")
	require.NotContains(t, string(dockerfile), ":latest")
}

// The image holds what the binary is built from and nothing that happens to lie
// around; a package that the build context leaves out breaks it.
func TestBuildContextHoldsTheModule(t *testing.T) {
	t.Parallel()
	ignore, err := os.ReadFile("Dockerfile.dockerignore")
	require.NoError(t, err)
	lines := strings.Split(string(ignore), "\n")
	require.Contains(t, lines, "*")
	out := goCommand(t, "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", "./cmd/keten")
	for path := range strings.FieldsSeq(out) {
		dir, _, _ := strings.Cut(strings.TrimPrefix(path, "github.com/keten-ledger/keten/"), "/")
		require.Contains(t, lines, "!"+dir)
	}
}

// What the broker and the database hold outlives their containers.
func TestComposeKeepsData(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	kafka, postgres := file.Services["kafka"], file.Services["postgres"]
	require.Contains(t, kafka.Volumes, "kafka:/var/lib/kafka/data")
	require.True(t, strings.HasPrefix(kafka.Environment["KAFKA_LOG_DIRS"], "/var/lib/kafka/data/"))
	require.Contains(t, postgres.Volumes, "postgres:/var/lib/postgresql/data")
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(from, ".") {
				require.Contains(t, file.Volumes, from, name)
			}
		}
	}
}

// One broker cannot keep three copies of Kafka's own topics: without these it
// starts, and no consumer group ever works.
func TestComposeKafkaIsOneNode(t *testing.T) {
	t.Parallel()
	env := readCompose(t).Services["kafka"].Environment
	require.Equal(t, "broker,controller", env["KAFKA_PROCESS_ROLES"])
	for _, topic := range []string{"OFFSETS_TOPIC", "TRANSACTION_STATE_LOG", "SHARE_COORDINATOR_STATE_TOPIC"} {
		require.Equal(t, "1", env["KAFKA_"+topic+"_REPLICATION_FACTOR"], topic)
	}
	require.Equal(t, "false", env["KAFKA_AUTO_CREATE_TOPICS_ENABLE"])
	for listener := range strings.SplitSeq(env["KAFKA_ADVERTISED_LISTENERS"], ",") {
		name, _, _ := strings.Cut(listener, ":")
		require.Contains(t, env["KAFKA_LISTENERS"], name+":")
		require.Contains(t, env["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"], name+":")
	}
}

// Roles start on an initialized ledger, and that on servers that answer.
func TestComposeStartsInOrder(t *testing.T) {
	t.Parallel()
	services := readCompose(t).Services
	for _, name := range []string{"kafka", "postgres"} {
		require.NotEmpty(t, services[name].Healthcheck.Test, name)
		require.Equal(t, "service_healthy", services["init"].DependsOn[name].Condition, name)
	}
	for _, name := range []string{"api", "executor", "projector"} {
		s := services[name]
		require.Equal(t, "service_completed_successfully", s.DependsOn["init"].Condition, name)
		require.NotEmpty(t, s.Healthcheck.Test, name)
		at := slices.Index(s.Command, "--roles")
		require.GreaterOrEqual(t, at, 0, name)
		require.Equal(t, name, s.Command[at+1], "one service per role")
	}
}

// A flag that the program does not have would only be found by starting it.
func TestComposeUsesFlagsThatExist(t *testing.T) {
	t.Parallel()
	catalog, err := os.ReadFile("../examples/certificates/catalog.yaml")
	require.NoError(t, err)
	for name, s := range readCompose(t).Services {
		if s.Build.Dockerfile == "" {
			continue
		}
		help := goCommand(t, "run", "./cmd/keten", s.Command[0], "--help")
		for _, word := range s.Command[1:] {
			if strings.HasPrefix(word, "--") {
				require.Contains(t, help, word+" ", name)
			}
		}
		for variable := range s.Environment {
			if strings.Contains(string(catalog), variable) {
				continue // for the example's commands
			}
			flag := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "KETEN_")), "_", "-")
			require.Contains(t, help, "--"+flag+" ", name)
		}
	}
}

// goCommand runs the go command at the top of the module and returns what it
// prints.
func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}
