"""What finished maps are good for: zonal statistics, mosaics, regions."""
