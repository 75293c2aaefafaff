"""The frozen and initial networks of a profile."""
