"""Natural images with opinions are read in three layouts, and defects are simulated on them."""

from __future__ import annotations

import csv

import imagecodecs
import numpy as np
import pytest

from tfkt_node.records import Misconfigured
from tfkt_node.training.images import natural
from tfkt_node.training.images import natural_distortions as distortions
from tfkt_node.training.images.natural import Split

COLUMNS = {
    "index.csv": ["file", "subset", "scene", "distortion", "mos01", "split"],
    "dmos.csv": ["dist_img", "ref_img", "dmos", "var"],
    "koniq10k_scores_and_distributions.csv": ["image_name", "c1", "MOS", "SD", "MOS_zscore"],
}


def write_scores(folder, name, rows):
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[name])
        writer.writerows(rows)


@pytest.fixture
def kadid(tmp_path):
    """Twenty references of KADID-10k with two distorted versions each."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(1, 21):
        (tmp_path / "images" / f"I{number:02}.png").touch()
        for level in (1, 5):
            name = f"I{number:02}_11_{level:02}.png"
            (tmp_path / "images" / name).touch()
            rows.append([name, f"I{number:02}.png", 4.5 if level == 1 else 1.5, 0.5])
    write_scores(tmp_path, "dmos.csv", rows)
    return tmp_path


@pytest.fixture
def koniq(tmp_path):
    """Twenty photographs of KonIQ-10k, one of them as bad as can be."""
    (tmp_path / "512x384").mkdir()
    names = [f"{number}.jpg" for number in range(20)]
    for name in names:
        (tmp_path / "512x384" / name).touch()
    rows = [[name, 0, 1 if name == "7.jpg" else 3.5, 0.5, 60] for name in names]
    write_scores(tmp_path, "koniq10k_scores_and_distributions.csv", rows)
    return tmp_path


def picture(side=96):
    """A smooth picture with an edge, luminance 0..255."""
    rows, columns = np.mgrid[:side, :side] / side
    return np.asarray(60 + 100 * (columns > 0.5) + 30 * np.sin(9 * rows), np.float32)


def test_kadid_is_split_by_reference_and_higher_is_better(kadid):
    """KADID-10k: 5 becomes 1, versions of a reference stay together, references can be used."""
    found = natural.read(kadid)

    assert {o.score for o in found.opinions} == {0.875, 0.125}
    assert {o.subset for o in found.opinions} == {"kadid10k"}
    split_of = {r.scene: r.split for r in found.references}
    assert len(split_of) == 20
    assert all(o.split is split_of[o.scene] for o in found.opinions)
    counts = {split: list(split_of.values()).count(split) for split in Split}
    assert counts == {Split.TRAIN: 16, Split.VAL: 2, Split.TEST: 2}
    assert [o.score for o in found.opinions if o.path.stem.endswith("_01")] == [0.875] * 20


def test_koniq_has_no_references(koniq):
    """KonIQ-10k: every photograph is a scene of its own, in whichever folder there is."""
    found = natural.read(koniq)
    again = natural.read((koniq / "512x384").rename(koniq / "1024x768").parent)

    assert found.references == []
    assert len({o.scene for o in found.opinions}) == 20
    assert {o.score for o in found.opinions if o.path.name == "7.jpg"} == {0.0}
    assert [o.split for o in again.opinions] == [o.split for o in found.opinions]
    assert {o.path.parent.name for o in again.opinions} == {"1024x768"}
    # Today as on any day, and in whatever order the file lists them.
    assert {o.path.name for o in found.opinions if o.split == "test"} == {"9.jpg", "12.jpg"}


def test_another_layout_is_told(tmp_path):
    """A folder with none of the three layouts is refused with the names that are looked for."""
    with pytest.raises(Misconfigured, match=r"index.csv, dmos.csv, koniq10k_scores.*give"):
        natural.read(tmp_path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["gone.jpg", "a", "a:1", "blur", "0.5", "train"], "1 of the 1 images"),
        (["there.jpg", "a", "a:1", "blur", "1.5", "train"], "outside their scale"),
        (["there.jpg", "a", "a:1", "blur", "nan", "train"], "outside their scale"),
        (["there.jpg", "a", "a:1", "blur", "good", "train"], "usable column.*good"),
        (["there.jpg", "a", "a:1", "blur", "0.5", "practice"], "usable column.*practice"),
    ],
)
def test_bad_row_is_told(tmp_path, row, told):
    """A missing image, a score off its scale and an unknown split are refused by name."""
    (tmp_path / "there.jpg").touch()
    write_scores(tmp_path, "index.csv", [row])

    with pytest.raises(Misconfigured, match=told):
        natural.read(tmp_path)


def test_missing_column_is_told(tmp_path):
    """A score file of another version is refused with the column that it lacks."""
    (tmp_path / "dmos.csv").write_text("image,score\na.png,3\n", encoding="utf-8")

    with pytest.raises(Misconfigured, match=r"dmos.csv: .*ref_img"):
        natural.read(tmp_path)


def test_colour_is_read_as_luminance_of_the_centre(tmp_path):
    """Images become the 288 x 288 pixels at their centre, grey by BT.601, never resized."""
    colour = np.zeros((384, 512, 3), np.uint8)
    colour[..., 1] = 200
    colour[48, 112] = 255  # the corner of the centre
    path = tmp_path / "colour.png"
    path.write_bytes(imagecodecs.png_encode(colour))

    grey = natural.read_grey(path)

    assert grey.shape == (288, 288)
    assert grey.dtype == np.float32
    assert np.isclose(grey[0, 0], 255)
    assert np.allclose(grey[1:, 1:], 0.587 * 200)


def test_images_that_cannot_serve_are_told(tmp_path):
    """A small image and a broken one are refused by name."""
    small, broken = tmp_path / "small.jpg", tmp_path / "broken.jpg"
    small.write_bytes(imagecodecs.jpeg8_encode(np.zeros((100, 400), np.uint8)))
    broken.write_bytes(b"no image")

    with pytest.raises(Misconfigured, match="400 x 100 pixels"):
        natural.read_grey(small)
    with pytest.raises(Misconfigured, match=r"broken\.jpg: not a JPEG or PNG"):
        natural.read_grey(broken)


def test_more_distortion_never_scores_higher():
    """Each row of distortions falls in score; the strongest noise ranks as bad as anything."""
    noise = [distortions.noise_score(sd) for sd in distortions.NOISE_SD]
    blur = [distortions.blur_score(sigma) for sigma in distortions.BLUR_PX]
    jpeg = [distortions.jpeg_score(rmse) for rmse in (1, 5, 10, 20, 40)]

    for row in (noise, blur, jpeg):
        assert row == sorted(row, reverse=True)
        assert 0 <= row[-1] < row[0] <= 1
    assert noise[-1] < blur[-1]


def test_scores_are_near_those_that_people_gave():
    """The lines pass LIVE's published scores of "lighthouse" and "monarch" within 0.07."""
    noise = {4.3: 0.797, 7.2: 0.643, 11.0: 0.519, 19.6: 0.486, 29.5: 0.348, 79.8: 0.056}
    blur = {0.9: 0.786, 1.7: 0.584, 2.8: 0.442, 7.9: 0.167}
    jpeg = {6.0: 0.870, 11.5: 0.618, 12.1: 0.574, 20.4: 0.102, 21.2: 0.096}

    for said, line in (
        (noise, distortions.noise_score),
        (blur, distortions.blur_score),
        (jpeg, distortions.jpeg_score),
    ):
        for strength, score in said.items():
            assert abs(line(strength) - score) < 0.07


