package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func waitCommand(e *env) *cobra.Command {
	var want string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait KIND/NAME --for GOAL",
		Short: "Wait until an object is as it should be",
		Long: `Wait until an object has a condition, has a value, or is gone:

  --for condition=TYPE[=STATUS]     a condition, True unless a status is given; one
                                    that speaks of an older spec does not count
  --for jsonpath=TEMPLATE[=VALUE]   the value, or any where none is given
  --for delete                      the object is gone

It ends with exit code 6 when the time is over.`,
		Example: `  quorate wait cluster/playground --for condition=Available
  quorate wait cluster playground --for condition=Degraded=False --timeout 30s
  quorate wait cluster/playground --for jsonpath='{.status.summary}'=Healthy
  quorate wait cluster/playground --for delete`,
		Args:              argsBetween(1, 2, "KIND/NAME"),
		ValidArgsFunction: e.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.wait(cmd, args, want, timeout)
		},
	}
	cmd.Flags().StringVar(&want, "for", "", "what to wait for: condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], or delete")
	cmd.Flags().DurationVar(&timeout, "timeout", defaultTimeout, "how long to wait")
	complete(cmd, "for", "condition=Available", "condition=Progressing=False", "condition=Degraded=False", "condition=Suspended", "delete", "jsonpath=")
	return cmd
}

func (e *env) wait(cmd *cobra.Command, args []string, want string, timeout time.Duration) error {
	t, err := e.oneTarget(cmd, args)
	if err != nil {
		return err
	}
	reached, err := parseGoal(cmd, t, want)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	p := newProgress(e)
	defer p.done()
	// Who can't be reached at all is told at once; later it is waited out.
	if _, err := look(cmd.Context(), c, t); err != nil {
		return err
	}
	if err := await(cmd.Context(), c, t, timeout, p.step, reached); err != nil {
		return err
	}
	p.done()
	e.printf("%s: %s\n", t, goalText(want))
	return nil
}

func goalText(want string) string {
	if want == "delete" {
		return "deleted"
	}
	return want + " met"
}

// parseGoal reads --for.
func parseGoal(cmd *cobra.Command, t target, want string) (goal, error) {
	gone := func(obj v1alpha1.Object) error {
		if obj == nil {
			return named(t, store.ErrNotFound)
		}
		return nil
	}
	how, rest, _ := strings.Cut(want, "=")
	switch {
	case want == "":
		return nil, usagef(cmd, "--for is missing: condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], or delete")
	case want == "delete":
		return func(obj v1alpha1.Object) (bool, string, error) {
			return obj == nil, "it is still there", nil
		}, nil
	case how == "condition" && rest != "":
		name, status, ok := strings.Cut(rest, "=")
		if !ok {
			status = string(v1alpha1.True)
		}
		return func(obj v1alpha1.Object) (bool, string, error) {
			if err := gone(obj); err != nil {
				return false, "", err
			}
			ok, missing := hasCondition(obj, name, status)
			return ok, missing, nil
		}, nil
	case how == "jsonpath" && rest != "":
		template, value, given := splitTemplate(rest)
		return func(obj v1alpha1.Object) (bool, string, error) {
			if err := gone(obj); err != nil {
				return false, "", err
			}
			got, err := schema.JSONPath(obj, template)
			if err != nil {
				return false, "", &usageError{command: cmd.CommandPath(), text: err.Error()}
			}
			if given && got == value || !given && got != "" {
				return true, "", nil
			}
			return false, fmt.Sprintf("%s is %q", template, got), nil
		}, nil
	}
	return nil, usagef(cmd, "--for is %q: use condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], or delete", want)
}

// splitTemplate cuts TEMPLATE=VALUE; a template in braces may hold "=" itself.
func splitTemplate(text string) (template, value string, given bool) {
	end := 0
	if strings.HasPrefix(text, "{") {
		end = strings.LastIndexByte(text, '}') + 1
	}
	head, tail := text[:end], text[end:]
	rest, value, given := strings.Cut(tail, "=")
	return head + rest, value, given
}

// hasCondition reports whether an object has a condition of that status, seen for
// its present spec.
func hasCondition(obj v1alpha1.Object, name, status string) (bool, string) {
	for _, c := range conditionsOf(obj) {
		if !strings.EqualFold(c.Type, name) {
			continue
		}
		if c.ObservedGeneration != 0 && c.ObservedGeneration < obj.GetGeneration() {
			return false, "waiting for the change to be seen"
		}
		if strings.EqualFold(string(c.Status), status) {
			return true, ""
		}
		return false, fmt.Sprintf("%s is %s: %s", c.Type, c.Status, c.Message)
	}
	return false, "it has no condition " + name + " yet"
}

func conditionsOf(obj v1alpha1.Object) []v1alpha1.Condition {
	switch o := obj.(type) {
	case *v1alpha1.EtcdCluster:
		return o.Status.Conditions
	case *v1alpha1.EtcdMember:
		return o.Status.Conditions
	case *v1alpha1.EtcdHost:
		return o.Status.Conditions
	case *v1alpha1.EtcdTask:
		return o.Status.Conditions
	case *v1alpha1.EtcdBackupPolicy:
		return o.Status.Conditions
	case *v1alpha1.EtcdBackup:
		return o.Status.Conditions
	case *v1alpha1.EtcdRestore:
		return o.Status.Conditions
	}
	return nil
}
