"""The bench that a GPU is lent for minutes at a time runs here, on a tiny model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu, gpu_sections
from bench.gpu_card import FULL, TOY, Bench
from flows.shapes import KNOWN


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench") / "gpu.json"
    assert gpu.main(["--toy", "--out", str(out)]) == 0, out.read_text()
    found: dict[str, Any] = json.loads(out.read_text())["sections"]
    return found


def test_every_section_measures_every_case(sections: dict[str, Any]) -> None:
    rows = {name: section["rows"] for name, section in sections.items()}
    assert list(rows) == list(gpu.SECTIONS)
    timed = [row for name in ("decode", "passes", "shared", "skewed") for row in rows[name]]
    assert all(row["seconds"] > 0 for row in timed if "largest_gap" not in row)
    assert [row["batch"] for row in rows["decode"]] == [2, 2, 3, 3]
    assert len(rows["passes"]) == 2 * 2 * len(TOY.lengths)


def test_all_entropies_are_near_those_of_float64(sections: dict[str, Any]) -> None:
    gaps = {
        (row["of"], row["temperature"]): row["largest_gap"]
        for row in sections["entropy"]["rows"]
        if "of" in row
    }
    rounded = "TRL entropy_from_logits"  # without Triton it computes in bf16
    assert all(gap < 0.02 for (name, _), gap in gaps.items() if name != rounded)


def test_a_shared_prompt_changes_no_log_probability(sections: dict[str, Any]) -> None:
    gaps = [row["largest_gap"] for row in sections["shared"]["rows"] if "largest_gap" in row]
    assert len(gaps) == len(TOY.scored) and max(gaps) < 0.05


def test_each_side_trains(sections: dict[str, Any]) -> None:
    for row in sections["step"]["rows"]:
        assert len(row["step_seconds"]) == len(row["losses"]) == 3
        parts = zip(row["of_it_sampling_and_scoring"], row["step_seconds"], strict=True)
        assert all(0 < sampling < whole for sampling, whole in parts)


def test_a_section_that_fails_or_takes_too_long_loses_only_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(bench: Bench, rows: list[Any]) -> None:
        rows.append({"what": "kept"})
        raise RuntimeError("no such kernel")

    def slow(bench: Bench, rows: list[Any]) -> None:
        time.sleep(60)

    monkeypatch.setitem(gpu.SECTIONS, "decode", 2)
    monkeypatch.setattr(gpu_sections, "entropy", broken)
    monkeypatch.setattr(gpu_sections, "decode", slow)
    monkeypatch.setattr(gpu_sections, "shared", lambda _, rows: rows.append({"what": "ran"}))
    out = tmp_path / "gpu.json"
    asked = ["--only", "entropy", "decode", "shared", "--out", str(out), "--toy"]
    assert gpu.main(asked) == 1
    found = json.loads(out.read_text())["sections"]
    assert found["entropy"]["rows"] == [{"what": "kept"}]
    assert "no such kernel" in found["entropy"]["error"]
    assert "time is up" in found["decode"]["error"]
    assert found["shared"]["rows"] == [{"what": "ran"}] and "error" not in found["shared"]


def test_what_does_not_fit_is_a_row() -> None:
    def large() -> None:
        raise torch.OutOfMemoryError("tried to allocate 40 GiB")

    bench, rows = Bench(TOY), []
    bench.end = time.monotonic() + 60
    bench.case(rows, large, length=4096)
    assert rows == [{"length": 4096, "error": "out of memory: tried to allocate 40 GiB"}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_full_model_asks_for_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])


def test_the_full_model_is_llama_3_1_8b() -> None:
    bench = Bench(FULL)
    bench.device = "meta"
    model = bench.model()
    known = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    assert gpu_sections._shape(model) == known
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
