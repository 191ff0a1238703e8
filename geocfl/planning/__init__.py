"""Time and size of a run over many scenes, estimated from a few of them."""
