"""Files out: rasters, polygons, styles, preview and summary of a map, from its cells alone."""
