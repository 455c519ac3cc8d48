"""A trained model in the formats of others, one file each; every conversion is checked by its logits."""
