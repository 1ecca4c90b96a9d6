package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/store"
)

// policyFlags are those of `quorate backup run` that go with -f: a policy says the rest.
var policyFlags = []string{
	"filename", "once", "dry-run", "output", "spool-dir", "etcd", "endpoints", "cacert", "cert", "key", "user", "password-file", "name",
	"namespace", "data-dir", "log-level", "help",
}

// backupPolicyRun follows the policies of files.
func (e *env) backupPolicyRun(cmd *cobra.Command, o *runOptions) error {
	objects, err := e.policyObjects(cmd, o)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	p := newProgress(e)
	defer p.done()
	opts := app.BackupFileOptions{Objects: objects}
	if opts.Logger, err = e.logger(slog.LevelWarn, p); err != nil {
		return err
	}
	if opts.SpoolDir, err = e.spool(&o.store); err != nil {
		return err
	}
	if opts.Etcds, err = scratchEtcds(ctx, o.etcd); err != nil {
		return err
	}
	opts.Event = func(ev store.Event) { p.step(eventLine(&ev)) }
	if !o.once && !o.dryRun {
		opts.Event = e.printBackupEvent
	}
	f, err := app.OpenBackupFile(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // the locks go with the process, too
	if o.dryRun {
		return e.policyDryRun(ctx, f, p, o.output)
	}
	if err = f.Lock(); err != nil {
		return err
	}
	if o.once {
		return e.policyOnce(ctx, f, p, o.output)
	}
	return e.policyFollow(ctx, f)
}

// scratchEtcds are the etcds that backups are tried on: the one in this binary, and one
// that is named.
func scratchEtcds(ctx context.Context, path string) ([]backup.EtcdCommand, error) {
	own, err := scratchEtcd(ctx, "")
	if err != nil || path == "" {
		return []backup.EtcdCommand{own}, err
	}
	named, err := scratchEtcd(ctx, path)
	return []backup.EtcdCommand{named, own}, err
}

// policyObjects reads the files, and adds the cluster that flags name.
func (e *env) policyObjects(cmd *cobra.Command, o *runOptions) ([]v1alpha1.Object, error) {
	if err := checkPolicyFlags(cmd, o); err != nil {
		return nil, err
	}
	sources, err := e.readSources(cmd, o.files)
	if err != nil {
		return nil, err
	}
	objects := make([]v1alpha1.Object, 0, len(sources))
	for _, s := range sources {
		if c, ok := s.doc.Object.(*v1alpha1.EtcdCluster); ok && c.Spec.Import != nil && !says(s.doc.Raw, "spec", "replicas") {
			// As many as importing expects, so that nobody is told that others are missing.
			c.Spec.Replicas = int32(min(len(c.Spec.Import.Endpoints), 9))
		}
		objects = append(objects, s.doc.Object)
	}
	if len(o.target.endpoints) == 0 {
		return objects, nil
	}
	return e.withNamedCluster(cmd, o, objects)
}

// says reports whether a file has a field in a block.
func says(raw map[string]any, block, field string) bool {
	fields, ok := raw[block].(map[string]any)
	return ok && fields[field] != nil
}

func checkPolicyFlags(cmd *cobra.Command, o *runOptions) error {
	if err := checkOutput(cmd, o.output, backupForms...); err != nil {
		return err
	}
	foreign := ""
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if foreign == "" && !slices.Contains(policyFlags, f.Name) {
			foreign = f.Name
		}
	})
	if foreign != "" {
		return usagef(cmd, "--%s does not go with -f, whose policy says what is backed up, how and to where: leave one of them out", foreign)
	}
	named := o.name != "" || o.target.cacert != "" || o.target.cert != "" || o.target.key != "" || o.target.user != "" || o.target.passwordFile != ""
	switch {
	case len(o.target.endpoints) == 0 && named:
		return usagef(cmd, "--endpoints is missing: --name, certificates and --user belong to a cluster that it names; leave them out where the file has the cluster")
	case (o.target.cert == "") != (o.target.key == ""):
		return usagef(cmd, "--cert and --key belong together: give both or none")
	case o.once && o.dryRun:
		return usagef(cmd, "--once takes backups, and --dry-run takes none: give one of them")
	case !o.once && !o.dryRun && o.output != outTable:
		return usagef(cmd, "-o is for the results of --once and --dry-run: give one of these, or leave it out")
	}
	return nil
}

