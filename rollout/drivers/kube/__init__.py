"""What the Kubernetes drivers share: the API server, naming and access, HTTPRoutes, model-server deployments."""
