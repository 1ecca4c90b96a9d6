// Package schema reads, defaults, checks, explains and merges the objects of
// api/v1alpha1. What it knows it reads from the generated CRDs, and it runs them
// with the code of the Kubernetes API server (structural schema, defaults, CEL),
// so that a file is judged alike with and without Kubernetes.
//
// Nothing is parsed or compiled before it is first needed, and then once for each
// kind: a command that never looks at an object pays nothing.
package schema
