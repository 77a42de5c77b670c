"""One page per subject and one per group, made of what OUTPUT_DIR holds."""
