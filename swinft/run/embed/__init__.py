"""Embeddings of images, by the networks of a run or by a pretrained backbone, and models that are fitted on them."""
