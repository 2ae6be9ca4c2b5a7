"""Tools around the notebook; run them from the root of the repository."""
