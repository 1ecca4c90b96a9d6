// Command quorate runs, watches and changes fleets of etcd clusters.
package main

import (
	"context"
	"os"

	"github.com/quorate/quorate/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args, cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
