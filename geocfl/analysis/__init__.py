"""Analysis of finished maps: zonal statistics, mosaics, regions."""
