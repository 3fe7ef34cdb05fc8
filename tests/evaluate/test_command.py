"""python -m fundusgan_jax.evaluate on folders: other people's images are scored, and mistakes get one line."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.__main__ import main
from fundusgan_jax.metrics.image import psnr
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE
from tests.support import layouts


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """12 smooth images, noisy copies of them under other suffixes, and 9 other images of another size."""
    root, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    images = gaussian_filter(rng.uniform(0, 255, (21, 64, 64, 3)), (0, 3, 3, 0)) * 3 - 255
    images = np.clip(images, 0, 255).astype(np.uint8)
    noisy = np.clip(images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    for name, stack, suffix in (("real", images[:12], "png"), ("noisy", noisy[:12], "bmp")):
        (root / name).mkdir()
        for number, image in enumerate(stack):
            Image.fromarray(image).save(root / name / f"{number:02d}.{suffix}")
    (root / "other").mkdir()
    for number, image in enumerate(images[12:]):
        Image.fromarray(image[:48, :48]).save(root / "other" / f"x{number}.png")
    return root, images, noisy


def _run(root, fake, output, *more):
    flags = [f"--real={root / 'real'}", f"--fake={root / fake}", f"--output={output}", "--preprocess=none"]
    assert main([*flags, "--features=pixels", *more]) == 0
    return json.loads((output / "eval.json").read_text())


def test_two_folders_as_sets_and_in_pairs(folders, tmp_path, capsys):
    root, images, noisy = folders
    record = _run(root, "noisy", tmp_path / "noisy", "--metrics=fid,kid,precision,ssim,psnr")
    assert record["num_samples"] == record["num_images"] == 12
    assert record["model"]["psnr"] == pytest.approx(float(np.mean(psnr(images[:12], noisy[:12]))), rel=1e-5)
    # Pixels are no Inception: no figure may be called FID.
    assert set(record["model"]) == {
        "frechet", "frechet_infinity", "kernel", "kernel_subsets", "kernel_subsets_std", "precision",
        "ssim", "ssim_fov", "psnr", "psnr_fov",
    }  # fmt: skip
    assert list(record["baselines"]) == ["mean", "16x16"]  # at 64 px, 64x64 is the image itself
    assert record["baselines"]["mean"]["psnr"] < record["model"]["psnr"]
    low, high = record["intervals"]["psnr"]
    assert low < record["model"]["psnr"] < high
    page = (tmp_path / "noisy" / "report.html").read_text()
    assert "Protocol" in page and "too few" in page and "Best, median and worst by" not in page
    assert not any("images are 64x64" in warning for warning in record["warnings"])
    assert "frechet" in capsys.readouterr().out
    far = _run(root, "other", tmp_path / "other", "--metrics=fid,kid,precision")
    assert far["model"]["frechet"] > 3 * record["model"]["frechet"] and far["num_samples"] == 9
    assert any("generated images are 48x48, the real ones 64x64" in warning for warning in far["warnings"])
    with pytest.raises(UserError, match=r"num_generated \(12 and 9\)"):
        main(["--compare", str(tmp_path / "noisy"), str(tmp_path / "other")])
    assert main(["--compare", str(tmp_path / "noisy"), str(tmp_path / "noisy" / "eval.json")]) == 0
    assert "may be equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--real and --fake and --output missing"),
        (["--real=x", "--fake=y", "--output=z", "--metrics=fud"], "unknown fud; there are fid, kid"),
        (["--real=x", "--fake=y", "--output=z", "--num=1"], "--num=1 must be at least 2"),
        (["--real=nowhere", "--fake=y", "--output=z"], "nowhere is no folder"),
        (["--reel=x"], "unknown argument --reel=x; did you mean --real?"),
    ],
)
def test_mistakes_get_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        main(flags)


def test_pairs_that_are_none(folders, tmp_path):
    root, _, _ = folders
    with pytest.raises(UserError, match="9 of 9 images .* have no partner of the same name .* x0.png"):
        _run(root, "other", tmp_path / "out", "--metrics=ssim")
    half = tmp_path / "half"
    half.mkdir()
    for name in ("00", "01"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(half / f"{name}.png")
    with pytest.raises(UserError, match="00.png is 64x64, its partner .* 32x32: .*--resolution=32"):
        main(
            [
                f"--real={root / 'real'}",
                f"--fake={half}",
                f"--output={tmp_path / 'o'}",
                "--preprocess=none",
                "--metrics=ssim",
            ]
        )


def test_what_cannot_be_computed_is_said(folders, tmp_path):
    root, _, _ = folders
    with pytest.raises(UserError, match="--metrics=ms_ssim cannot be computed for 12 images of 64 px"):
        _run(root, "noisy", tmp_path / "a", "--metrics=ms_ssim")
    record = _run(root, "noisy", tmp_path / "b", "--metrics=ms_ssim,ssim")
    assert "ms_ssim cannot be computed for these images and is left out" in record["warnings"]
    same = _run(root, "real", tmp_path / "c", "--metrics=psnr")
    assert "psnr: 12 of 12 images have no finite value and are left out" in same["warnings"]
    one = tmp_path / "one"
    one.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(one / "00.png")
    with pytest.raises(UserError, match="have 1 and 12 images; a comparison of sets needs at least 2"):
        _run(root, one, tmp_path / "d")


def test_pairs_of_several_sizes(tmp_path):
    rng = np.random.default_rng(1)
    for number, shape in enumerate([(64, 64), (64, 64), (48, 80), (32, 32)]):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    flags = [f"--real={tmp_path / 'a'}", f"--fake={tmp_path / 'b'}", f"--output={tmp_path / 'out'}"]
    assert main([*flags, "--preprocess=none", "--metrics=psnr,fid", "--features=pixels"]) == 0
    record = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert len(record["per_image"]["psnr"]) == 4 and "ranked.png" in record["pictures"]
    assert "mean" not in record["baselines"]  # of several sizes there is none


def test_other_partners_are_another_protocol(folders, tmp_path):
    root, _, noisy = folders
    results = []
    for name, numbers in (("first", range(6)), ("second", range(6, 12))):
        (tmp_path / name).mkdir()
        for number in numbers:
            Image.fromarray(noisy[number]).save(tmp_path / name / f"{number:02d}.png")
        output = tmp_path / f"{name}-out"
        flags = [f"--real={root / 'real'}", f"--fake={tmp_path / name}", f"--output={output}"]
        assert main([*flags, "--preprocess=none", "--metrics=psnr"]) == 0
        results.append(str(output))
    with pytest.raises(UserError, match="they differ in pairs"):
        main(["--compare", *results])


def test_fid_without_its_network_says_how_to_get_it(folders, tmp_path, monkeypatch):
    root, _, _ = folders
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, "")  # main sets it: put back afterwards
    flags = [f"--real={root / 'real'}", f"--fake={root / 'noisy'}", f"--output={tmp_path / 'o'}"]
    with pytest.raises(UserError, match="weights fetch inception"):
        main([*flags, "--preprocess=none", f"--weights_dir={tmp_path}"])
    assert not (tmp_path / "o").exists()


def test_a_result_is_not_overwritten_without_a_word(folders, tmp_path):
    root, _, _ = folders
    first = _run(root, "noisy", tmp_path / "out", "--metrics=psnr", "--photographs")
    page = tmp_path / "out" / "report.html"
    assert "Best, median and worst by" in page.read_text()
    with pytest.raises(UserError, match="holds a result .* --overwrite"):
        _run(root, "real", tmp_path / "out", "--metrics=ssim")
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == first
    assert "ssim" in _run(root, "real", tmp_path / "out", "--metrics=ssim", "--overwrite")["model"]
    assert "Best, median and worst by" not in page.read_text()


def test_missing_weights_are_complained_of_before_an_image_is_read(folders, tmp_path, monkeypatch):
    root, _, _ = folders
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    flags = [f"--real={broken}", f"--fake={root / 'noisy'}", f"--output={tmp_path / 'deep' / 'o'}"]
    with pytest.raises(UserError, match="weights fetch"):
        main([*flags, "--metrics=lpips"])
    with pytest.raises(UserError, match="a.png"):
        main([*flags, "--metrics=psnr", "--preprocess=none"])
    assert not (tmp_path / "deep").exists()


def _drawn(folder, count=12, suffix="png", same=False):
    """Eyes on a black frame."""
    folder.mkdir(parents=True)
    for number in range(count):
        layouts.photograph(1 if same else number).save(folder / f"{number}.{suffix}")
    return folder


def _score(real, fake, output, *more):
    flags = [f"--real={real}", f"--fake={fake}", f"--output={output}", "--features=pixels", *more]
    assert main(flags) == 0
    return json.loads((output / "eval.json").read_text())


def test_a_folder_against_itself_scores_nothing_and_own_products_are_not_scored(tmp_path):
    real = _drawn(tmp_path / "real")
    assert abs(_score(real, real, tmp_path / "o", "--resolution=64")["model"]["frechet"]) < 1e-3
    fake = _drawn(tmp_path / "fake", suffix="ppm")
    for _ in range(2):
        record = _score(real, fake, fake / "score", "--resolution=64", "--overwrite")
        assert record["num_samples"] == 12 and abs(record["model"]["frechet"]) < 1e-3


def test_images_that_are_all_the_same_have_figures(tmp_path):
    real, fake = _drawn(tmp_path / "real", same=True), _drawn(tmp_path / "fake", same=True)
    record = _score(real, fake, tmp_path / "o", "--preprocess=none")
    assert "frechet" in record["model"] and not record.get("pictures")
    assert any("the map of features cannot be drawn" in warning for warning in record["warnings"])


def test_float_images_are_scaled_by_one_rule_and_nan_is_named(tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (6, 64, 64)).astype(np.float32)
    for name in ("real", "fake", "nan"):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images):
            changed = image.copy()
            changed[0, 0] = {"real": 0.5, "fake": 1.0004, "nan": np.nan}[name] if number == 3 else 0.5
            Image.fromarray(changed).save(tmp_path / name / f"{number}.tif")
    record = _score(
        tmp_path / "real", tmp_path / "fake", tmp_path / "o", "--preprocess=none", "--metrics=ssim"
    )
    assert record["model"]["ssim"] > 0.99
    with pytest.raises(UserError, match="nan/3.tif: 1 of 4096 pixels are not finite"):
        _score(tmp_path / "real", tmp_path / "nan", tmp_path / "p", "--preprocess=none", "--metrics=ssim")
