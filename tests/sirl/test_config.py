from __future__ import annotations

import os
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
        ("train.beta=.nan", "no finite number"),
        ("train.learning_rate=1e400", r"train\.learning_rate: .*finite"),
        ("train.learning_rate=-1e400", r"train\.learning_rate: "),
        ("gate.min_direct_gain=1e400", r"gate\.min_direct_gain: .*finite"),
        ("gate.min_direct_gain=nan", r"gate\.min_direct_gain: .*finite"),
        ("gate.min_direct_gain=10", r"gate\.min_direct_gain: .*less than or equal to 1"),
        ("gate.min_attacked_gain=-2", r"gate\.min_attacked_gain: .*greater than or equal to -1"),
        ("attack.sampling.temperature=1e999", r"attack\.sampling\.temperature: .*finite"),
        ("train.anchor.weight=inf", r"train\.anchor\.weight: .*finite"),
        ("seed=4294967296", r"seed: .*less than 4294967296"),
        ("seed=-1", r"seed: .*greater than or equal to 0"),
        ("seed=yes", r"seed: true and false are no numbers"),
        ("seed=010", "is read otherwise than it looks"),
        ("gate.max_undetermined=true", r"max_undetermined: true and false are no numbers"),
        ("train.steps=on", r"steps: true and false are no numbers"),
        ("attack.sampling.top_k=true", r"top_k: true and false are no numbers"),
        ("train.guards={every: 5, every: 6}", "the key 'every' is given twice"),
        ("base.chat_template_kwargs={enable-thinking: false}", r"chat_template_kwargs.*pattern"),
        ("base.chat_template_kwargs={x: [1]}", r"base\.chat_template_kwargs"),
    ],
)
def test_a_bad_override_says_where_and_what(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(PARAMS, [setting])
    assert "\n" not in str(caught.value)


def test_the_largest_seed_and_plain_booleans_are_taken() -> None:
    settings = ["seed=4294967295", "train.force=yes", "gate.min_direct_gain=-1"]
    settings += ["train.learning_rate=1e-5", "base.chat_template_kwargs={enable_thinking: no}"]
    params = config.load(PARAMS, settings)
    assert (params.seed, params.train.force, params.gate.min_direct_gain) == (2**32 - 1, True, -1)
    assert params.train.learning_rate == 1e-5
    assert params.base.chat_template_kwargs == {"enable_thinking": False}
    # A boolean stays one, a number stays one: both go into keys and into the template.
    one = config.load(PARAMS, ["base.chat_template_kwargs={x: 1, y: true}"]).base
    assert repr(one.chat_template_kwargs) == "{'x': 1, 'y': True}"


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(tmp_path / "bad.yaml")
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml .*the key 'name' is given twice"):
        config.load(tmp_path / "twice.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is no regular file"):
        config.load(tmp_path / "pipe.yaml")
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
