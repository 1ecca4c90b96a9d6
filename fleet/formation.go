package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd/srv"
	"github.com/quorate/quorate/store"
)

// HeldFormation says that the founding members have no way to find each other.
const HeldFormation = "FormationImpossible"

// Meeting is a discovery service of Quorate's own.
type Meeting interface {
	// Open makes the place where the founding members of the cluster meet, and returns the
	// same each time it is asked for the same cluster.
	Open(ctx context.Context, c *v1alpha1.EtcdCluster) (*v1alpha1.DiscoveryBootstrap, error)
}

// fromNothing reports whether the cluster is founded rather than restored: how the
// members of a restored one are told of each other does not depend on the mode.
func fromNothing(c *v1alpha1.EtcdCluster) bool { return c.Spec.RestoreName == "" }

// formationProblem says why the members of a cluster that is to be formed could not
// find each other, or "".
func (c *ClusterController) formationProblem(ctx context.Context, cluster *v1alpha1.EtcdCluster) string {
	if !fromNothing(cluster) {
		return ""
	}
	switch cluster.Spec.Formation.Mode {
	case v1alpha1.FormationDNS:
		return c.sharedNames(ctx, cluster)
	case v1alpha1.FormationDiscovery:
		return c.discoveryProblem(ctx, cluster)
	case v1alpha1.FormationStatic, v1alpha1.FormationSequential:
	}
	return ""
}

// sharedNames says which earlier cluster has the SRV names of this one: members would
// take those of the other for their own.
func (c *ClusterController) sharedNames(ctx context.Context, cluster *v1alpha1.EtcdCluster) string {
	clusters, err := c.opts.Store.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
	if err != nil {
		return "it can't be told whether another cluster has the same DNS names: " + err.Error()
	}
	mine := cluster.Spec.Formation.DNS
	for _, o := range clusters {
		other, ok := o.(*v1alpha1.EtcdCluster)
		if !ok || other.UID == cluster.UID || other.Spec.Formation.Mode != v1alpha1.FormationDNS || *other.Spec.Formation.DNS != *mine {
			continue
		}
		mineCame, otherCame := cluster.CreationTimestamp, other.CreationTimestamp
		if cluster.UID == "" || otherCame.Before(&mineCame) || !mineCame.Before(&otherCame) && other.UID < cluster.UID {
			return fmt.Sprintf("cluster %s/%s has the same SRV records, of domain %s and service name %q: give spec.formation.dns another domain or serviceName",
				other.Namespace, other.Name, mine.Domain, mine.ServiceName)
		}
	}
	return ""
}

func (c *ClusterController) discoveryProblem(ctx context.Context, cluster *v1alpha1.EtcdCluster) string {
	if cluster.Spec.Formation.Discovery == nil {
		if c.opts.Meeting == nil {
			return "the members are to meet at Quorate's own discovery service, and this server has none: start it with --discovery-listen, or name another service in spec.formation.discovery"
		}
		return ""
	}
	if _, err := c.discoveryCA(ctx, cluster); err != nil {
		return err.Error()
	}
	return ""
}

// discoveryCA is what the certificate of the cluster's own choice of a discovery
// service is checked by, in PEM; empty for the roots of the hosts.
func (c *ClusterController) discoveryCA(ctx context.Context, cluster *v1alpha1.EtcdCluster) (string, error) {
	name := cluster.Spec.Formation.Discovery.CASecretRef
	if name == "" {
		return "", nil
	}
	secret := &v1alpha1.Secret{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: cluster.Namespace, Name: name}, secret)
	if errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("spec.formation.discovery.caSecretRef names the Secret %s, which does not exist in namespace %s: apply it with a ca.crt",
			name, cluster.Namespace)
	}
	if err != nil {
		return "", err
	}
	if len(secret.Data[secretCA]) == 0 {
		return "", fmt.Errorf("the Secret %s/%s, which spec.formation.discovery.caSecretRef names, has no ca.crt: put the CA of the discovery service there",
			cluster.Namespace, name)
	}
	return string(secret.Data[secretCA]), nil
}

// meet completes the bootstrap of a founding member with how it finds the others.
func (c *ClusterController) meet(ctx context.Context, s *State, obj *v1alpha1.EtcdMember) error {
	b := obj.Spec.Bootstrap
	if b == nil || b.State != v1alpha1.BootstrapNew || b.Discovery != nil || b.DNS != nil {
		return nil
	}
	f := s.Cluster.Spec.Formation
	switch f.Mode {
	case v1alpha1.FormationDNS:
		b.DNS = f.DNS.DeepCopy()
	case v1alpha1.FormationDiscovery:
		at, err := c.discovery(ctx, s.Cluster)
		if err != nil {
			return err
		}
		b.Discovery = at
		b.InitialCluster = []v1alpha1.Peer{{Name: obj.Name, URL: obj.Status.PeerURL}}
	case v1alpha1.FormationStatic, v1alpha1.FormationSequential:
	}
	return nil
}

func (c *ClusterController) discovery(ctx context.Context, cluster *v1alpha1.EtcdCluster) (*v1alpha1.DiscoveryBootstrap, error) {
	d := cluster.Spec.Formation.Discovery
	if d == nil {
		if c.opts.Meeting == nil {
			return nil, fmt.Errorf("%s: %w", c.formationProblem(ctx, cluster), errHeld)
		}
		return c.opts.Meeting.Open(ctx, cluster)
	}
	ca, err := c.discoveryCA(ctx, cluster)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errHeld)
	}
	return &v1alpha1.DiscoveryBootstrap{Endpoints: d.Endpoints, Token: d.Token, CA: ca}, nil
}

// dnsNames are the names that a member's certificates carry beside those of its host,
// since its peers and clients find it by them: its own in the cluster's domain, and
// the domain, by which etcd checks those that it found by SRV records.
func dnsNames(c *v1alpha1.EtcdCluster, m *v1alpha1.EtcdMember) []string {
	d := c.Spec.Formation.DNS
	if d == nil || c.Spec.Formation.Mode != v1alpha1.FormationDNS {
		return nil
	}
	return []string{srv.HostName(m.Name, d.Domain), d.Domain}
}
