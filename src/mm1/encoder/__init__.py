"""Pre-training of image encoders: contrastive (CLIP, SigLIP) and autoregressive (AIM)."""
