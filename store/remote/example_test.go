package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// Read a cluster, see how it is, and follow what happens to it.
func Example() {
	server := exampleServer()
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	client, err := remote.New(remote.Config{Server: server.URL, Token: "quorate_ci_…"}, remote.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	key := store.Key{Namespace: "default", Name: "playground"}
	cluster := &v1alpha1.EtcdCluster{}
	switch err = client.Get(ctx, key, cluster); {
	case errors.Is(err, store.ErrNotFound):
		fmt.Println("there is none")
		return
	case err != nil:
		fmt.Println(err)
		return
	}
	view, err := client.View(ctx, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s of etcd %s is %s, led by %s\n", cluster.Name, cluster.Spec.Version, view.State, view.Leader)

	_, after, err := client.EventsAt(ctx, store.EventOptions{Cluster: key.Name})
	if err != nil {
		fmt.Println(err)
		return
	}
	for event := range client.WatchEventsAfter(ctx, store.EventOptions{Cluster: key.Name}, after) {
		fmt.Println(event.Reason+":", event.Message)
		break
	}
	// Output:
	// playground of etcd 3.7.3 is Healthy, led by playground-1
	// MemberKilled: its etcd was killed
}

// exampleServer answers as a server does that has one cluster.
func exampleServer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire.SetPosition(w.Header(), store.Position{Epoch: 1, EpochID: "a", Revision: 7})
		var text string
		switch {
		case r.URL.Query().Get("watch") == "true":
			text = "id: 1\nevent: recorded\ndata: {\"reason\":\"MemberKilled\",\"message\":\"its etcd was killed\"}\n\n"
		case strings.HasSuffix(r.URL.Path, "/view"):
			text = `{"state":"Healthy","leader":"playground-1"}`
		case r.URL.Path == wire.PathEvents:
			text = `{"kind":"EventList","items":[],"after":"0"}`
		default:
			text = `{"metadata":{"name":"playground"},"spec":{"version":"3.7.3"}}`
		}
		_, _ = fmt.Fprint(w, text)
	}))
}
