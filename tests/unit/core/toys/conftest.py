"""Toy steps are imported by workers, not collected by pytest."""

collect_ignore_glob = ["*.py"]
