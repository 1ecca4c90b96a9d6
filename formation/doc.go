// Package formation has what founding members find each other by where they are not
// told of each other: a discovery service (formation/discovery) and a name server
// (formation/dns). Neither is asked any more once a cluster has been formed.
package formation
