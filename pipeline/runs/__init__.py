"""From params.yaml to trained cells on disk: checks, plan, processes, store."""
