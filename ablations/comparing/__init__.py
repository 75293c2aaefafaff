"""The comparison of methods: writing, drawing and scoring, the main table and the qualitative figure. See `ablations.compare`."""
