package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// fault is one thing that is wrong with what was sent.
type fault struct {
	Field, Message, Suggestion string
	Line                       int
}

// faultsOf takes an error apart into the fields that it is about.
func faultsOf(err error) []fault {
	var faults []fault
	if invalid, ok := errors.AsType[*schema.Error](err); ok {
		for _, cause := range invalid.Causes {
			faults = append(faults, fault{cause.Field, cause.Message, cause.Suggestion, cause.Line})
		}
		return faults
	}
	if st, ok := errors.AsType[*wire.Status](err); ok {
		for _, cause := range st.Causes() {
			faults = append(faults, fault{Field: cause.Field, Message: cause.Message})
		}
	}
	if len(faults) == 0 {
		faults = append(faults, fault{Message: err.Error()})
	}
	return faults
}

// writeData is what came of a form: its faults, or the plan it would lead to.
type writeData struct {
	frame

	Cluster *v1alpha1.EtcdCluster
	YAML    string
	Plan    v1alpha1.Plan
	Faults  []fault
	// Checked: it is good, and can be done.
	Checked         bool
	Unchanged       bool
	ResourceVersion string
	Form            map[string]string
	Versions        []string
	Replicas        []size
}

// size is a choice of how many members.
type size struct {
	Members, Quorum, Survives int
}

var sizes = []size{{1, 1, 0}, {3, 2, 1}, {5, 3, 2}}

// editPage shows a cluster's spec as a person would have written it.
func (c *console) editPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.readEdit(ctx, v)
	if err != nil {
		return err
	}
	if d.YAML, err = written(d.Cluster); err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "edit", d)
}

func (c *console) readEdit(ctx context.Context, v *visit) (*writeData, error) {
	key := v.key()
	d := &writeData{Cluster: &v1alpha1.EtcdCluster{}}
	if err := v.api.Get(ctx, key, d.Cluster); err != nil {
		return nil, err
	}
	d.frame = c.frame(v, "edit", key.Name).with("quorate edit cluster " + key.Name + inNamespace(key.Namespace))
	d.Path = clusterPath(key.Namespace, key.Name)
	d.ResourceVersion = d.Cluster.ResourceVersion
	return d, nil
}

// written is an object without what is not a person's to write.
func written(obj v1alpha1.Object) (string, error) {
	m, err := schema.Map(obj)
	if err != nil {
		return "", err
	}
	delete(m, "status")
	if meta, ok := m["metadata"].(map[string]any); ok {
		kept := map[string]any{}
		for _, name := range []string{"name", "namespace", "labels"} {
			if value, ok := meta[name]; ok {
				kept[name] = value
			}
		}
		m["metadata"] = kept
	}
	raw, err := yaml.Marshal(m)
	return string(raw), err
}

// edit checks what was written with the server and shows the plan; sent again with
// step=save, it is done.
func (c *console) edit(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.readEdit(ctx, v)
	if err != nil {
		return err
	}
	d.YAML = v.r.PostFormValue("yaml")
	before := d.Cluster.DeepCopy()
	if err = d.takeEdit(ctx); err != nil {
		d.Faults = faultsOf(err)
		return c.pages.render(v, http.StatusOK, "edit/outcome", d)
	}
	d.Cluster.ResourceVersion = v.r.PostFormValue("resourceVersion")
	d.Unchanged = v1alpha1.Equal(before.Spec, d.Cluster.Spec) && v1alpha1.Equal(before.Labels, d.Cluster.Labels)
	if v.r.PostFormValue("step") == "save" {
		if err = v.api.Update(ctx, d.Cluster); err == nil {
			return v.redirect(d.Path)
		}
		d.Faults = faultsOf(err)
		return c.pages.render(v, http.StatusOK, "edit/outcome", d)
	}
	if err = v.api.DryRun().Update(ctx, d.Cluster.DeepCopy()); err == nil {
		d.Plan, err = v.api.PlanFor(ctx, d.Cluster)
	}
	if err != nil {
		d.Faults = faultsOf(err)
	}
	d.Checked = err == nil
	return c.pages.render(v, http.StatusOK, "edit/outcome", d)
}

// takeEdit puts what was written into the cluster. Its name can't be changed by
// writing another.
func (d *writeData) takeEdit(ctx context.Context) error {
	given, err := clusterIn(ctx, d.YAML)
	if err != nil {
		return err
	}
	if given.Namespace == "" {
		given.Namespace = d.Cluster.Namespace
	}
	if store.KeyOf(given) != store.KeyOf(d.Cluster) {
		return fmt.Errorf("metadata: %s is edited here, not %s: leave name and namespace as they are: %w",
			store.KeyOf(d.Cluster), store.KeyOf(given), store.ErrInvalid)
	}
	d.Cluster.Spec, d.Cluster.Labels = given.Spec, given.Labels
	return nil
}

