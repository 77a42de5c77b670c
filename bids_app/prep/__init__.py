"""Everything spatial: templates, brain masks and registration."""
