"""The model bundle, the network loaded from it, the back ends that run it, and prediction on top."""
