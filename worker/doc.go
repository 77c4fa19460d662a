// Package worker makes an executor for Go handlers out of a program of one's own:
//
//	func main() {
//		registry := executor.NewRegistry()
//		executor.Handle(registry, "greeting.write", write)
//		if err := worker.Main(context.Background(), os.Args[1:], registry); err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//	}
//
// [Main] takes its configuration from flags and KETEN_* variables and ends on
// SIGINT or SIGTERM; [Run] takes a [Config]. Either joins the other executors of
// its queues. Those share the tasks of a queue whatever types they know, so the
// task types of a program go to a queue of their own, which only its processes
// serve.
//
// The package must not know PostgreSQL, the API or the catalog: an executor needs
// Kafka alone.
package worker
