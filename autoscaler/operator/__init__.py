"""The operator: a fleet as a Kubernetes object. Pure parts say what things mean; a few thin ones touch the cluster."""