// withNamedCluster adds the one cluster of --endpoints, and has the policies back it up.
// Whoever names it by its endpoints allows that.
func (e *env) withNamedCluster(cmd *cobra.Command, o *runOptions, objects []v1alpha1.Object) ([]v1alpha1.Object, error) {
	var policies []*v1alpha1.EtcdBackupPolicy
	for _, obj := range objects {
		switch obj := obj.(type) {
		case *v1alpha1.EtcdCluster:
			return nil, usagef(cmd, "--endpoints names a cluster, and the file has the cluster %s: leave one of them out", store.KeyOf(obj))
		case *v1alpha1.EtcdBackupPolicy:
			policies = append(policies, obj)
		}
	}
	if len(policies) == 0 {
		return objects, nil // which is refused, with what is missing
	}
	of := catalog.Cluster{Namespace: policies[0].Namespace, Name: o.name}
	if o.name == "" {
		of.Name = policies[0].Spec.ClusterName
	}
	switch {
	case of.Name == "":
		return nil, usagef(cmd, "--name is missing: etcd knows no name of its cluster, and a store keeps the backups of each apart by it, such as --name prod")
	case strings.Contains(o.name, "/"):
		var err error
		if of, err = e.clusterName(cmd, "name", o.name); err != nil {
			return nil, err
		}
	}
	for _, p := range policies {
		if p.Namespace != of.Namespace || p.Spec.ClusterName != "" && p.Spec.ClusterName != of.Name {
			return nil, usagef(cmd, "--endpoints is to be cluster %s, and policy %s backs up others: leave --endpoints out and put the clusters into the file, or correct --name", of, store.KeyOf(p))
		}
		p.Spec.ClusterName, p.Spec.Selector = of.Name, nil
	}
	entry := importEntry{namespace: of.Namespace, name: of.Name}
	target, err := e.doctorTarget(cmd.Context(), o.target)
	if err != nil {
		return nil, err
	}
	entry.ca, entry.cert, entry.key = target.CA, target.Certificate, target.Key
	entry.user, entry.password, err = passwordOf(&o.target)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the file of --password-file: %w", err)
	case entry.user != "" && entry.password == "":
		return nil, usagef(cmd, "--user is %s and there is no password: give --password-file FILE, put it into %s, or give --user NAME:PASSWORD", entry.user, envEtcdPassword)
	}
	if entry.endpoints, err = check.Endpoints(target.Endpoints, len(target.CA) > 0 || len(target.Certificate) > 0); err != nil {
		return nil, usagef(cmd, "%s", reason(err))
	}
	i, err := e.importee(cmd.Context(), entry)
	if err != nil {
		return nil, err
	}
	i.cluster.Spec.Import.Maintain = []v1alpha1.Maintenance{v1alpha1.MaintainBackup}
	if i.secret != nil {
		objects = append(objects, i.secret)
	}
	return append(objects, i.cluster), nil
}

// policyFollow takes backups when they are due, until it is told to stop.
func (e *env) policyFollow(ctx context.Context, f *app.BackupFile) error {
	outlook, err := f.Outlook(ctx)
	if err == nil {
		for _, p := range plansOf(outlook) {
			e.printf("policy %s: %s\n", p.Policy, p.Schedule)
			for _, c := range p.Clusters {
				e.printf("cluster %s: %s\n", c.Cluster, c.text())
			}
		}
		err = f.Run(ctx)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is how it ends
	}
	return err
}

// eventLine says in one line what has happened.
func eventLine(ev *store.Event) string {
	of := store.Key{Namespace: ev.Namespace, Name: ev.Cluster}.String()
	if ev.Kind == v1alpha1.KindBackupPolicy.Kind {
		of = "policy " + store.Key{Namespace: ev.Namespace, Name: ev.Name}.String()
	}
	return of + ": " + ev.Reason + ": " + ev.Message
}

func (e *env) printBackupEvent(ev store.Event) {
	line := e.typed(eventLine(&ev))
	if ev.Type == store.Warning {
		line = e.painted(yellow, line)
	}
	e.printf("%s %s\n", e.painted(dim, ev.Time.UTC().Format(time.RFC3339)), line)
}

// policyPlan is what a policy would do.
type policyPlan struct {
	Policy   string        `json:"policy"`
	Schedule string        `json:"schedule"`
	Clusters []clusterPlan `json:"clusters"`
}

