"""Synthetic head CT with and without an occluded artery: truth known by construction."""
