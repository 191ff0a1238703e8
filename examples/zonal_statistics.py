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
# `geocfl.stats` counts a map's classes within polygons: districts, catchments, parcels. Cells on a border count by the
# part that lies inside. Here five districts are drawn over the map of the demonstration; yours can be any vector file.

# %%
import geopandas as gpd
import matplotlib.pyplot as plt
import shapely

import geocfl

demo = geocfl.demo("demo")
result = geocfl.map_scene(demo.scene, "maps", stride=32, overwrite=True)

# %%
west, south, east, north = result.bounds
centres = {"Port": (0.1, 0.8), "Vale": (0.5, 0.75), "Heath": (0.85, 0.8), "Mill": (0.2, 0.2), "Plain": (0.55, 0.25)}
points = shapely.MultiPoint([(west + x * (east - west), south + y * (north - south)) for x, y in centres.values()])
cells = shapely.voronoi_polygons(points, extend_to=shapely.box(*result.bounds), ordered=True)
districts = gpd.GeoDataFrame({"name": list(centres)}, geometry=list(cells.geoms), crs=result.crs.to_wkt())
districts = districts.clip(shapely.box(*result.bounds)).to_crs("EPSG:4326")  # on purpose another CRS than the map's
districts.to_file("districts.gpkg")

# %% [markdown]
# One call, whatever the districts' coordinate reference system. `out="areas.csv"` would write the table as well.

# %%
areas = geocfl.stats(result.paths["lulc"], "districts.gpkg", by="name")
areas

# %% [markdown]
# ## As data frames
# `frame()` is the long form, one row a district and class; `wide()` one row a district, with its polygon.

# %%
share = areas.frame().dropna(subset="share").pivot(index="zone", columns="class", values="share")
share = share[[c.name for c in areas.legend]]  # in the legend's order
(100 * share).round(1)  # per cent

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(1, 1.1))
result.plot(left, legend=False).set(title="Districts", xticks=[], yticks=[])
outlines = areas.wide().to_crs(result.crs.to_wkt())
outlines.boundary.plot(ax=left, color="black", linewidth=1.2)
for zone, place in zip(outlines.zone, outlines.representative_point(), strict=True):
    left.annotate(zone, (place.x, place.y), ha="center", bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 2})
left.set(xlabel="", ylabel="")

share.plot.barh(stacked=True, ax=right, color=[c.color for c in areas.legend], width=0.8)
right.set(title="What they consist of", xlim=(0, 1), ylabel="")
right.xaxis.set_major_formatter("{x:.0%}")
right.invert_yaxis()
right.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.savefig("zonal_statistics.png", dpi=100)
