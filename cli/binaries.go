package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

// Names under which the binary is another program.
const (
	nameEtcd    = "etcd"
	nameEtcdctl = "etcdctl"
	nameEtcdutl = "etcdutl"
)

// runAs is the program that args[0] names, if that is one of etcd's; false
// otherwise. Those programs end the process themselves when they fail.
func runAs(args []string) (code int, ok bool) {
	switch filepath.Base(args[0]) {
	case nameEtcd:
		etcdmain.Main(args)
	case nameEtcdctl:
		ctlv3.MustStart()
	case nameEtcdutl:
		return runEtcdutl(args), true
	default:
		// etcdctl's package turns this on for the whole process: a prefix of a command
		// is not that command here.
		cobra.EnablePrefixMatching = false
		cobra.EnableCommandSorting = false
		return 0, false
	}
	return exitOK, true
}

// runEtcdutl is etcdutl's own main, whose package can't be imported.
func runEtcdutl(args []string) int {
	root := &cobra.Command{
		Use: nameEtcdutl, Short: "An administrative command line tool for etcd3.",
	}
	flags := root.PersistentFlags()
	flags.DurationVar(&etcdutl.FlockTimeout, "timeout", 10*time.Second, "time to wait to obtain a file lock on db file, 0 to block indefinitely")
	flags.StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "set the output format (fields, json, protobuf, simple, table)")
	root.AddCommand(
		etcdutl.NewDefragCommand(), etcdutl.NewSnapshotCommand(), etcdutl.NewHashKVCommand(),
		etcdutl.NewVersionCommand(), etcdutl.NewCompletionCommand(), etcdutl.NewMigrateCommand(),
	)
	root.SetHelpTemplate(`{{.UsageString}}`)
	root.SetArgs(args[1:])
	if err := root.Execute(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "Error:", err) // there is nowhere else to say it
		return exitFailed
	}
	return exitOK
}