def test_distorted_copies_are_pictures():
    """Twenty copies in 0..255, the same for the same seed; noise has the SD it is scored by."""
    copies = list(distortions.distorted(picture(), np.random.default_rng(3)))
    again = list(distortions.distorted(picture(), np.random.default_rng(3)))

    assert len(copies) == 20
    for (copy, score), (other, _) in zip(copies, again, strict=True):
        assert copy.dtype == np.float32
        assert copy.shape == (96, 96)
        assert copy.min() >= 0
        assert copy.max() <= 255
        assert 0 <= score <= 1
        assert np.array_equal(copy, other)
    for (copy, score), sd in zip(copies[:6:2], distortions.NOISE_SD, strict=False):
        assert score == distortions.noise_score(sd)
        assert np.isclose((copy - picture()).std(), sd, rtol=0.03)


@pytest.mark.parametrize("peak", distortions.NOISE_PEAKS_PER_PX)
def test_coloured_noise_peaks_where_it_says(peak):
    """The power spectrum of coloured noise is strongest at its peak, with SD 1."""
    white = np.random.default_rng(5).standard_normal((256, 256))
    grain = distortions.coloured(white, peak)
    power = np.abs(np.fft.fft2(grain)) ** 2
    rows, columns = np.meshgrid(*(np.fft.fftfreq(n) for n in grain.shape), indexing="ij")
    frequency = np.hypot(rows, columns)
    edges = np.arange(0.01, 0.5, 0.02)
    mean = [power[(frequency >= a) & (frequency < a + 0.02)].mean() for a in edges]

    assert np.isclose(grain.std(), 1)
    assert abs(edges[int(np.argmax(mean))] + 0.01 - peak) < 0.06


@pytest.mark.station
def test_shared_set_is_read_as_its_readme_says(shared_data):
    """The project's own set: counts per subset and split, 37 references, no scene in two splits."""
    found = natural.read(shared_data / "natural")

    counts = {
        subset: tuple(
            sum(o.subset == subset and o.split is split for o in found.opinions) for split in Split
        )
        for subset in ("srij", "sr4k", "live")
    }
    assert counts == {"srij": (440, 100, 100), "sr4k": (331, 56, 76), "live": (23, 6, 18)}
    assert len(found.references) == 37
    splits = {(o.scene, o.split) for o in found.opinions}
    assert len(splits) == len({scene for scene, _ in splits})
    for opinion in found.opinions[::50]:
        assert natural.read_grey(opinion.path).shape == (288, 288)
