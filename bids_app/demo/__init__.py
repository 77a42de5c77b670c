"""The phantom dataset that the README's first command runs on."""
