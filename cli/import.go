package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// checkTime bounds the look at one cluster before it is imported.
const checkTime = 10 * time.Second

var importForms = []string{outTable, outName, outJSON, outYAML}

type importOptions struct {
	file         string
	endpoints    []string
	cacert       string
	cert         string
	key          string
	user         string
	passwordFile string
	serverName   string
	members      int32
	maintain     []string
	noCheck      bool
	dryRun       bool
	timeout      time.Duration
	output       string
}

func importCommand(e *env) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import (NAME --endpoints URL[,URL] | -f FILE)",
		Short: "Observe an etcd cluster that runs already, without writing to it",
		Long: `Take an etcd cluster that others run into the fleet, to be observed: Quorate asks
its members what they are, tells when something is wrong and why, and never writes
to it: no key, no alarm, no defragmentation, no hash, and no snapshot unless
--maintain Backup allows backups of it. The plan of such a cluster is always empty,
and deleting the object only forgets it.

The cluster is asked from here first, and nothing is created if it does not answer.
Credentials are kept in a Secret, which goes with the object. A cluster that was
imported already gets the new endpoints and credentials; what may be done to it
stays as it was without --maintain, and --maintain= takes it back.

Where authentication is on, Quorate needs a user without any role:

  etcdctl user add quorate

Such a user may read the status of members and their list, and no key. To log in is
an entry of the raft log, as every login is; it is done once, not with every look.

` + importForm,
		Example: `  quorate import orders --endpoints http://10.0.0.1:2379
  quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key
  quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --user quorate --password-file password
  quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --maintain Backup
  quorate import -f clusters.yaml --dry-run`,
		Args: argsBetween(0, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, importForms...); err != nil {
				return err
			}
			entries, err := e.importEntries(cmd, args, o)
			if err != nil {
				return err
			}
			return e.importAll(cmd.Context(), entries, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "file that lists clusters to import; - for the standard input")
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "client URLs of the cluster; one that answers is enough")
	f.StringVar(&o.cacert, "cacert", "", "file with the CA that signed the members' certificates (default: the system's)")
	f.StringVar(&o.cert, "cert", "", "file with the client certificate")
	f.StringVar(&o.key, "key", "", "file with the key of the client certificate")
	f.StringVar(&o.user, "user", "", "user to log in with; it needs no role")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the user's password (env "+envEtcdPassword+" holds the password itself)")
	f.StringVar(&o.serverName, "server-name", "", "name in the members' certificates, where it is another than the URL's")
	f.Int32Var(&o.members, "members", 0, "how many members are expected (default: as many as there are)")
	f.StringSliceVar(&o.maintain, "maintain", nil, "what Quorate may do to the cluster beyond asking it: Backup, which takes snapshots of it when a policy says so (default: nothing)")
	_ = cmd.RegisterFlagCompletionFunc("maintain", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { // the command has that flag
		return []string{string(v1alpha1.MaintainBackup) + "\ttake snapshots of it when a backup policy says so"}, noFiles
	})
	f.BoolVar(&o.noCheck, "no-check", false, "do not ask the cluster from here: only the server reaches it")
	f.BoolVar(&o.dryRun, "dry-run", false, "only check the cluster, and say what would be created")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait until the server has seen it")
	outputFlag(cmd, &o.output, importForms...)
	return cmd
}

// importEntries are what the flags or the file ask for.
func (e *env) importEntries(cmd *cobra.Command, args []string, o importOptions) ([]importEntry, error) {
	switch {
	case o.file != "" && (len(args) > 0 || len(o.endpoints) > 0):
		return nil, usagef(cmd, "-f names the clusters: leave NAME and --endpoints out, or -f")
	case o.file != "" && cmd.Flags().Changed("maintain"):
		return nil, usagef(cmd, "--maintain is for one cluster, and -f says it of each: write maintain: [Backup] into the file")
	case o.file != "":
		return e.importFile(o.file)
	case len(args) == 0:
		return nil, usagef(cmd, "NAME is missing: how the cluster is to be called here; or -f with a file of many")
	case len(o.endpoints) == 0:
		return nil, usagef(cmd, "--endpoints is missing: name a client URL, such as --endpoints https://10.0.0.1:2379")
	case (o.cert == "") != (o.key == ""):
		return nil, usagef(cmd, "--cert and --key belong together: give both or none")
	case o.members < 0 || o.members > 9:
		return nil, usagef(cmd, "--members is %d: give 1 to 9", o.members)
	}
	entry := importEntry{name: args[0], endpoints: o.endpoints, serverName: o.serverName, user: o.user, members: o.members}
	if cmd.Flags().Changed("maintain") {
		entry.maintain = []v1alpha1.Maintenance{}
	}
	for _, text := range o.maintain {
		if text != string(v1alpha1.MaintainBackup) {
			return nil, usagef(cmd, "--maintain is %q: give %s, or leave it out", text, v1alpha1.MaintainBackup)
		}
		entry.maintain = append(entry.maintain, v1alpha1.MaintainBackup)
	}
	for i, u := range entry.endpoints {
		entry.endpoints[i] = strings.TrimSuffix(u, "/")
	}
	var password []byte
	for _, f := range []struct {
		flag, path string
		to         *[]byte
	}{{"--cacert", o.cacert, &entry.ca}, {"--cert", o.cert, &entry.cert}, {"--key", o.key, &entry.key}, {"--password-file", o.passwordFile, &password}} {
		if f.path == "" {
			continue
		}
		raw, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("read what %s names: %w", f.flag, err)
		}
		*f.to = raw
	}
	entry.password = strings.TrimRight(string(password), "\r\n")
	if entry.user != "" && o.passwordFile == "" {
		entry.password = os.Getenv(envEtcdPassword)
	}
	if (entry.user == "") != (entry.password == "") {
		return nil, usagef(cmd, "--user and its password belong together: give both, the password with --password-file or in %s", envEtcdPassword)
	}
	return []importEntry{entry}, nil
}

