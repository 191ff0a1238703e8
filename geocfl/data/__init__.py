"""Labeled patches: EuroSAT and folders of patches, their splits and their augmentation."""
