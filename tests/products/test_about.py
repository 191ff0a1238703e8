import copy

import pytest

from geocfl.products.about import About

SUMMARY = {
    "geocfl": "1.2.3",
    "scene": {"datetime": "2019-04-16T10:00:31Z", "mission": "Sentinel-2", "level": "L2A"},
    "model": {"name": "m", "window": 64, "origin": {"metrics": {"test": {"accuracy": 0.92444, "n": 5400}}}},
    "settings": {"stride": 16},
    "cell_size_m": 160.0,
}


def said(**changes):
    summary = copy.deepcopy(SUMMARY)
    for name, facts in changes.items():
        summary[name].update(facts)
    return About.of(summary)


def test_a_map_says_when_by_what_how_well_and_from_whose_data() -> None:
    assert said() == About(
        taken="Sentinel-2 L2A, 16 April 2019",
        model="Model m, right on 92.4% of 5,400 test patches.",
        limits="Less accurate on land and in seasons unlike the training data.",
        reading="Each cell has the class of a window of 640 m.",
        credit="Contains modified Copernicus Sentinel data 2019.",
        maker="Made with geocfl 1.2.3.",
    )


@pytest.mark.parametrize(
    ("scene", "taken"),
    [
        ({"mission": None}, "16 April 2019"),
        ({"datetime": None}, "Sentinel-2 L2A"),
        ({"datetime": None, "mission": None, "level": "unknown"}, ""),
    ],
)
def test_only_dated_scenes_of_sentinel_2_get_its_notice(scene, taken) -> None:
    assert said(scene=scene).credit == ""
    assert said(scene=scene).taken == taken


@pytest.mark.parametrize("origin", [{}, {"metrics": {}}, {"metrics": {"test": {"accuracy": 0.9}}}])
def test_a_model_without_metrics_is_named_alone(origin) -> None:
    assert said(model={"origin": origin}).model == "Model m."


def test_a_change_map_names_both_dates_and_the_years_of_sentinel_2() -> None:
    one, two = ({"datetime": f"{year}-06-05T10:00:00Z", "mission": "Sentinel-2"} for year in (2019, 2022))
    change = {"geocfl": "1.2.3", "before": one, "after": two}
    about = About.of_change(change)
    assert about.taken == "5 June 2019 to 5 June 2022"
    assert about.credit == "Contains modified Copernicus Sentinel data 2019, 2022."
    assert About.of_change({**change, "after": one}).credit == "Contains modified Copernicus Sentinel data 2019."
    assert About.of_change({**change, "before": {**one, "mission": None}}).credit.endswith("data 2022.")
    assert About.of_change({**change, "after": {"datetime": None}}).taken == ""
