"""What a bundle says in words that no run works out.

For another bundle, or another version of one, change it here and nowhere else: the name, the
version, whom it is for, where its data come from, and the README. Numbers are filled in by
`bundle_text`.
"""

from __future__ import annotations

from collections.abc import Mapping

NAME, VERSION = "tfkt-v2-lite", "0.5.0"

SUMMARY = (
    "Scores CT slices 0 to 4 for noise, streaks and over-smoothing. Trained on simulated dose; "
    "never compared with readers of clinical series."
)

SCOPE = {
    "modality": "CT",
    "population": "adults; no child was among the patients, child-size bodies were made of adults",
    "regions": ["chest", "abdomen", "pelvis"],
    "kernels": "soft to medium sources, noise of soft to unapodised kernels; lung and bone kernels "
    "are scored with low confidence",
    "not_for": "heads, phantoms, reformats; iterative or learnt reconstruction was not tried",
}

SOURCES = {
    "source": "ct-clean: TCIA collections TCGA-LUAD, TCGA-LUSC, COVID-19-NY-SBU, LIDC-IDRI, "
    "ACRIN-FLT-Breast, RIDER Pilot, StageII-Colorectal-CT, and a test case of dcmqi",
    "terms": "CC BY 3.0 or 4.0 as far as known; MIDRC-RICORD-1A (CC BY-NC 4.0) was left out",
}

NATURAL = {
    "imagenet": "ImageNet weights of the features; no opinion scores were used",
    "opinion": "ImageNet weights, then opinion scores of srij, sr4k and live with simulated noise, "
    "blur and JPEG; srij and sr4k state no licence: research use only until their authors agree",
}

READERS: Mapping[str, tuple[str, str]] = {
    "readers": (
        "none: labels are computed; two constants of the label rest on six images of LDCTIQAC 2023 "
        "that readers scored",
        "{images} images of LDCTIQAC 2023, whose label is their readers' mean score; all other "
        "labels are computed, and two constants of these rest on six images of the same challenge",
    ),
    "learnt": (
        "The network learnt a computed label, not readers.",
        "The network learnt a computed label, and of {images} images of LDCTIQAC 2023 what their "
        "readers said.",
    ),
    "readers_data": (
        "",
        "Beside them stand {images} images of LDCTIQAC 2023 with their readers' mean scores; "
        "sources disagree about their terms (CC BY 4.0 or CC BY-NC-SA 4.0). ",
    ),
    "readers_figures": (
        "",
        'The network was fitted to the images of "LDCTIQAC readers": these figures are in sample. ',
    ),
}
"""What is said without, and with, slices that readers scored (`ldctiqac`); "readers" is a line of
the card, the others stand in the README."""

INPUTS = {
    "wide": "looks at a slice through one wide window and gives\nmaps at strides 4, 8 and 16",
    "windows": "looks at a slice through three windows (wide, soft tissue, high-pass) and gives\n"
    "maps at strides 4, 8 and 16",
    "bands": "looks at a slice through three windows (wide, soft tissue, high-pass) and gives\n"
    "maps at strides 4, 8 and 16; beside them stand plain measures of noise by size",
}


