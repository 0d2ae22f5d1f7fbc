"""layerstore beside buildah, umoci, podman, skopeo and tar: what `scripts/bench/layers` runs."""
