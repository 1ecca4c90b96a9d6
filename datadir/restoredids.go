package datadir

import "fmt"

// IDs returns the IDs of the cluster and of the member that Restore makes with these
// options, before anything is read or written. They follow from Name, InitialCluster
// and Token. ErrRestore where Restore would refuse the options, and where Token is
// empty, since Restore then makes a new one each time.
func (o RestoreOptions) IDs() (clusterID, memberID uint64, err error) {
	if o.Token == "" {
		return 0, 0, fmt.Errorf("%s: %w: without a token the IDs of the new cluster are not known beforehand", o.source(), ErrRestore)
	}
	cluster, err := o.cluster()
	if err != nil {
		return 0, 0, err
	}
	return uint64(cluster.ID()), uint64(memberNamed(cluster, o.Name).ID), nil
}
