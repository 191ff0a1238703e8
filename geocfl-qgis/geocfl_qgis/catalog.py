"""The commands of geocfl that the plugin offers, each with its options and outputs."""

from __future__ import annotations

from dataclasses import replace

from .commands import (
    ADVANCED,
    CHOICE,
    CHOICES,
    CRS,
    EXTENT,
    FIELD,
    FILE,
    FLAG,
    FOLDER,
    INTEGER,
    NEW_FILE,
    NEW_FOLDER,
    NUMBER,
    PAGE,
    POINT,
    RASTER,
    RASTERS,
    TEXT,
    TEXTS,
    VECTOR,
    VECTOR_FILE,
    Command,
    Option,
    Output,
)

MAPS, USE, LEARN = "Maps", "Use maps", "Models of your own"
"""Groups in the toolbox."""
MODELS = ("eurosat-rgb-dense", "eurosat-rgb-lite0")
SPLITS = ("manifest", "paper", "spatial", "random:0.8")
LOSSES = ("ce", "weighted-ce", "focal", "class-focal", "cb-focal", "balanced-softmax", "logit-adjusted", "ldam")
GEOPACKAGE, TABLE, TIFF = "GeoPackage (*.gpkg)", "CSV (*.csv)", "GeoTIFF (*.tif)"

OVERWRITE = Option("OVERWRITE", "Replace existing outputs", FLAG)
MODEL = (
    Option("MODEL", "Model", CHOICE, default=MODELS[0], choices=MODELS),
    Option("MODEL_FOLDER", "Folder of a model of your own, instead", FOLDER, parameter="model"),
)
DEVICE = Option("DEVICE", "Device", CHOICE, ADVANCED, default="auto", choices=("auto", "cpu", "cuda", "mps"))
SEED = Option("SEED", "Random seed", INTEGER, ADVANCED, default=0)
MAP = Option("MAP", "Map (class raster NAME_lulc.tif)", RASTER, parameter="map_file", positional=True, required=True)


def _other_scene(parameter: str) -> Option:
    label = "Or another scene: product.SAFE, its zip, folder of bands, STAC Item or URL"
    return Option("SCENE_OTHER", label, FOLDER, parameter=parameter, positional=True)


def _scene(parameter: str) -> tuple[Option, Option]:
    scene = Option("SCENE", "Scene (raster layer or file)", RASTER, parameter=parameter, positional=True)
    return scene, _other_scene(parameter)


PIXELS = (
    Option("BANDS", "Band numbers, such as B04=3,B03=2,B02=1", TEXT, ADVANCED),
    Option("SCALE", "Scale of the pixel values", NUMBER, ADVANCED),
    Option("OFFSET", "Offset of the pixel values", NUMBER, ADVANCED),
    Option("NODATA", "Pixel value that means no data", NUMBER, ADVANCED),
)
MASK_VALUES = (
    Option("MASK_CLASSES", "Mask values that count as masked", TEXT, ADVANCED),
    Option("MASK_BITS", "Bits of the mask that count as masked", TEXT, ADVANCED),
)
MAP_LAYERS = (
    Output("LULC", "Land cover", RASTER, "_lulc.tif", shown=True),
    Output("POLYGONS", "Land cover polygons", VECTOR, "_lulc.gpkg", layer="lulc", shown=False),
    Output("CONFIDENCE", "Confidence", RASTER, "_confidence.tif", shown=False),
)
SUMMARY = Output("SUMMARY", "Summary", FILE, "_summary.json")

