"""The frozen and initial networks of a profile: what they are, and how they are loaded or built."""
