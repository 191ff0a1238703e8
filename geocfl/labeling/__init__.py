"""Labels as training data: patches cut from scenes where points and polygons say what is there."""
