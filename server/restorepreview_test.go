package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
)

// oracle says what a restore would do.
type oracle struct {
	asked []*v1alpha1.EtcdRestore
	err   error
}

func (o *oracle) Preview(_ context.Context, r *v1alpha1.EtcdRestore) (*v1alpha1.EtcdRestore, error) {
	o.asked = append(o.asked, r.DeepCopy())
	if o.err != nil {
		return nil, o.err
	}
	seen := r.DeepCopy()
	seen.Status = v1alpha1.EtcdRestoreStatus{Phase: v1alpha1.RestoreRunning, Message: "what 7 revisions wrote since is lost", LostRevisions: 7}
	return seen, nil
}

const (
	previewPath = namespaced + "etcdrestores/undo/preview"
	restoreBody = `{"apiVersion":"quorate.io/v1alpha1","kind":"EtcdRestore","metadata":{"name":"undo","namespace":"prod"},"spec":{"clusterName":"c","source":{%s}}}`
)

func restoreFrom(source string) string { return fmt.Sprintf(restoreBody, source) }

// TestPreviewRestore: an admin is told what a restore would do, after all checks that
// creating it would make, and nothing is stored.
func TestPreviewRestore(t *testing.T) {
	o := &oracle{}
	refuse := func(_ context.Context, obj, _ v1alpha1.Object) error {
		if r, ok := obj.(*v1alpha1.EtcdRestore); ok && r.Spec.Source.PolicyName == "refused" {
			return fmt.Errorf("spec.source: refused: %w", store.ErrInvalid)
		}
		return nil
	}
	f := servertest.New(t, func(opts *server.Options) { opts.Restores, opts.Admit = o, refuse })
	admin := f.Token(t, server.RoleAdmin, "")
	header := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	good := restoreFrom(`"policyName":"hourly"`)
	for name, token := range map[string]string{"viewer": f.Token(t, server.RoleViewer, ""), "agent": f.Token(t, server.RoleAgent, "h")} {
		if resp, _ := ask(t, f, token, "POST", previewPath, good); resp.StatusCode != http.StatusForbidden {
			t.Errorf("the %s: %s", name, resp.Status)
		}
	}
	for _, tc := range []struct {
		name, path, body, want string
		code                   int
	}{
		{"two sources", previewPath, restoreFrom(`"policyName":"a","backupName":"b"`), "give one of backupName, policyName and destination", http.StatusUnprocessableEntity},
		{"no source", previewPath, restoreFrom(``), "give one of backupName, policyName and destination", http.StatusUnprocessableEntity},
		{"what nobody knows", previewPath, restoreFrom(`"polcyName":"a"`), "polcyName", http.StatusUnprocessableEntity},
		{"refused", previewPath, restoreFrom(`"policyName":"refused"`), "spec.source: refused", http.StatusUnprocessableEntity},
		{"another name", namespaced + "etcdrestores/redo/preview", good, "redo", http.StatusBadRequest},
		{"another namespace", strings.Replace(previewPath, "/prod/", "/dev/", 1), good, "dev", http.StatusBadRequest},
		{"no JSON", previewPath, "{", "", http.StatusUnprocessableEntity},
		{"another kind", previewPath, `{"apiVersion":"quorate.io/v1alpha1","kind":"EtcdCluster","metadata":{"name":"undo"}}`, "EtcdCluster", http.StatusBadRequest},
	} {
		resp, st := ask(t, f, admin, "POST", tc.path, tc.body)
		if resp.StatusCode != tc.code || !strings.Contains(st.Message, tc.want) {
			t.Errorf("%s: %s: %s; want %d, %q", tc.name, resp.Status, st.Message, tc.code, tc.want)
		}
	}
	if len(o.asked) > 0 {
		t.Errorf("%d of what is refused was looked at", len(o.asked))
	}
	code, body := send(t, f, "POST "+previewPath, header(admin), strings.NewReader(good))
	var seen v1alpha1.EtcdRestore
	if err := json.Unmarshal([]byte(body), &seen); err != nil || code != http.StatusOK {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	if seen.Kind != "EtcdRestore" || seen.APIVersion != "quorate.io/v1alpha1" || seen.Name != "undo" || seen.Status.LostRevisions != 7 || seen.Status.Phase != v1alpha1.RestoreRunning {
		t.Errorf("it says %+v", seen)
	}
	if len(o.asked) != 1 || o.asked[0].Namespace != "prod" || o.asked[0].Spec.Source.PolicyName != "hourly" {
		t.Errorf("looked at was %+v", o.asked)
	}
	if resp, _ := ask(t, f, admin, "GET", namespaced+"etcdrestores/undo", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a preview was stored: %s", resp.Status)
	}
	o.err = fmt.Errorf("the store is away: %w", store.ErrUnavailable)
	if resp, st := ask(t, f, admin, "POST", previewPath, good); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(st.Message, "the store is away") {
		t.Errorf("%s: %s", resp.Status, st.Message)
	}
}

// TestPreviewWithoutRestores: a server that restores nothing says so.
func TestPreviewWithoutRestores(t *testing.T) {
	f := servertest.New(t, nil)
	resp, st := ask(t, f, f.Token(t, server.RoleAdmin, ""), "POST", previewPath, restoreFrom(`"policyName":"hourly"`))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(st.Message, "this server restores nothing") {
		t.Errorf("%s: %s", resp.Status, st.Message)
	}
}
