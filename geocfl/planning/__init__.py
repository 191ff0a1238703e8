"""What a run over many scenes will take, measured on a few of them."""
