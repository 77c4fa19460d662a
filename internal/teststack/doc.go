// Command teststack runs a command with a real Apache Kafka and a real
// PostgreSQL beside it:
//
//	go run ./internal/teststack -- go test ./...
//
// It exports KETEN_TEST_BROKERS and KETEN_TEST_DATABASE_URL, which internal/
// kafkatest and internal/pgtest take, so that many test processes share one of
// each. What is missing on the machine (Java, Maven, PostgreSQL, openssl) is
// installed where that is allowed, which is for root on Debian and Ubuntu;
// elsewhere the command that installs it is named. The exit code is the
// command's, and 1 when the servers could not be had.
package main
