"""What is measured on images and prompts. Each module registers the metrics it computes; `base.all_metrics()` lists them.

Importing a module of this package is cheap: networks and image libraries are loaded by the first call that needs them.
"""
