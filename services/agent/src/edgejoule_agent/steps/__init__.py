"""Step kinds that run on a device."""
