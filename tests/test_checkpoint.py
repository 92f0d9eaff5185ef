"""Contract: a recipe is understood whole or refused; a folder loads as saved or says why not."""

import inspect
import tomllib

import pytest
import torch

from skyvec import batches, checkpoint
from skyvec.checkpoint import CheckpointError, RecipeError
from skyvec.recipes import recipe_names


def recipe(**tables):
    return {"model": {"name": "gridconv", "latent": 8}, **tables}


@pytest.fixture
def folder(tmp_path):
    full = checkpoint.complete(recipe(), ("g", "r"))
    weights = checkpoint.build(full).state_dict()
    checkpoint.save(tmp_path / "models" / "m", full, weights, {"steps": 3})
    return tmp_path / "models" / "m"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along_is_understood_and_builds(name):
    full = checkpoint.complete(checkpoint.read_recipe(name), ("TESS",))
    assert checkpoint.build(full).latent == 40
    assert checkpoint.complete(full, ("TESS",)) == full


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, r"\[model\] needs a name"),
        ({"model": {"name": "grid_conv"}}, "unknown model 'grid_conv'; did you mean 'gridconv'"),
        (recipe(training={}), r"unknown table \[training\]; did you mean \[train\]"),
        (recipe(train=3), r"train must be a table"),
        (recipe(data={"round_day": 1.0}), r"'round_day' in \[data\]; did you mean 'round_days'"),
        (recipe(data={"lr": 1.0}), r"unknown key 'lr' in \[data\]; it belongs to \[train\]"),
        (recipe(data={"survey": "x"}), r"unknown key 'survey' in \[data\]"),
        (recipe(data={"bands": "g"}), r"\[data\] bands = 'g' must be a list, each item a text"),
        (recipe(data={"bands": ["g", 1]}), r"must be a list, each item a text"),
        (recipe(train={"steps": 1.5}), r"\[train\] steps = 1.5 must be a whole number"),
        (recipe(train={"steps": True}), r"\[train\] steps = True must be a whole number"),
        (recipe(train={"lr": "fast"}), r"\[train\] lr = 'fast' must be a number"),
        (recipe(train={"steps": 0}), r"\[train\] steps = 0 must be >= 1"),
        (recipe(train={"lr": float("nan")}), r"\[train\] lr = nan must be > 0"),
        (recipe(train={"optimiser": "sgd"}), "'sgd' is unknown; choose from adamax, adam, adamw"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_nearest_known(content, message):
    with pytest.raises(RecipeError, match=message):
        checkpoint.check_recipe(content)


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none.toml: No such file"):
        checkpoint.read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[model\n")
    with pytest.raises(RecipeError, match=r"bad.toml is no TOML"):
        checkpoint.read_recipe(tmp_path / "bad.toml")
    (tmp_path / "odd.toml").write_text("[model]\nname = 'gridconv'\nlatentt = 3\n")
    with pytest.raises(RecipeError, match=r"odd.toml: unknown key 'latentt'.* mean 'latent'"):
        checkpoint.read_recipe(tmp_path / "odd.toml")


def test_a_completed_recipe_names_every_value_and_the_bands():
    full = checkpoint.complete(recipe(train={"lr": 1}), ("g", "r"))
    assert full["data"]["bands"] == ["g", "r"] and full["model"]["bands"] == 2
    assert full["train"]["lr"] == 1.0 and isinstance(full["train"]["lr"], float)
    assert full["data"]["round_days"] == 0.01
    one = checkpoint.complete(recipe(data={"bands": ["r"]}), ("g", "r"))
    assert one["model"]["bands"] == 1
    assert checkpoint.differences(one, full) == [
        "[data] bands is ['r'], not ['g', 'r']",
        "[model] bands is 1, not 2",
        "[train] lr is 0.001, not 1.0",
    ]
    with pytest.raises(RecipeError, match=r"\[model\] bands = 3, but the data have 2 \(g, r\)"):
        checkpoint.complete({"model": {"name": "gridconv", "bands": 3}}, ("g", "r"))


def test_the_data_table_is_the_arguments_of_training_set():
    wanted = dict(inspect.signature(batches.training_set).parameters)
    del wanted["survey"]
    ours = inspect.signature(checkpoint.Data).parameters
    assert [(p.name, p.default, p.annotation) for p in ours.values()] == [
        (p.name, p.default, p.annotation) for p in wanted.values()
    ]


def test_toml_comes_back_as_it_was_written():
    content = {
        "data": {"text": 'a "q" \\ \n\t\x7f\x01 é😀', "empty": [], "list": ["a", "b"]},
        "train": {"int": 10**12, "small": 1e-8, "big": -2.5e300, "yes": True, "whole": 3.0},
    }
    assert tomllib.loads(checkpoint.write_toml(content)) == content
    with pytest.raises(RecipeError, match="None cannot stand in a recipe"):
        checkpoint.write_toml({"data": {"x": None}})


def test_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    full = checkpoint.complete(recipe(), ("g",))
    one, before = checkpoint.build(full), torch.get_rng_state()
    torch.manual_seed(6)
    two = checkpoint.build(full)
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)
    other = checkpoint.build({**full, "train": {**full["train"], "seed": 1}})
    assert not all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_model_loads_as_it_was_saved(folder):
    loaded = checkpoint.load(folder)
    fresh = checkpoint.build(loaded.recipe).state_dict()
    stored = loaded.model.state_dict()
    assert fresh.keys() == stored.keys()
    assert all(torch.equal(fresh[key], stored[key]) for key in fresh)
    assert loaded.name == "m" and not loaded.model.training
    assert loaded.scores["steps"] == 3 and loaded.scores["hash"] == loaded.hash
    assert loaded.recipe == checkpoint.complete(loaded.recipe, ("g", "r"))


def test_the_hash_is_of_the_contents(folder, tmp_path):
    loaded = checkpoint.load(folder)
    again = tmp_path / "elsewhere"
    weights = loaded.model.state_dict()
    assert checkpoint.save(again, loaded.recipe, weights, {"other": 1}) == loaded.hash
    key = next(iter(weights))
    assert checkpoint.save(again, loaded.recipe, {**weights, key: weights[key] + 1}, {}) != (
        loaded.hash
    )


def test_a_folder_that_does_not_load_says_why(folder):
    with pytest.raises(CheckpointError, match=r"no model 'n' in .* \(there are: m\)"):
        checkpoint.load(folder.parent / "n")
    (folder.parent / "half" / checkpoint.TRAINING).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="half is not finished; run the same"):
        checkpoint.load(folder.parent / "half")
    (folder.parent / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty is no model: it has no recipe.toml"):
        checkpoint.load(folder.parent / "empty")


def test_a_damaged_or_foreign_file_is_noticed(folder):
    scores = folder / checkpoint.SCORES
    good = scores.read_text()
    for bad in ("", "[1]", '{"epochs": 3}'):
        scores.write_text(bad)
        with pytest.raises(CheckpointError, match=r"scores.json is damaged or not of skyvec"):
            checkpoint.load(folder)
    scores.write_text(good)
    weights = folder / checkpoint.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not the file that was written"):
        checkpoint.load(folder)


def test_weights_that_do_not_fit_the_model_are_refused(folder):
    loaded = checkpoint.load(folder)
    other = {**loaded.recipe, "model": {**loaded.recipe["model"], "latent": 9}}
    checkpoint.save(folder, other, loaded.model.state_dict(), {})
    with pytest.raises(CheckpointError, match="does not fit this version of skyvec"):
        checkpoint.load(folder)
