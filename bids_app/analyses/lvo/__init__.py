"""Large-vessel occlusion on non-contrast CT of the head."""
