package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// importPage is the form of a cluster that runs already.
func (c *console) importPage(v *visit) error {
	return c.pages.render(v, http.StatusOK, "import", &writeData{
		frame: c.frame(v, "import", "").with("quorate import NAME --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert tls.crt --key tls.key"),
	})
}

// importCluster checks what the form says with the server; with step=import it
// stores the credentials and begins to watch. Etcd itself is only read.
func (c *console) importCluster(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d := &writeData{frame: c.frame(v, "import", "")}
	secret := credentials(v.r.PostFormValue)
	var err error
	if d.YAML, err = imported(v.r.PostFormValue, secret); err != nil {
		return err
	}
	d.Cluster, err = clusterIn(ctx, d.YAML)
	if err == nil && v.r.PostFormValue("step") == "import" {
		if err = createWith(ctx, v.api, d.Cluster, secret); err == nil {
			return v.redirect(clusterPath(d.Cluster.Namespace, d.Cluster.Name))
		}
	} else if err == nil {
		err = v.api.DryRun().Create(ctx, d.Cluster.DeepCopy())
		d.Checked = err == nil
	}
	if err != nil {
		d.Faults = faultsOf(err)
	}
	return c.pages.render(v, http.StatusOK, "import/outcome", d)
}

// credentials gathers what the form says of them; nil when it says nothing.
func credentials(field func(string) string) *v1alpha1.Secret {
	data := map[string][]byte{}
	for name, key := range map[string]string{"ca": "ca.crt", "cert": "tls.crt", "key": "tls.key"} {
		if text := strings.TrimSpace(field(name)); text != "" {
			data[key] = []byte(text + "\n")
		}
	}
	if user := strings.TrimSpace(field("user")); user != "" {
		// A password may begin or end with a space.
		data["username"], data["password"] = []byte(user), []byte(field("password"))
	}
	if len(data) == 0 {
		return nil
	}
	s := &v1alpha1.Secret{Data: data, Type: "Opaque"}
	name := strings.TrimSpace(field("name"))
	s.Name, s.Namespace = name+importSuffix, namespaceField(field)
	// Forgetting the cluster takes the Secret with it.
	s.Annotations = map[string]string{v1alpha1.AnnotationImportedFor: name}
	return s
}

// importSuffix makes the name of a cluster's credentials from its own.
const importSuffix = "-credentials"

func namespaceField(field func(string) string) string {
	if ns := strings.TrimSpace(field("namespace")); ns != "" {
		return ns
	}
	return "default"
}

// imported writes the YAML of what the form says.
func imported(field func(string) string, secret *v1alpha1.Secret) (string, error) {
	endpoints := strings.FieldsFunc(field("endpoints"), func(r rune) bool { return r == ',' || r == '\n' || r == '\r' || r == ' ' })
	source := map[string]any{"endpoints": endpoints}
	if secret != nil {
		source["credentialsSecretRef"] = secret.Name
	}
	if name := strings.TrimSpace(field("serverName")); name != "" {
		source["serverName"] = name
	}
	spec := map[string]any{"management": string(v1alpha1.ManagementObserve), "import": source}
	if n, err := strconv.Atoi(strings.TrimSpace(field("replicas"))); err == nil {
		spec["replicas"] = n
	}
	return document(map[string]any{
		"apiVersion": v1alpha1.KindCluster.APIVersion, "kind": v1alpha1.KindCluster.Kind,
		"metadata": map[string]any{"name": strings.TrimSpace(field("name")), "namespace": namespaceField(field)},
		"spec":     spec,
	})
}

// createWith stores a cluster with its credentials, and leaves nothing of them if
// the cluster is refused.
func createWith(ctx context.Context, st store.Store, cluster *v1alpha1.EtcdCluster, secret *v1alpha1.Secret) error {
	if secret != nil {
		if err := st.Create(ctx, secret); err != nil {
			return err
		}
	}
	err := st.Create(ctx, cluster)
	if err == nil || secret == nil || errors.Is(err, store.ErrUnavailable) {
		return err
	}
	return errors.Join(err, st.Delete(ctx, v1alpha1.KindSecret, store.KeyOf(secret), store.Preconditions{UID: secret.UID}))
}
