"""The analysis of answers.csv: figures against statsmodels and arithmetic, keys, missing answers, files."""

import csv
import json

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.multireader import two_way_mean
from fundusgan_jax.reader_study.__main__ import main
from fundusgan_jax.reader_study.analysis import analyse_answers
from fundusgan_jax.reader_study.answers import of_lines

GROUPS = ("resident", "non-retina", "retina")


def simulated_lines(num_readers=12, num_images=30, seed=0, ability=0.3):
    rng = np.random.default_rng(seed)
    reader, image = rng.normal(0, 0.5, num_readers), rng.normal(0, 1, num_images)
    lines = []
    for r in range(num_readers):
        for i in range(num_images):
            truth = "real" if i < num_images // 2 else "synthetic"
            right = rng.random() < 1 / (1 + np.exp(-(ability + reader[r] + image[i])))
            wrong = "synthetic" if truth == "real" else "real"
            lines.append({
                "reader": f"r{r}", "group": GROUPS[r % 3], "image": f"i{i:02d}", "truth": truth,
                "answer": truth if right else wrong, "seconds": f"{rng.lognormal(2, 0.5):.2f}",
            })  # fmt: skip
    return lines


@pytest.fixture(scope="module")
def lines():
    return simulated_lines()


@pytest.fixture(scope="module")
def record(lines):
    pytest.importorskip("statsmodels")
    return analyse_answers(of_lines(lines, "test"), ["group"], "", 0.05, True)


def right(lines, truth=None):
    """{reader: [0 or 1]} of the images of a kind."""
    table = {}
    for line in lines:
        if truth in (None, line["truth"]):
            table.setdefault(line["reader"], []).append(float(line["truth"] == line["answer"]))
    return table


def test_means_and_spread_over_readers(record, lines):
    for share, truth in (("accuracy", None), ("sensitivity", "real"), ("specificity", "synthetic")):
        means = [np.mean(values) for values in right(lines, truth).values()]
        block = record["overall"][share]
        assert block["mean"] == pytest.approx(np.mean(means), abs=1e-12)
        assert block["sd_readers"] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
        assert block["two_way_ci"][0] < block["mean"] < block["two_way_ci"][1]
    assert (record["num_readers"], record["num_images"], record["num_real"]) == (12, 30, 15)


def test_groups_by_statsmodels_formula(record, lines):
    """An independent way: a formula with the reference named, robust and bias-reduced errors of its own fits."""
    pandas, smf = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.formula.api")
    import statsmodels.api as sm

    table = pandas.DataFrame(lines)
    table["right"] = (table.truth == table.answer).astype(float)
    table["time"] = table.seconds.astype(float)
    assert record["gee"]["group"]["reference"] == "resident"
    names = {f"C(group, Treatment('resident'))[T.{name}]": name for name in GROUPS[1:]}
    for figure, outcome, own in (
        ("accuracy", "right", table), ("sensitivity", "right", table[table.truth == "real"]), ("time", "time", table)
    ):  # fmt: skip
        family = sm.families.Gaussian() if figure == "time" else sm.families.Binomial()
        model = smf.gee(f"{outcome} ~ C(group, Treatment('resident'))", "reader", own, family=family,
                        cov_struct=sm.cov_struct.Exchangeable())  # fmt: skip
        robust, reduced = model.fit(), model.fit(cov_type="bias_reduced")
        block = record["gee"]["group"][figure]
        assert block["covariance"] == "bias_reduced" and block["converged"]
        for long, name in names.items():
            assert block["coefficients"][name] == pytest.approx(robust.params[long], abs=1e-5)
            assert block["robust"]["se"][name] == pytest.approx(robust.bse[long], abs=1e-5)
            assert block["robust"]["p"][name] == pytest.approx(robust.pvalues[long], abs=1e-4)
            assert block["se"][name] == pytest.approx(reduced.bse[long], abs=1e-5)
            assert block["p"][name] > block["robust"]["p"][name]


def test_group_intervals_are_from_the_logit_scale(record, lines):
    block = record["groups"]["group"]["retina"]["accuracy"]
    assert block["mean"] == pytest.approx(
        np.mean([np.mean(v) for k, v in right(lines).items() if int(k[1:]) % 3 == 2])
    )
    logit = [np.log(end / (1 - end)) for end in block["gee_ci"]]
    assert np.mean(logit) == pytest.approx(np.log(block["mean"] / (1 - block["mean"])), abs=1e-3)