README = """# {name} {version}

**{summary}**

It helps to find CT series that should be looked at again. It is no medical device.

## What it is

EfficientNet-Lite0 {inputs}. Beside each map stands its spread, ln of its SD over the slice. A
{bridge} bridge makes 16 x 16 tokens of these, a small Swin V2 with {feed_forward} feed-forward and
a linear head give one number u on an open scale. {seeds} of these, fitted from different seeds,
share the features; their mean is u, which `iqa.uncertainty` bends into the score 0 to 4. The
features are frozen: {natural}.

## What the score means

{learnt}

The label u falls by about one point with each halving of the dose (0.8 to 1.2 from full to half, by
the kernel: noise that is added counts by its grain, the slice's own does not); 4 is a noise of
{sigma:g} HU as of a standard kernel; streaks count as noise of {streaks:.1f} times their strength;
places count by their quality, so that a bad corner does not decide a slice. A smoothed slice gets
the u of its noisy source less up to {loss:g} points for the detail that the filter took: what is
gone, no window brings back. What lies around the body, and which way it lies, counts for nothing.

Two constants ({sigma:g} HU, {streaks:.1f}) were set on six images that radiologists scored in the
challenge LDCTIQAC 2023. Six are few, and the weight of streaks rests on one of them. One more
constant brings u to these readers' scale: {shift:+g} points, set on the same six images and kept in
`card.toml` apart from the weights; with it a score of 4 stands for {shifted:.1f} HU. Errors on the
six are no evidence; what is left when each is left out in turn stands below.

The label is not that of 0.1.0: coarse bands count less and places by their quality (a little metal
took all points of a slice), and what a filter takes costs up to 1.5 points instead of 1. This was
decided on rows of example slices, between first trial fits. Since 0.2.0 it has not changed. What it
is learnt from has. In 0.3.0: more smoothed versions of a slice, every other one blended with its
source as scanners offer it, and two draws of each artefact. In 0.4.0: every version also turned or
mirrored, and with one value beyond a circle, instead of air, or instead of air and table: to 0.3.0
a table that was cut away, or a patient who lay prone, was worth up to a point. In 0.5.0 nothing of
this changed; {seeds} networks say together what one said before.

## Data

{slices} slices of {patients} adults, at most {each} of each, in {versions} versions: lower dose,
fewer views in parallel and fan geometry, both, {filters} families of filters on the same noise (one
of them for testing alone), motion, metal, starved rays, and bodies shrunk to a child's size.
{readers_data}`card.toml` names the patients and counts the kinds. **Check the terms before
publishing.** No child, no head, no iterative or learnt reconstruction is in the data. Children are
adults shrunk before projection; that is not a child's anatomy.

## Figures on patients that the network did not see

{folds} folds by patient; in each, {seeds} networks from {seeds} seeds say together what they make
of patients that none of them saw. Those that ship were then fitted to all patients. Printed by

    {train}

"SROCC over X" is the gain over a rival on the same versions, with its 95 % bootstrap by patient.
Rivals: the noise formula 4 - 2 log2(noise / {sigma:g} HU), a ridge on five numbers of noise, and a
ridge on these numbers with pooled ImageNet features of the wide window and of the three windows.

{against_rivals}

| figure | value |
| --- | --- |
{cross_validated}

The interval of a slice is the score -{below} +{above} ({coverage} %, cross-conformal by patient).
It covers the computed label, moved to the readers' scale with the score, not readers. For a series
it is the score -{series_below} +{series_above}: the mean error of a patient's versions that one
scan could be (alike in dose, views, filter) stands in, since no whole series was simulated.

## Figures of the shipped files on real images and unseen series

No weight was fitted to anchors, pairs or series. {readers_figures}Three constants were set on the
six anchors ({sigma:g} HU, {streaks:.1f} and the shift), so that errors on them are in sample. With
the shift "set on the other five" the other two stay. Printed by

    {evaluate}

| figure | value |
| --- | --- |
{real}

## Opinion scores of natural images

Phase 1 trains the features on opinion scores before they see CT, and is not used here: on natural
images of the test split it ranks worse than 66 hand-made features with support vector regression.
SROCC, printed by

    tfkt-node train --phase-one --recipe RECIPE --data DATA --work WORK

| images | phase 1 | hand-made |
| --- | --- | --- |
| live | 0.530 | 0.522 |
| sr4k | 0.833 | 0.897 |
| srij | 0.696 | 0.827 |
| all | 0.752 | 0.822 |

## Not tried, not known

- Readers' scores of clinical series, of chest, of children; heads; lung and bone kernels.
- Iterative and learnt reconstruction: only filters after the fact were simulated.
- **Over-smoothing is not solved.** A slice softened by a Gaussian looks as if a softer kernel had
  made it, and a median filter was never fitted to: both still raise scores (figures above, filter
  by filter). Where the measured noise contradicts a score, the node says so beside it.
- **Places are told apart less than a picture of them suggests.** Each place sees the spreads of the
  whole slice as well, so that a clean half beside a noisy one is shown little better than that one.
- No pre-training at all, other backbones, fine-tuning of the features on CT.
"""
