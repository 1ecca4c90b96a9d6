package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/version"
)

// Groups of commands in the help.
const (
	groupStart   = "start"
	groupObjects = "objects"
	groupChange  = "change"
	groupWatch   = "watch"
	groupBackup  = "backup"
	groupRun     = "run"
	groupMore    = "more"
)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "quorate",
		Short: "Run, watch and change fleets of etcd clusters",
		Long: `Quorate runs etcd clusters and looks after them: you declare a cluster in a file,
and quorate starts real etcd processes with TLS, keeps them running, and changes
them one member at a time.

Begin with "quorate up": it runs a cluster of three members on this machine and
prints what to try next.`,
		Example: `  quorate up
  quorate etcdctl -c playground put hello world
  quorate get clusters`,
		Version:                    version.Version(),
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       runGroup,
	}
	root.SetVersionTemplate("quorate {{.Version}}\n")
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef(cmd, "%s", flagErrorText(cmd, err))
	})
	e.bind(root)
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start here:"},
		&cobra.Group{ID: groupObjects, Title: "Read and write objects:"},
		&cobra.Group{ID: groupChange, Title: "Change a cluster:"},
		&cobra.Group{ID: groupWatch, Title: "See what happens:"},
		&cobra.Group{ID: groupBackup, Title: "Back up and restore:"},
		&cobra.Group{ID: groupRun, Title: "Run the parts by themselves:"},
		&cobra.Group{ID: groupMore, Title: "More:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupStart, upCommand(e), downCommand(e), statusCommand(e), consoleCommand(e), importCommand(e), etcdctlCommand(e))
	add(groupObjects, getCommand(e), describeCommand(e), applyCommand(e), diffCommand(e), editCommand(e),
		labelCommand(e), deleteCommand(e), explainCommand(e))
	add(groupChange, planCommand(e), placeCommand(e), suspendCommand(e), resumeCommand(e), restartCommand(e), certCommand(e), hostCommand(e))
	add(groupWatch, waitCommand(e), logsCommand(e), eventsCommand(e), doctorCommand(e), checkCommand(e), benchCommand(e), chaosCommand(e))
	add(groupBackup, backupCommand(e), restoreCommand(e), snapshotCommand(e))
	add(groupRun, serverCommand(e), agentCommand(e), discoveryCommand(e), dnsCommand(e), releaseCommand(e), renderCommand(e))
	add(groupMore, etcdutlCommand(e), versionCommand(e))
	root.SetHelpCommand(helpCommand(root))
	root.SetHelpCommandGroupID(groupMore)
	root.SetCompletionCommandGroupID(groupMore)
	root.AddCommand(memberCommand(e), &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesText})
	completionExamples(root)
	return root
}

// completionExamples adds to the commands that cobra makes what all others have.
func completionExamples(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = "  quorate completion bash > quorate.bash"
		for _, shell := range c.Commands() {
			shell.Example = "  quorate completion " + shell.Name() + " > quorate." + shell.Name()
		}
	}
}

var flagName = regexp.MustCompile(`--([a-z][a-z-]*)" flag`)

// flagErrorText says what a flag wants rather than how its parser failed.
func flagErrorText(cmd *cobra.Command, err error) string {
	var invalid interface {
		error
		GetValue() string
	}
	name := flagName.FindStringSubmatch(err.Error())
	if !errors.As(err, &invalid) || name == nil {
		return err.Error()
	}
	flag := cmd.Flag(name[1])
	if flag == nil {
		return err.Error()
	}
	var want string
	switch flag.Value.Type() {
	case "int":
		want = "a whole number"
	case "float64":
		want = "a number"
	case "uint64":
		want = "a whole number of 0 or more"
	case "duration":
		want = "a duration such as 30s"
	case "bool":
		want = "true or false"
	case "size":
		want = "a number of bytes such as 50MiB"
	case "time":
		want = "a time such as 36h, 14d or 8w"
	default:
		return err.Error()
	}
	return fmt.Sprintf("--%s is %q: give %s", flag.Name, invalid.GetValue(), want)
}

// helpCommand is cobra's, save that an unknown command is an error.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		Long:  "Show the help of a command: the same as its --help.",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(cmd, rest[0])
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, noFiles
			}
			var names []string
			for _, c := range cmd.Commands() {
				if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, noFiles
		},
	}
}

// runGroup is a command that only has others below it.
func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(cmd *cobra.Command, name string) error {
	near := ""
	if names := cmd.SuggestionsFor(name); len(names) > 0 {
		near = ": did you mean " + strings.Join(names, " or ") + "?"
	}
	return usagef(cmd, "there is no command %q%s", cmd.CommandPath()+" "+name, near)
}

// argsBetween checks the number of arguments; what names those that are wanted.
func argsBetween(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(cmd, "%s is missing", what)
		case most >= 0 && len(args) > most && most == 0:
			if cmd.HasSubCommands() {
				return unknownCommand(cmd, args[0])
			}
			return usagef(cmd, "%s takes no arguments, and %q was given", cmd.CommandPath(), args[0])
		case most >= 0 && len(args) > most:
			return usagef(cmd, "%q is one argument too many: %s takes %s", args[most], cmd.CommandPath(), what)
		}
		return nil
	}
}

var noArgs = argsBetween(0, 0, "")
