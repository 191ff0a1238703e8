"""Training patches in: EuroSAT and folders of patches, their splits and their augmentation."""