def test_keys_that_programs_read(record):
    for share in ("accuracy", "sensitivity", "specificity"):
        assert {"mean", "sd_readers", "two_way_ci", "two_way_se", "gee_ci"} <= set(record["overall"][share])
        assert {"coefficients", "se", "p", "covariance", "converged"} <= set(record["gee"]["group"][share])
    assert {"coefficients", "se", "p", "covariance", "converged"} <= set(record["gee"]["group"]["time"])
    assert set(record["groups"]["group"]) == set(GROUPS)
    assert len(record["images"]) == 30 and len(record["readers"]) == 12
    assert {"p", "margin", "equivalent"} <= set(record["equivalence"])


def test_images_and_top_lists(record, lines):
    by_name = {line["image"]: line for line in record["images"]}
    called = {}
    for line in lines:
        called[line["image"]] = called.get(line["image"], 0) + (line["answer"] == "real")
    assert {name: line["called_real"] for name, line in by_name.items()} == called
    top = record["top_images"]["synthetic_called_real"]
    others = [called[n] for n in called if by_name[n]["truth"] == "synthetic" and n not in top]
    assert len(top) == 3 and min(called[name] for name in top) >= max(others)
    out = record["leave_one_reader_out"]
    assert out["num_repeats"] == 12 and all(
        0 <= n <= 12 for n in out["top_images_stay"]["real_called_real"].values()
    )
    low, high = out["ranges"]["accuracy"]
    assert low < record["overall"]["accuracy"]["mean"] < high


def test_missing_answers_are_used_and_said(lines):
    partial = [line for line in lines if not (line["reader"] == "r0" and line["image"] > "i19")]
    record = analyse_answers(of_lines(partial, "test"), [], "", 0.05, True)
    assert record["missing"]["num_missing"] == 10 and record["missing"]["partial_readers"] == ["r0"]
    assert any("10 answers are missing" in text for text in record["warnings"])
    complete = np.asarray([values for name, values in right(partial).items() if name != "r0"])
    expected = two_way_mean(complete, np.repeat([1, 0], 15))
    block = record["missing"]["complete_readers"]
    assert block["two_way_ci"] == pytest.approx([expected.low, expected.high])
    assert np.isfinite(record["overall"]["accuracy"]["two_way_se"])


def test_a_group_that_is_always_right(lines):
    pytest.importorskip("statsmodels")
    easy = [line | ({"answer": line["truth"]} if line["group"] == "retina" else {}) for line in lines]
    record = analyse_answers(of_lines(easy, "test"), ["group"], "", 0.05, True)
    assert record["groups"]["group"]["retina"]["accuracy"]["mean"] == 1
    assert np.isfinite(record["two_way_differences"]["group"]["retina"]["accuracy"]["p"])


def test_equivalence_needs_more_than_no_difference():
    chance = analyse_answers(of_lines(simulated_lines(6, 20, 3, 0.0), "test"), [], "", 0.05, True)
    assert chance["overall"]["accuracy"]["p_chance_two_way"] > 0.05
    assert not chance["equivalence"]["equivalent"]
    assert analyse_answers(of_lines(simulated_lines(6, 20, 3, 0.0), "test"), [], "", 0.4, True)[
        "equivalence"
    ]["equivalent"]


def test_command_writes_everything(tmp_path, lines, capsys):
    pytest.importorskip("statsmodels")
    with open(tmp_path / "answers.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    output = tmp_path / "out"
    assert (
        main(["analyse", f"--answers={tmp_path / 'answers.csv'}", f"--output={output}", "--groups=group"])
        == 0
    )
    record = json.loads((output / "analysis.json").read_text())
    assert record["overall"]["accuracy"]["mean"] == pytest.approx(
        np.mean([np.mean(v) for v in right(lines).values()])
    )
    page = (output / "report.html").read_text()
    assert page.count("<svg") == 3 and 'src="http' not in page and "Groups: group" in page
    names = {path.name for path in output.iterdir()}
    assert {
        "groups.csv",
        "gee.csv",
        "images.csv",
        "readers.csv",
        "two_way_differences.csv",
        "answers.imrmc",
    } <= names
    imrmc = (output / "answers.imrmc").read_text().splitlines()
    start = imrmc.index("BEGIN DATA:") + 1
    assert imrmc[1:4] == ["NR: 12", "N0: 15", "N1: 15"] and len(imrmc) - start == 30 + 360
    scores = [line.split(",") for line in imrmc[start + 30 :]]
    truth = dict(line.split(",")[1::2] for line in imrmc[start : start + 30])
    assert np.mean([score == truth[case] for _, case, _, score in scores]) == pytest.approx(
        record["overall"]["accuracy"]["mean"]
    )
    assert "equivalence with chance" in capsys.readouterr().out
    with pytest.raises(UserError, match="no column hospital"):
        main(["analyse", f"--answers={tmp_path / 'answers.csv'}", "--groups=hospital"])
