package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/formation/dns"
)

func dnsCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Show the DNS records of clusters that are formed by DNS",
		Long: `The members of a cluster with spec.formation.mode DNS find each other by SRV
records, and reach each other by the names in them for as long as the cluster
lives. Put the records into your own zone, or delegate the domain to a server that
was started with --dns-listen.`,
		Example: `  quorate dns records orders`,
		Args:    cobra.ArbitraryArgs,
		RunE:    runGroup,
	}
	cmd.AddCommand(dnsRecordsCommand(e))
	return cmd
}

func dnsRecordsCommand(e *env) *cobra.Command {
	var output string
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "records CLUSTER",
		Short: "Print the records that a cluster's zone must have",
		Long: `Print the records that the zone of a cluster's domain must have, as lines of a
zone file: SRV records for its peers and for its clients, and the address of each
member. Members have addresses once their hosts have prepared them; they are
started when their hosts see the records.`,
		Example: `  quorate dns records orders
  quorate dns records orders -o json`,
		Args:              argsBetween(1, 1, "CLUSTER"),
		ValidArgsFunction: e.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			return e.dnsRecords(cmd.Context(), args[0], output)
		},
	}
	outputFlag(cmd, &output, forms...)
	return cmd
}

func (e *env) dnsRecords(ctx context.Context, name, output string) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx, cancel := call(ctx)
	defer cancel()
	t := e.target(v1alpha1.KindCluster, name)
	cluster := &v1alpha1.EtcdCluster{}
	if err = c.Get(ctx, t.key, cluster); err != nil {
		return named(t, err)
	}
	members, err := dns.MembersOf(ctx, c, cluster)
	if err != nil {
		return err
	}
	r, err := dns.ForCluster(cluster, members)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("%s is formed with mode %s, which needs no DNS records", t, cluster.Spec.Formation.Mode)
	}
	if output != outTable {
		return e.printValue(output, r)
	}
	e.printf("%s", r)
	if wanted := int(cluster.Spec.Replicas); len(r.Hosts) < wanted {
		e.errorf("%d of %d members have an address so far: ask again once the others are prepared%s\n", len(r.Hosts), wanted, unprepared(r.Missing))
	}
	return nil
}

func unprepared(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}