func (e *env) importFile(file string) ([]importEntry, error) {
	var data []byte
	var err error
	name := file
	if file == "-" {
		name = "standard input"
		data, err = io.ReadAll(e.In)
	} else {
		data, err = os.ReadFile(file) //nolint:gosec // the file that a person named
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return newImportReader(name).read(data)
}

// importee is a cluster on its way into the fleet.
type importee struct {
	importEntry
	cluster *v1alpha1.EtcdCluster
	// secret with its credentials, or nil.
	secret *v1alpha1.Secret
	survey etcd.Survey
	// what will be done, or was.
	what string
}

func (e *env) importAll(ctx context.Context, entries []importEntry, o importOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	list := make([]*importee, 0, len(entries))
	var errs []error
	for _, entry := range entries {
		i, makeErr := e.importee(ctx, entry)
		errs = append(errs, makeErr)
		list = append(list, i)
	}
	if err = errors.Join(errs...); err != nil {
		return err
	}
	if !o.noCheck {
		if err = e.checkImports(ctx, list); err != nil {
			return err
		}
	}
	// Everything is tried before anything is done, so that no half of it stays.
	errs = nil
	for _, i := range list {
		errs = append(errs, i.located(i.write(ctx, c.DryRun())))
	}
	if err = errors.Join(errs...); err != nil {
		return fmt.Errorf("nothing was imported: %w", err)
	}
	if !o.dryRun {
		errs = nil
		for _, i := range list {
			errs = append(errs, i.located(i.write(ctx, c)))
		}
		if err = errors.Join(errs...); err != nil {
			return err
		}
		if err = e.awaitImports(ctx, c, list, o.timeout); err != nil {
			return err
		}
	}
	return e.printImports(list, o)
}

// importee makes the objects of an entry, and checks them as the server would.
func (e *env) importee(ctx context.Context, entry importEntry) (*importee, error) {
	i := &importee{importEntry: entry, cluster: &v1alpha1.EtcdCluster{}}
	c := i.cluster
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	c.Name, c.Namespace, c.Labels = entry.name, entry.namespace, entry.labels
	if c.Namespace == "" {
		c.Namespace = e.namespace
	}
	c.Spec.Management, c.Spec.Replicas = v1alpha1.ManagementObserve, entry.members
	c.Spec.Import = &v1alpha1.ImportSpec{Endpoints: entry.endpoints, ServerName: entry.serverName, Maintain: entry.maintain}
	data := map[string][]byte{}
	for name, value := range map[string][]byte{
		"ca.crt": entry.ca, "tls.crt": entry.cert, "tls.key": entry.key, "username": []byte(entry.user), "password": []byte(entry.password),
	} {
		if len(value) > 0 {
			data[name] = value
		}
	}
	if len(data) > 0 {
		i.secret = &v1alpha1.Secret{Data: data}
		v1alpha1.SetType(i.secret, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
		i.secret.Type = "Opaque"
		i.secret.Name, i.secret.Namespace = c.Name+"-credentials", c.Namespace
		i.secret.Labels = map[string]string{v1alpha1.LabelCluster: c.Name}
		i.secret.Annotations = map[string]string{v1alpha1.AnnotationImportedFor: c.Name}
		c.Spec.Import.CredentialsSecretRef = i.secret.Name
	}
	if err := schema.Default(c); err != nil {
		return i, i.located(err)
	}
	if entry.members == 0 {
		c.Spec.Replicas = int32(min(len(entry.endpoints), 9))
	}
	if err := schema.Validate(ctx, c, nil); err != nil {
		return i, i.located(err)
	}
	if _, err := fleet.ImportAccess(c.Spec.Import, i.secret); err != nil {
		return i, i.located(fmt.Errorf("the credentials of %s: %w: %w", entry.name, err, store.ErrInvalid))
	}
	return i, nil
}

// located says in which file an error is.
func (i *importee) located(err error) error {
	if err == nil || i.where == "" {
		return err
	}
	return fmt.Errorf("%s: %w", i.where, err)
}

// checkImports asks all the clusters, several at once.
func (e *env) checkImports(ctx context.Context, list []*importee) error {
	const together = 8
	p := newProgress(e)
	defer p.done()
	if p.terminal {
		p.step(fmt.Sprintf("asking the clusters from here: %d", len(list)))
	}
	errs := make([]error, len(list))
	slots := make(chan struct{}, together)
	var wg sync.WaitGroup
	for n, i := range list {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[n] = i.located(e.check(ctx, i))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// check asks one cluster what it is.
func (e *env) check(ctx context.Context, i *importee) error {
	access, err := fleet.ImportAccess(i.cluster.Spec.Import, i.secret)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	s := etcd.NewSurveyor(access)
	defer s.Close()
	i.survey = s.Survey(ctx, 0)
	if i.survey.Login != nil {
		return fmt.Errorf("cluster %s was not imported: %s", i.name, i.survey.Login)
	}
	if len(i.survey.Strangers) > 0 {
		one := i.survey.Strangers[0]
		return fmt.Errorf("cluster %s was not imported: its endpoints belong to different clusters: %s answers for %s, others for %s: import each by itself: %w",
			i.name, one.Endpoint, one.ClusterID, i.survey.ClusterID, store.ErrInvalid)
	}
	if len(i.survey.Members) > 0 {
		if i.members == 0 {
			i.cluster.Spec.Replicas = int32(min(len(i.survey.Members), 9))
		}
		return nil
	}
	texts := make([]string, 0, len(i.survey.Deaf))
	for _, f := range i.survey.Deaf {
		texts = append(texts, f.String())
		if f.Kind == etcd.FaultLoginWanted {
			texts = append(texts, "make a user for Quorate with `etcdctl user add quorate`, without any role, and give --user quorate --password-file FILE")
			break
		}
	}
	if len(texts) == 0 {
		texts = append(texts, "no member lists the members: see whether the cluster has a leader")
	}
	return fmt.Errorf("cluster %s was not imported, since it does not answer from here (--no-check leaves that to the server):\n%s", i.name, strings.Join(texts, "\n"))
}

// write brings Secret and cluster to what is wanted. What it has made is taken back
// when it fails half-way.
func (i *importee) write(ctx context.Context, c *remote.Client) error {
	ctx, cancel := call(ctx)
	defer cancel()
	live := &v1alpha1.EtcdCluster{}
	err := c.Get(ctx, store.KeyOf(i.cluster), live)
	fresh := errors.Is(err, store.ErrNotFound)
	if err != nil && !fresh {
		return err
	}
	if !fresh && !live.Observed() {
		return fmt.Errorf("there is a cluster %s already, which Quorate runs: import this one under another name: %w", i.name, store.ErrExists)
	}
	if !fresh && i.members == 0 && len(i.survey.Members) == 0 {
		i.cluster.Spec.Replicas = live.Spec.Replicas
	}
	undo, secretChanged, err := i.writeSecret(ctx, c)
	if err != nil {
		return err
	}
	i.what = wasCreated
	switch {
	case fresh:
		made := i.cluster.DeepCopy()
		if err = c.Create(ctx, made); err == nil {
			i.cluster = made
		}
	default:
		changed := live.DeepCopy()
		changed.Spec.Import, changed.Spec.Replicas = i.cluster.Spec.Import.DeepCopy(), i.cluster.Spec.Replicas
		if i.maintain == nil && live.Spec.Import != nil {
			// What was allowed is not taken back by who says nothing of it.
			changed.Spec.Import.Maintain = live.Spec.Import.Maintain
		}
		if i.labels != nil {
			changed.Labels = i.labels
		}
		i.what = wasConfigured
		if v1alpha1.Equal(changed, live) {
			if !secretChanged {
				i.what = wasUnchanged
			}
			i.cluster = live
			return nil
		}
		if err = c.Update(ctx, changed); err == nil {
			i.cluster = changed
		}
	}
	if err != nil {
		return errors.Join(err, undo(context.WithoutCancel(ctx)))
	}
	return nil
}

// writeSecret creates or changes the Secret, and returns how that is undone.
func (i *importee) writeSecret(ctx context.Context, c *remote.Client) (undo func(context.Context) error, changed bool, err error) {
	nothing := func(context.Context) error { return nil }
	if i.secret == nil {
		return nothing, false, nil
	}
	key := store.KeyOf(i.secret)
	live := &v1alpha1.Secret{}
	err = c.Get(ctx, key, live)
	if errors.Is(err, store.ErrNotFound) {
		made := i.secret.DeepCopy()
		err = c.Create(ctx, made)
		return func(ctx context.Context) error {
			return c.Delete(ctx, v1alpha1.KindSecret, key, store.Preconditions{UID: made.UID})
		}, true, err
	}
	if err != nil {
		return nothing, false, err
	}
	if live.Annotations[v1alpha1.AnnotationImportedFor] != i.name {
		return nothing, false, fmt.Errorf("secret %s is in the way, since it was not made by an import of %s: delete or rename it, or choose another name: %w", key, i.name, store.ErrExists)
	}
	if v1alpha1.Equal(live.Data, i.secret.Data) {
		return nothing, false, nil
	}
	before := live.Data
	live.Data = i.secret.Data
	err = c.Update(ctx, live)
	return func(ctx context.Context) error {
		live.Data = before
		return c.Update(ctx, live)
	}, true, err
}

// awaitImports waits until the server has looked at the clusters.
func (e *env) awaitImports(ctx context.Context, c *remote.Client, list []*importee, timeout time.Duration) error {
	for _, i := range list {
		err := e.awaitCluster(ctx, c, i.cluster, timeout, func(got *v1alpha1.EtcdCluster) (bool, string) {
			if v1alpha1.FindCondition(got.Status.Conditions, v1alpha1.ConditionAvailable) == nil {
				return false, "waiting for the server to look at it"
			}
			i.cluster = got
			return true, ""
		})
		if err != nil {
			return i.located(err)
		}
	}
	return nil
}

func (e *env) printImports(list []*importee, o importOptions) error {
	if o.output != outTable {
		objs := make([]v1alpha1.Object, 0, len(list))
		for _, i := range list {
			objs = append(objs, i.cluster)
		}
		return e.printObjects(objs, shown{form: o.output, single: len(objs) == 1})
	}
	note := ""
	if o.dryRun {
		note = " (dry run)"
	}
	for _, i := range list {
		if found := i.found(); found != "" {
			e.printf("%s: %s\n", i.name, found)
		}
		e.printf("%s %s%s\n", label(v1alpha1.KindCluster, i.name), i.what, note)
	}
	if o.dryRun {
		return nil
	}
	for _, i := range list {
		e.printf("%s\n", e.typed(i.state()))
	}
	first := list[0].cluster
	where := inNamespace(first.Namespace)
	e.printf("\n")
	for _, next := range []struct{ word, line string }{
		{"Look", "status " + first.Name + where},
		{"Ask", "etcdctl -c " + first.Name + where + " endpoint status -w table"},
		{"Events", "events -c " + first.Name + where},
		{"Forget", "delete cluster " + first.Name + where},
	} {
		e.printf("  %-7s %s %s\n", next.word, e.called(), next.line)
	}
	return nil
}

// found says what the cluster answered here.
func (i *importee) found() string {
	var version, leader string
	var size int64
	answered := 0
	for _, m := range i.survey.Members {
		if m.Status.Leader != 0 && m.Status.Leader == m.ID {
			leader = m.Name
		}
		if m.Answered {
			answered++
			version, size = m.Status.Version, max(size, m.Status.DBSize)
		}
	}
	if answered == 0 {
		return ""
	}
	text := fmt.Sprintf("etcd %s, %d of %d members answer", version, answered, len(i.survey.Members))
	if leader != "" {
		text += ", " + leader + " leads"
	}
	text += ", database " + bytesText(size)
	if i.survey.Authenticated {
		text += "; authentication is on: user " + i.user + " needs no role"
	}
	return text
}

// state says what the server sees.
func (i *importee) state() string {
	available := v1alpha1.FindCondition(i.cluster.Status.Conditions, v1alpha1.ConditionAvailable)
	degraded := v1alpha1.FindCondition(i.cluster.Status.Conditions, v1alpha1.ConditionDegraded)
	switch {
	case available != nil && available.Status != v1alpha1.True:
		return fmt.Sprintf("%s as the server sees it: %s: %s", i.name, available.Reason, available.Message)
	case degraded != nil && degraded.Status == v1alpha1.True:
		return fmt.Sprintf("%s as the server sees it: %s: %s", i.name, degraded.Reason, degraded.Message)
	}
	return fmt.Sprintf("%s is healthy: %s", i.name, i.cluster.Status.Ready+" members")
}
