package web

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// action is one thing that can be done to a cluster from its page.
type action struct {
	// change makes it in the object; nil for what is more than a change.
	change func(*v1alpha1.EtcdCluster)
	// command does it on the command line.
	command string
	// typed: the name must be typed to confirm it.
	typed bool
}

// actions by their name in the page's address, which is also in the keys of their
// words.
var actions = map[string]action{
	"suspend": {command: "suspend", change: func(c *v1alpha1.EtcdCluster) { c.Spec.Suspended = true }},
	"resume":  {command: "resume", change: func(c *v1alpha1.EtcdCluster) { c.Spec.Suspended = false }},
	"restart": {command: "restart", change: restart},
	"delete":  {command: "delete cluster", typed: true},
}

// restart asks for one as the command line does: times are kept to the second, and
// twice within one must still be a change.
func restart(c *v1alpha1.EtcdCluster) {
	at := time.Now().Truncate(time.Second)
	if last := c.Spec.RestartedAt; last != nil && !at.After(last.Time) {
		at = last.Add(time.Second)
	}
	stamp := v1alpha1.NewTime(at)
	c.Spec.RestartedAt = &stamp
}

type actionData struct {
	frame

	Action  string
	Typed   bool
	Cluster *v1alpha1.EtcdCluster
	Plan    v1alpha1.Plan
	// Failed is why it was not done.
	Failed string
	// Version of the object that the plan was made from.
	ResourceVersion string
	Observed        bool
}

// Verb is what the action is called: a cluster that is observed is not deleted by
// being forgotten.
func (d *actionData) Verb() string {
	if d.Observed && d.Action == "delete" {
		return "forget"
	}
	return d.Action
}

// actionDialog shows what an action would do, and asks.
func (c *console) actionDialog(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, act, err := c.readAction(ctx, v)
	if err != nil {
		return err
	}
	if err := c.planAction(ctx, v, d, act); err != nil {
		d.Failed = err.Error()
	}
	return c.pages.render(v, http.StatusOK, "dialog/action", d)
}

func (c *console) readAction(ctx context.Context, v *visit) (*actionData, action, error) {
	name, key := v.r.PathValue("action"), v.key()
	act, ok := actions[name]
	if !ok {
		return nil, act, errNoPage
	}
	d := &actionData{Action: name, Typed: act.typed, Cluster: &v1alpha1.EtcdCluster{}}
	if err := v.api.Get(ctx, key, d.Cluster); err != nil {
		return nil, act, err
	}
	d.frame = c.frame(v, "dialog", d.Cluster.Name).with(fmt.Sprintf("quorate %s %s%s", act.command, key.Name, inNamespace(key.Namespace)))
	d.Path = clusterPath(key.Namespace, key.Name)
	d.ResourceVersion, d.Observed = d.Cluster.ResourceVersion, d.Cluster.Observed()
	return d, act, nil
}

// planAction fills in the plan there would be.
func (*console) planAction(ctx context.Context, v *visit, d *actionData, act action) (err error) {
	if act.change == nil {
		return nil
	}
	proposed := d.Cluster.DeepCopy()
	act.change(proposed)
	d.Plan, err = v.api.PlanFor(ctx, proposed)
	return err
}

// act does it, if the object is still the one whose plan was shown.
func (c *console) act(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, act, err := c.readAction(ctx, v)
	if err != nil {
		return err
	}
	err = c.perform(ctx, v, d, act)
	if err == nil {
		if act.change == nil {
			return v.redirect("/")
		}
		v.Header().Set("HX-Trigger", "q:done, q:changed")
		v.WriteHeader(http.StatusNoContent)
		return nil
	}
	// The plan that was shown may be void: show the one there is now.
	d.Failed = err.Error()
	if planErr := c.planAction(ctx, v, d, act); planErr != nil {
		d.Failed = planErr.Error()
	}
	return c.pages.render(v, http.StatusOK, "dialog/action", d)
}

func (c *console) perform(ctx context.Context, v *visit, d *actionData, act action) error {
	words := c.pages.words[v.look.Lang]
	if act.typed && v.r.PostFormValue("typed") != d.Cluster.Name {
		text, err := words.text("confirm.typeExactly", d.Cluster.Name)
		if err != nil {
			return err
		}
		return fmt.Errorf("%s", text) //nolint:err113 // words for the visitor, in the visitor's language
	}
	if act.change == nil {
		return v.api.Delete(ctx, v1alpha1.KindCluster, store.KeyOf(d.Cluster), store.Preconditions{UID: d.Cluster.UID})
	}
	act.change(d.Cluster)
	d.Cluster.ResourceVersion = v.r.PostFormValue("resourceVersion")
	return v.api.Update(ctx, d.Cluster)
}

// accept lets a restored cluster go on by the plan that was read.
func (c *console) accept(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	if err := v.api.Accept(ctx, v.key(), v.r.PostFormValue("token")); err != nil {
		return err
	}
	return v.redirect(clusterPath(v.key().Namespace, v.key().Name))
}