// clusterPlan is what it would do for one cluster.
type clusterPlan struct {
	Cluster string `json:"cluster"`
	// Due is when, in RFC 3339; empty with Refused. DueNow: it would be taken at once.
	Due     string `json:"due,omitempty"`
	DueNow  bool   `json:"dueNow"`
	Refused string `json:"refused,omitempty"`
	// Stores in the order of the policy.
	Stores []destinationPlan `json:"stores"`
}

// destinationPlan is how one destination stands to it.
type destinationPlan struct {
	Name    string `json:"name"`
	Store   string `json:"store"`
	Problem string `json:"problem,omitempty"`
	// Backups of the cluster, and when the newest and the newest proven one began.
	Backups int    `json:"backups"`
	Newest  string `json:"newest,omitempty"`
	Proven  string `json:"newestProven,omitempty"`
	// Delete are the IDs that retention would delete of what is there, and their bytes.
	Delete      []string `json:"delete,omitempty"`
	DeleteBytes int64    `json:"deleteBytes,omitempty"`
}

func plansOf(outlook []app.PolicyOutlook) []policyPlan {
	plans := make([]policyPlan, 0, len(outlook))
	for _, o := range outlook {
		p := policyPlan{Policy: store.KeyOf(o.Policy).String(), Schedule: o.Schedule, Clusters: []clusterPlan{}}
		for _, c := range o.Clusters {
			plan := clusterPlan{Cluster: c.Cluster.String(), Refused: c.Refused}
			if !c.Due.IsZero() {
				plan.Due, plan.DueNow = c.Due.UTC().Format(time.RFC3339), !c.Due.After(time.Now())
			}
			for _, d := range c.Destinations {
				to := destinationPlan{
					Name: d.Name, Store: d.URL, Problem: d.Problem, Backups: d.Holdings.Points,
					Delete: d.WouldDelete.PointIDs, DeleteBytes: d.WouldDelete.Bytes,
				}
				if n := d.Holdings.Newest; n != nil {
					to.Newest = n.At.UTC().Format(time.RFC3339)
				}
				if n := d.Holdings.Proven; n != nil {
					to.Proven = n.At.UTC().Format(time.RFC3339)
				}
				plan.Stores = append(plan.Stores, to)
			}
			p.Clusters = append(p.Clusters, plan)
		}
		plans = append(plans, p)
	}
	return plans
}

// text says when the next backup is due.
func (c *clusterPlan) text() string {
	switch {
	case c.Refused != "":
		return c.Refused
	case c.DueNow:
		return "a backup is due now"
	}
	return "the next backup is due " + c.Due
}

func (e *env) policyDryRun(ctx context.Context, f *app.BackupFile, p *progress, form string) error {
	outlook, err := f.Outlook(ctx)
	p.done()
	if err != nil {
		return err
	}
	plans := plansOf(outlook)
	if err = e.printChecked(form, plans, func() { e.printPolicyPlans(plans) }); err != nil {
		return err
	}
	var errs []error
	for _, plan := range plans {
		for _, c := range plan.Clusters {
			if c.Refused != "" {
				errs = append(errs, fmt.Errorf("%s: %w: %s", c.Cluster, app.ErrUnanswered, c.Refused))
			}
			for _, d := range c.Stores {
				if d.Problem != "" && c.Refused == "" {
					errs = append(errs, fmt.Errorf("%s: what destination %s has is not known: %s", c.Cluster, d.Name, d.Problem))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (e *env) printPolicyPlans(plans []policyPlan) {
	e.printf("%s\n", e.painted(bold, "nothing was done: this would be"))
	for i := range plans {
		p := &plans[i]
		e.printf("policy %s: %s\n", p.Policy, p.Schedule)
		for j := range p.Clusters {
			c := &p.Clusters[j]
			e.printf("cluster %s: %s\n", c.Cluster, c.text())
			for k := range c.Stores {
				e.fact(c.Stores[k].Name, c.Stores[k].text())
			}
		}
	}
}

func (d *destinationPlan) text() string {
	if d.Problem != "" {
		return d.Store + ": " + d.Problem
	}
	text := d.Store + " has " + plural(d.Backups, "backup", "backups") + " of it"
	if d.Newest != "" {
		text += ", the newest of " + d.Newest
	}
	if len(d.Delete) == 0 {
		return text + "; retention would delete none of them now"
	}
	return fmt.Sprintf("%s; retention would delete %s now, %s: %s", text, plural(len(d.Delete), "backup", "backups"), inspect.Size(d.DeleteBytes), strings.Join(d.Delete, ", "))
}
