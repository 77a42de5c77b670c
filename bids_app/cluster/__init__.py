"""Steps as jobs of a cluster: what each scheduler is told, and how its answers are read."""
