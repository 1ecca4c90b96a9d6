package cli

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/app"
)

func downCommand(e *env) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop what a stuck or killed quorate up has left running",
		Long: `End the "quorate up" of a data directory, if it still runs, and stop every member
that lies below the directory. Data is kept, unless it was an ephemeral one.`,
		Example: `  quorate down
  quorate down --dry-run
  quorate --data-dir ./etcd-data down`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.down(cmd.Context(), dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be stopped")
	return cmd
}

func (e *env) down(ctx context.Context, dryRun bool) error {
	log, err := e.logger(slog.LevelError, e.Err)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(e.home())
	if err != nil {
		return err
	}
	return app.Down(ctx, app.DownOptions{
		DataDir: dir, DryRun: dryRun, Logger: log,
		Progress: func(text string) { e.printf("%s\n", text) },
	})
}
