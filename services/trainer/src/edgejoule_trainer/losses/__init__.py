"""Losses and target assignment, as the detectors' authors defined them."""
