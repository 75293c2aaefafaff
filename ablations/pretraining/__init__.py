"""The stages of `python -m ablations.pretrain_tiny`: data, VAE, OpenCLIP, T5, oracle classifier, UNet, and their evaluation."""
