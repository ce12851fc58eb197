"""A platform as Kubernetes runs it: manifests for Kustomize, derived from what is declared."""
