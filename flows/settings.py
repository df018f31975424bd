"""The settings of one run: params.yaml, a preset laid over it, then `key=value` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sirl import config
from sirl.errors import ConfigError
from sirl.layout import Layout

Values = dict[str, Any]


def effective(project: Path, preset: str | None, overrides: Sequence[str]) -> Values:
    """The merged, validated settings as plain values.

    Plain rather than validated values are what a worktree's params.yaml holds: a section that is
    not overridden stays as it was written, so DVC finds its stages in the cache.

    Raises:
        ConfigError: The preset is unknown, or the result is not valid.
    """
    values = config.read_yaml(Layout(project).params)
    where = "params.yaml"
    if preset:
        path = preset_path(project, preset)
        values = laid_over(values, config.read_yaml(path))
        where = path.name
    values = config.override(values, overrides)
    config.validate(values, where=where)
    return values


def preset_path(project: Path, preset: str) -> Path:
    """The file of a preset, given by name or by path.

    Raises:
        ConfigError: There is no such preset; the choices are named.
    """
    if preset.endswith((".yaml", ".yml")):
        return Path(preset)
    folder = project / "presets"
    path = folder / f"{preset}.yaml"
    if not path.is_file():
        choices = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"unknown preset {preset!r}", f"Choose from: {choices}")
    return path


def laid_over(values: Mapping[str, Any], preset: Mapping[str, Any]) -> Values:
    """`values` with a preset's sections laid over them, key by key; each value is replaced whole.

    A section that picks another `name` is another kind with other keys: it replaces the old one.
    """
    return {**values, **{key: _section(values.get(key), new) for key, new in preset.items()}}


def _section(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return dict(new) if new.get("name", old.get("name")) != old.get("name") else {**old, **new}