DEMO = Command(
    "demo",
    "Map a demonstration scene",
    MAPS,
    (
        Option("OUT", "Output folder", NEW_FOLDER, required=True),
        *MODEL,
        SEED,
        DEVICE,
        OVERWRITE,
    ),
    (
        *MAP_LAYERS,
        Output("SCENE", "Demonstration scene", RASTER, "_scene.tif", shown=True),
        SUMMARY,
    ),
)
MAP_SCENE = Command(
    "map",
    "Map land cover",
    MAPS,
    (
        *_scene("scenes"),
        Option("OUT", "Output folder", NEW_FOLDER, required=True),
        *MODEL,
        Option("STRIDE", "Cell size in pixels", INTEGER, default=64, between=(1, 64)),
        Option("BBOX", "Only this extent", EXTENT),
        Option("AOI", "Only the area of these polygons", VECTOR),
        Option("MASK_SCL", "Mask clouds with the product's own cloud mask", FLAG, parameter="mask", value="scl"),
        Option("MASK", "Or mask clouds with this raster", RASTER),
        Option(
            "PRODUCTS",
            "Products",
            CHOICES,
            default=("lulc", "confidence", VECTOR, "preview"),
            choices=(
                "lulc",
                "confidence",
                "vector",
                "preview",
                "windows",
                "probabilities",
                "entropy",
                "novelty",
                "valid",
                "sets",
                "features",
                "zarr",
                "sld",
                "truecolor",
                "project",
                "report",
                "stac",
            ),
        ),
        Option("SMOOTH", "Smooth the map", FLAG),
        OVERWRITE,
        Option(
            "VECTOR",
            "Polygon formats",
            CHOICES,
            ADVANCED,
            default=("gpkg",),
            choices=("gpkg", "geoparquet", "flatgeobuf", "geojson"),
        ),
        Option("MIN_AREA", "Smallest polygon in hectares", NUMBER, ADVANCED, default=0.0, between=(0, None)),
        Option("SIMPLIFY", "Simplify polygons by meters", NUMBER, ADVANCED, default=0.0, between=(0, None)),
        Option("SMOOTH_KEEP", "Classes that are not smoothed", TEXT, ADVANCED),
        Option("MIN_CONFIDENCE", "Least confidence", NUMBER, ADVANCED, default=0.0, between=(0, 1)),
        Option("MAX_NOVELTY", "Largest novelty in percent", NUMBER, ADVANCED, between=(0, 100)),
        *PIXELS,
        *MASK_VALUES,
        Option("MAX_MASKED", "Largest masked share of a cell", NUMBER, ADVANCED, default=0.5, between=(0, 1)),
        Option("NO_WARP", "Refuse scenes with another pixel size", FLAG, ADVANCED),
        Option("ALLOW_NO_CRS", "Allow scenes without a CRS", FLAG, ADVANCED),
        Option("DATETIME", "Acquisition time", TEXT, ADVANCED),
        Option("INTERPOLATE", "Interpolate every second cell", FLAG, ADVANCED),
        Option("TTA", "Test-time augmentation", CHOICE, ADVANCED, choices=("1", "2", "4", "8")),
        DEVICE,
        Option(
            "BACKEND",
            "Inference library",
            CHOICE,
            ADVANCED,
            default="auto",
            choices=("auto", "openvino", "onnx", "torch"),
        ),
        Option(
            "PRECISION",
            "Numeric precision",
            CHOICE,
            ADVANCED,
            default="auto",
            choices=("auto", "float32", "bfloat16", "float16"),
        ),
        Option("BATCH_SIZE", "Windows per batch", INTEGER, ADVANCED, between=(1, None)),
        Option("MEMORY", "Memory limit, such as 2GB", TEXT, ADVANCED),
    ),
    (
        *MAP_LAYERS,
        Output("ENTROPY", "Entropy", RASTER, "_entropy.tif", shown=False),
        Output("NOVELTY", "Novelty", RASTER, "_novelty.tif", shown=False),
        Output("VALID", "Valid share", RASTER, "_valid.tif", shown=False),
        Output("SETS", "Size of the prediction set", RASTER, "_sets.tif", shown=False),
        Output("TRUECOLOR", "Scene, true color", RASTER, "_truecolor.tif", shown=False),
        Output("REPORT", "Report", FILE, "_report.html"),
        SUMMARY,
    ),
)
CLOUDS = Command(
    "clouds",
    "Detect clouds",
    MAPS,
    (
        *_scene("scene"),
        Option("OUT", "Mask", NEW_FILE, required=True, filter=TIFF),
        Option("BUFFER", "Margin in pixels of 30 m", INTEGER, default=4, between=(0, None)),
        OVERWRITE,
        *PIXELS,
    ),
    (Output("MASK", "Clouds and shadows", RASTER, ".tif", shown=True, style="clouds.qml"),),
)
STATS = Command(
    "stats",
    "Areas of classes in zones",
    USE,
    (
        MAP,
        Option("ZONES", "Zones (polygons)", VECTOR, required=True, layer="layer"),
        Option("BY", "Field with the zone names", FIELD, fields_of="ZONES"),
        Option("OUT", "Table", NEW_FILE, required=True, filter=f"{GEOPACKAGE};;{TABLE}"),
        OVERWRITE,
    ),
    (
        Output("AREAS", "Areas of classes", VECTOR, ".gpkg", layer="zones", shown=True),
        Output("TABLE", "Areas of classes", VECTOR, ".csv", shown=True),
    ),
)
MOSAIC = Command(
    "mosaic",
    "Merge maps",
    USE,
    (
        Option("MAPS", "Maps (class rasters NAME_lulc.tif)", RASTERS, positional=True),
        Option("MAPS_FOLDER", "Or the folder of the maps", FOLDER, parameter="maps", positional=True),
        Option("OUT", "Merged map (NAME_lulc.tif)", NEW_FILE, required=True, filter=TIFF, ending="_lulc.tif"),
        Option(
            "OVERLAP",
            "What counts where maps overlap",
            CHOICE,
            default="confidence",
            choices=("confidence", "newest", "mode", "fuse"),
        ),
        Option("CRS", "CRS of the merged map", CRS),
        Option(
            "VECTOR",
            "Polygon formats to add",
            CHOICES,
            choices=("gpkg", "geoparquet", "flatgeobuf", "geojson"),
        ),
        Option("UPDATE", "Update an existing map where maps have changed", FLAG),
        OVERWRITE,
        Option("REGIONS", "Regions (polygons): one map for each", VECTOR, ADVANCED, layer="layer"),
        Option("BY", "Field with the names of regions", FIELD, ADVANCED, fields_of="REGIONS"),
        Option("GRID", "Grid: mgrs for one map per 100 km square", TEXT, ADVANCED),
        Option("GRID_POLYGONS", "Or the tiles (polygons)", VECTOR, ADVANCED, parameter="grid", layer="layer"),
        Option("TILES_BY", "Field with the names of tiles", FIELD, ADVANCED, fields_of="GRID_POLYGONS", parameter="by"),
        Option("WORKERS", "Processes that make tiles", INTEGER, ADVANCED, default=1, between=(1, None)),
        Option("OUT_FOLDER", "Folder for the maps of regions or tiles", NEW_FOLDER, ADVANCED, parameter="out"),
    ),
    MAP_LAYERS,
)
SAMPLE = Command(
    "sample",
    "Draw a sample",
    USE,
    (
        MAP,
        Option("SIZE", "Number of points", INTEGER, between=(1, None)),
        Option("TARGET_SE", "Or the standard error to reach, such as 0.02", NUMBER, between=(0, 1)),
        Option("EXPECTED_UA", "Expected user's accuracy, such as 0.8", TEXT),
        Option("OUT", "Sample", NEW_FILE, required=True, filter=GEOPACKAGE),
        Option("ALLOCATION", "Allocation of the points", TEXT, default="proportional"),
        Option("DESIGN", "Design", CHOICE, default="stratified", choices=("stratified", "simple", "systematic")),
        OVERWRITE,
        Option("MIN_DISTANCE", "Smallest distance in meters", NUMBER, ADVANCED, default=0.0, between=(0, None)),
        SEED,
        Option("STRATA", "Strata (raster)", RASTER, ADVANCED),
        Option("STRATA_POLYGONS", "Or strata (polygons)", VECTOR, ADVANCED, parameter="strata", layer="layer"),
        Option("BY", "Field that names the polygons of the strata", FIELD, ADVANCED, fields_of="STRATA_POLYGONS"),
        Option("CSV", "CSV too", FLAG, ADVANCED),
        Option("KML", "KML too", FLAG, ADVANCED),
    ),
    (
        Output("SAMPLE", "Sample", VECTOR, ".gpkg", layer="sample", shown=True),
        Output("WINDOWS", "Windows of the sample", VECTOR, ".gpkg", layer="windows", shown=True),
        Output("PROJECT", "QGIS project", FILE, ".qgz"),
    ),
)
ASSESS = Command(
    "assess",
    "Accuracy and areas from a sample",
    USE,
    (
        MAP,
        Option("SAMPLE", "Answered sample", VECTOR_FILE, parameter="sample_file", positional=True, required=True),
        Option("ANSWERS", "Answers in another file", FILE, filter=TABLE),
        Option("OUT", "Folder for report and tables", NEW_FOLDER, required=True),
        Option("MISSING_AT_RANDOM", "Leave out points without an answer", FLAG),
        Option("POST_STRATIFY", "Assess another map than the sampled one", FLAG),
        OVERWRITE,
    ),
    (
        Output("REPORT", "Report", PAGE, "report.html"),
        Output("ASSESSMENT", "Assessment", FILE, "assessment.json"),
    ),
)
CHANGE = Command(
    "change",
    "Change between two maps",
    USE,
    (
        Option("BEFORE", "Earlier map (NAME_lulc.tif)", RASTER, positional=True, required=True),
        Option("AFTER", "Later map (NAME_lulc.tif)", RASTER, positional=True, required=True),
        Option("OUT", "Change map (NAME_change.tif)", NEW_FILE, required=True, filter=TIFF, ending="_change.tif"),
        Option("FORBID", "Impossible transitions, one a line, such as Residential>Forest", TEXTS),
        Option("MIN_AREA", "Smallest polygon in hectares", NUMBER, default=0.0, between=(0, None)),
        OVERWRITE,
        Option("PERSISTENCE", "Prior probability that a cell keeps its class", NUMBER, ADVANCED, between=(0, 1)),
        Option("PRIOR", "Prior of all transitions (NAME_change.csv)", FILE, ADVANCED, filter=TABLE),
    ),
    (
        Output("CHANGE", "Change", RASTER, "_change.tif", shown=True),
        Output("POLYGONS", "Change polygons", VECTOR, "_change.gpkg", layer="change", shown=False),
        Output("PROBABILITY", "Probability of change", RASTER, "_change_probability.tif", shown=False),
        Output("REPORT", "Report", PAGE, "_change.html"),
        Output("TABLE", "Transitions", FILE, "_change.csv"),
    ),
)
SIMILAR = Command(
    "similar",
    "Find similar cells",
    USE,
    (
        Option(
            "MAP", "Map with features (NAME_lulc.tif)", RASTER, parameter="map_file", positional=True, required=True
        ),
        Option("POINT", "Point in the cell to compare with", POINT, positional=True, required=True),
        Option("N", "Number of cells", INTEGER, default=10, between=(1, None)),
        Option("OUT", "Similar cells", NEW_FILE, required=True, filter=GEOPACKAGE),
        OVERWRITE,
        Option("SEARCH", "Search this map instead", RASTER, ADVANCED),
        Option("RASTER", "Similarity of every cell", NEW_FILE, ADVANCED, filter=TIFF),
    ),
    (
        Output("CELLS", "Similar cells", VECTOR, ".gpkg", shown=True),
        Output("SIMILARITY", "Similarity", RASTER, ".tif", shown=True),
    ),
)
SUGGEST = Command(
    "suggest",
    "Suggest where to label",
    LEARN,
    (
        MAP,
        Option("N", "Number of windows", INTEGER, default=50, between=(1, None)),
        Option("LABELED", "Labels of an earlier round", VECTOR_FILE),
        Option("CLASSES", "More classes, such as Snow,Bare Rock", TEXT),
        Option("OUT", "Suggestions", NEW_FILE, required=True, filter=GEOPACKAGE),
        OVERWRITE,
    ),
    (
        Output("SUGGESTIONS", "Suggestions", VECTOR, ".gpkg", layer="suggest", shown=True),
        Output("PROJECT", "QGIS project", FILE, ".qgz"),
    ),
)
PATCHES = Command(
    "patches",
    "Cut training patches from labels",
    LEARN,
    (
        Option("SCENES", "Scenes (raster layers or files)", RASTERS, positional=True),
        _other_scene("scenes"),
        Option(
            "LABELS", "Labels (points or polygons)", VECTOR, positional=True, required=True, points=True, layer="layer"
        ),
        Option("BY", "Field with the classes", FIELD, required=True, fields_of="LABELS"),
        Option("OUT", "Folder for the patches", NEW_FOLDER, required=True),
        Option("MIN_SHARE", "Smallest part of a patch in polygons of its class", NUMBER, default=0.7, between=(0, 1)),
        Option("SPLIT", "Split by place, such as blocks:5 for blocks of 5 km", TEXT),
        Option("MASK_SCL", "Leave out clouds by the product's own cloud mask", FLAG, parameter="mask", value="scl"),
        Option("MASK", "Or leave out what this raster masks", RASTER),
        OVERWRITE,
        Option("SPACING", "Distance between patches in meters", NUMBER, ADVANCED, between=(0, None)),
        Option("OVERLAP", "Overlapping labels", CHOICE, ADVANCED, default="refuse", choices=("refuse", "share")),
        *(replace(option, advanced=True) for option in MODEL),
        Option("PATCH_BANDS", "Bands to write", TEXT, ADVANCED),
        *PIXELS,
        *MASK_VALUES,
        SEED,
    ),
    (Output("MANIFEST", "Patches", VECTOR, "manifest.gpkg", listed=False, shown=True),),
)
TRAIN = Command(
    "train",
    "Train a model of your own",
    LEARN,
    (
        Option("DATA", "Patches: one folder for each class", FOLDER, required=True),
        Option("FREEZE", "Train only the last layer, in minutes", FLAG, default=True),
        Option("ADD_CLASSES", "Add the classes to those of the model", FLAG),
        Option("OUT", "Folder for the model", NEW_FOLDER, required=True),
        Option("SPLIT", "Split into training and test patches", CHOICE, choices=SPLITS),
        Option("WEIGHTS", "Folder of the model to start from, instead of the built-in one", FOLDER),
        OVERWRITE,
        Option("LOSS", "Loss function", CHOICE, ADVANCED, choices=LOSSES),
        Option("SKIP_BAD", "Skip patches that cannot be read", FLAG, ADVANCED),
        Option("EPOCHS", "Passes over the training patches", INTEGER, ADVANCED, between=(1, None)),
        Option("RESUME", "Resume an interrupted training", FLAG, ADVANCED),
        Option("SEED", "Random seed", INTEGER, ADVANCED),
        DEVICE,
    ),
    (
        Output("REPORT", "Report", PAGE, "report.html", listed=False),
        Output("METRICS", "Metrics", FILE, "metrics.json", listed=False),
    ),
)
COMMANDS = (DEMO, MAP_SCENE, CLOUDS, STATS, MOSAIC, SAMPLE, ASSESS, CHANGE, SIMILAR, SUGGEST, PATCHES, TRAIN)
