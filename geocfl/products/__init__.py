"""The products of a map: rasters, polygons, styles, preview and summary, all made from its cells."""
