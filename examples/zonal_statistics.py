# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hectares of each class in each district
#
# `geocfl.stats` computes the area of each class of a map within polygons, such as districts, catchments or parcels.
# Cells on a border count by the fraction that lies inside. This example draws five districts over the demonstration
# map. You can use any vector file.

# %%
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import shapely

import geocfl

folder = Path("zonal_statistics")  # all files of this example
demo = geocfl.demo(folder / "demo")
result = geocfl.map_scene(demo.scene, folder / "maps", stride=32, overwrite=True)

# %%
west, south, east, north = result.bounds
centers = {"Port": (0.1, 0.8), "Vale": (0.5, 0.75), "Heath": (0.85, 0.8), "Mill": (0.2, 0.2), "Plain": (0.55, 0.25)}
points = shapely.MultiPoint([(west + x * (east - west), south + y * (north - south)) for x, y in centers.values()])
cells = shapely.voronoi_polygons(points, extend_to=shapely.box(*result.bounds), ordered=True)
districts = gpd.GeoDataFrame({"name": list(centers)}, geometry=list(cells.geoms), crs=result.crs.to_wkt())
districts = districts.clip(shapely.box(*result.bounds)).to_crs("EPSG:4326")  # deliberately not the CRS of the map
districts.to_file(folder / "districts.gpkg")

# %% [markdown]
# One call computes the areas. The districts can have any coordinate reference system. Pass `out="areas.csv"` to write
# the table as well.

# %%
areas = geocfl.stats(result, folder / "districts.gpkg", by="name")
areas

# %% [markdown]
# ## As data frames
# `frame()` is the long form, with one row per district and class. `wide()` has one row per district, with its polygon.

# %%
share = areas.frame().dropna(subset="share").pivot(index="zone", columns="class", values="share")
share = share[[c.name for c in areas.legend]]  # in the legend's order
(100 * share).round(1)  # percent

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(1, 1.1))
result.plot(left, legend=False).set(title="Districts", xticks=[], yticks=[])
outlines = areas.wide().to_crs(result.crs.to_wkt())
outlines.boundary.plot(ax=left, color="black", linewidth=1.2)
for zone, place in zip(outlines.zone, outlines.representative_point(), strict=True):
    left.annotate(zone, (place.x, place.y), ha="center", bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 2})
left.set(xlabel="", ylabel="")

share.plot.barh(stacked=True, ax=right, color=[c.color for c in areas.legend], width=0.8)
right.set(title="Share of each class", xlim=(0, 1), ylabel="")
right.xaxis.set_major_formatter("{x:.0%}")
right.invert_yaxis()
right.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.savefig(folder / "zonal_statistics.png", dpi=100)
