"""Arrays in, arrays out: territories, differences, networks and synthetic heads."""