// clusterIn reads exactly one cluster.
func clusterIn(ctx context.Context, text string) (*v1alpha1.EtcdCluster, error) {
	docs, err := schema.Decode(ctx, []byte(text))
	if err != nil {
		return nil, err
	}
	if len(docs) == 1 {
		if cluster, ok := docs[0].Object.(*v1alpha1.EtcdCluster); ok {
			return cluster, nil
		}
	}
	return nil, fmt.Errorf("the text holds %d objects: write one EtcdCluster, and nothing else: %w", len(docs), store.ErrInvalid)
}

// createPage is the form of a new cluster.
func (c *console) createPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d := &writeData{frame: c.frame(v, "create", "").with("quorate apply -f cluster.yaml"), Replicas: sizes}
	var err error
	if d.Versions, err = versions(ctx, v); err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "create", d)
}

// versions of etcd that the server holds, newest first.
func versions(ctx context.Context, v *visit) ([]string, error) {
	releases, err := v.api.Releases(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	for i := range releases {
		if !slices.Contains(list, releases[i].Version) {
			list = append(list, releases[i].Version)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return compareVersions(b, a) })
	return list, nil
}

func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	return slices.CompareFunc(x, y, func(p, q string) int {
		m, _ := strconv.Atoi(p)
		n, _ := strconv.Atoi(q)
		return m - n
	})
}

// create shows what the form comes to, and its plan; with step=create it is done,
// as the YAML says by then.
func (c *console) create(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d := &writeData{frame: c.frame(v, "create", "")}
	step := v.r.PostFormValue("step")
	d.YAML = v.r.PostFormValue("yaml")
	var err error
	if step != "create" && step != "recheck" {
		if d.YAML, err = composed(v.r.PostFormValue); err != nil {
			return err
		}
	}
	d.Cluster, err = clusterIn(ctx, d.YAML)
	if err == nil {
		if d.Cluster.Namespace == "" {
			d.Cluster.Namespace = "default"
		}
		if step == "create" {
			if err = v.api.Create(ctx, d.Cluster); err == nil {
				return v.redirect(clusterPath(d.Cluster.Namespace, d.Cluster.Name))
			}
		} else {
			if err = v.api.DryRun().Create(ctx, d.Cluster.DeepCopy()); err == nil {
				d.Plan, err = v.api.PlanFor(ctx, d.Cluster)
			}
			d.Checked = err == nil
		}
	}
	if err != nil {
		d.Faults = faultsOf(err)
	}
	return c.pages.render(v, http.StatusOK, "create/outcome", d)
}

// composed writes the YAML of what a form says. What is left at its default is left
// out: a file says what was decided.
func composed(field func(string) string) (string, error) {
	text := func(name string) string { return strings.TrimSpace(field(name)) }
	metadata := map[string]any{"name": text("name"), "namespace": text("namespace")}
	if metadata["namespace"] == "" {
		metadata["namespace"] = "default"
	}
	spec := map[string]any{"version": text("version")}
	if n, err := strconv.Atoi(text("replicas")); err == nil {
		spec["replicas"] = n
	}
	tls := map[string]any{}
	if mode := text("tls"); mode != "" && mode != string(v1alpha1.TLSGenerated) {
		tls["mode"] = mode
		if secret := text("caSecretRef"); secret != "" && mode == string(v1alpha1.TLSCASecret) {
			tls["caSecretRef"] = secret
		}
	}
	if len(tls) > 0 {
		spec["tls"] = tls
	}
	etcd := map[string]any{}
	if quota := text("quota"); quota != "" && quota != "8Gi" {
		etcd["quotaBackend"] = quota
	}
	if len(etcd) > 0 {
		spec["etcd"] = etcd
	}
	if policy := text("deletionPolicy"); policy != "" && policy != string(v1alpha1.DeletionRetain) {
		spec["deletionPolicy"] = policy
	}
	return document(map[string]any{
		"apiVersion": v1alpha1.KindCluster.APIVersion, "kind": v1alpha1.KindCluster.Kind, "metadata": metadata, "spec": spec,
	})
}

func document(m map[string]any) (string, error) {
	raw, err := yaml.Marshal(m)
	return string(bytes.TrimLeft(raw, "\n")), err
}
