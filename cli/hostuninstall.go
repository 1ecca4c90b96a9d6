package cli

import (
	"context"
	"fmt"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/store/remote"
)

// hostUninstall takes the agent off the machine that a host was added from. It is done
// before the host is forgotten, so that it can be repeated.
func (e *env) hostUninstall(ctx context.Context, c *remote.Client, host *v1alpha1.EtcdHost, o hostSSHOptions, dryRun bool) error {
	written := host.Annotations[v1alpha1.AnnotationSSHTarget]
	if written == "" {
		return fmt.Errorf("host/%s was not added by SSH, so that nothing says where its machine is reached: leave --uninstall out, and remove the agent there by hand", host.Name)
	}
	opts := o.options()
	var err error
	if opts.Target, err = install.ParseTarget(written, sshUser()); err != nil {
		return fmt.Errorf("host/%s: annotation %s: %w", host.Name, v1alpha1.AnnotationSSHTarget, err)
	}
	p := newProgress(e)
	opts.Name, opts.Fleet, opts.DryRun = host.Name, c, dryRun
	opts.Progress = func(at install.Progress) { p.step(host.Name + ": " + at.Step + ": " + at.Text) }
	r, err := install.Uninstall(ctx, opts)
	p.done()
	if err != nil {
		return fmt.Errorf("host/%s was not removed: %w", host.Name, err)
	}
	r.Host = host.Name
	return e.printHostResults([]install.Result{r}, outTable)
}
