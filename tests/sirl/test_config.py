from __future__ import annotations

from pathlib import Path

import pytest

from sirl import config
from sirl.attacks import PastTense
from sirl.errors import ConfigError
from sirl.generation import TransformersBackend

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_default_params_load() -> None:
    assert config.load(PARAMS).name == "smollm2-135m-instruct"


def test_override_reaches_the_value() -> None:
    params = config.load(PARAMS, ["train.beta=0.01", "attack.sampling.max_new_tokens=8"])
    assert (params.train.beta, params.attack.sampling.max_new_tokens) == (0.01, 8)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.bta=0.01", r"unknown key train\.bta.*Choose from: .*beta"),
        ("train.anchor.weigth=1", r"unknown key train\.anchor\.weigth.*Choose from: .*weight"),
        ("train.group=1", r"train\.group: .*greater than or equal to 2"),
        ("base.model.name=nonsense", r"unknown name 'nonsense'.*'hub'"),
        ("attack.attacks.0.name=nonsense", r"unknown name 'nonsense'.*past_tense"),
        ("judge.judges=[]", r"judge\.judges: .*at least 1"),
        ("seed=now", r"seed: .*integer"),
        ("train", "not of the form"),
        ("name.x=1", "not a key here"),
        ("train.beta=[", "not valid YAML"),
    ],
)
def test_a_bad_override_says_where_and_what(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(PARAMS, [setting])
    assert "\n" not in str(caught.value)


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        config.load(tmp_path / "list.yaml")


def test_an_attack_whose_need_is_not_met_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PastTense, "needs", ("attacker",))
    with pytest.raises(ConfigError, match=r"past_tense needs a model that writes its attacks"):
        config.load(PARAMS)
    attacker = "attack.attacker={name: own, model: {name: local, path: m}}"
    assert config.load(PARAMS, [attacker]).attack.attacker is not None
    monkeypatch.setattr(PastTense, "needs", ("gradients",))
    assert config.load(PARAMS)
    monkeypatch.setattr(TransformersBackend, "provides", frozenset())
    with pytest.raises(ConfigError, match=r"past_tense needs gradients.*leave it out"):
        config.load(PARAMS)
