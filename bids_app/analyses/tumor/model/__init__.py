"""Arrays in, arrays out: labels, networks, measures and synthetic tumours."""
