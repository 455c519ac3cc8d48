"""AIM's mask and loss against a plain reference, patch by patch; and that a trained tower sees both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModel

from mm1.encoder.autoregressive import AutoregressiveEncoder, patch_targets, prefix_mask
from mm1.encoder.pictures import PatchCollate, PictureSample

SIDE, PATCH = 12, 4
PATCHES = (SIDE // PATCH) ** 2


def encoder(attention: str = "sdpa") -> AutoregressiveEncoder:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        image_size=SIDE,
        patch_size=PATCH,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="gelu",
        initializer_factor=3.0,
    )
    tower = CLIPVisionModel(config)
    tower.set_attn_implementation(attention)
    return AutoregressiveEncoder(tower, 1).double()


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def reference_targets(picture: np.ndarray) -> np.ndarray:
    """The patches row by row, each of mean 0 and (unbiased) variance 1."""
    patches = []
    for top in range(0, SIDE, PATCH):
        for left in range(0, SIDE, PATCH):
            pixels = picture[:, top : top + PATCH, left : left + PATCH].reshape(-1)
            patches.append((pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6))
    return np.stack(patches)


@given(prefix=st.integers(1, 8))
def test_the_mask_is_prefix_causal(prefix: int) -> None:
    mask = prefix_mask(torch.tensor([prefix]), PATCHES)[0, 0]
    assert mask.shape == (PATCHES + 1, PATCHES + 1)
    for i in range(PATCHES + 1):  # 0 is CLS, patches are 1 to K
        for j in range(PATCHES + 1):
            seen = j <= prefix or j <= i
            if i <= prefix:
                seen = j <= prefix
            assert (mask[i, j] == 0) == seen
            assert mask[i, j] in (0, float("-inf"))


def test_targets_are_normalised_patches_row_by_row() -> None:
    values = pictures(2)
    targets = patch_targets(values, PATCH).numpy()
    for picture, ours in zip(values.float().numpy(), targets, strict=True):
        assert ours == pytest.approx(reference_targets(picture), abs=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_is_that_of_one_patch_at_a_time(attention: str) -> None:
    """Each patch behind the prefix is predicted by running the tower on nothing but what comes before it."""
    model, values, terms = encoder(attention), pictures(), torch.tensor([1, 4, PATCHES - 1])
    losses = model(values, terms)
    for picture, target, loss in zip(values, terms.tolist(), losses.tolist(), strict=True):
        targets = reference_targets(picture.numpy())
        prefix, total = PATCHES - target, 0.0
        for k in range(prefix, PATCHES):  # counted from 0
            hidden = embedded(model.tower, picture, k)
            seen = torch.full((k + 1, k + 1), float("-inf"), dtype=torch.float64).triu(1)
            seen[: prefix + 1, : prefix + 1] = 0
            features = model.tower.encoder(inputs_embeds=hidden, attention_mask=seen[None, None]).last_hidden_state
            predicted = model.head(model.tower.post_layernorm(features[:, -1]))[0]
            total += float(np.square(predicted.detach().numpy() - targets[k]).mean())
        assert loss == pytest.approx(total, rel=1e-4)


def embedded(tower: CLIPVisionModel, picture: torch.Tensor, patches: int) -> torch.Tensor:
    """CLS and a picture's first patches, ready for the layers."""
    return tower.pre_layrnorm(tower.embeddings(picture[None]))[:, : patches + 1]


def test_what_comes_later_has_no_influence_and_no_gradient() -> None:
    model, values = encoder(), pictures(1).requires_grad_()
    terms = torch.tensor([4])
    whole = model(values, terms)
    changed = values.detach().clone()
    changed[:, :, -PATCH:, -PATCH:] += 1  # the last patch: an offset is taken out of its target
    assert model(changed, terms).item() == pytest.approx(whole.item(), rel=1e-4)
    changed[:, :, :PATCH, :PATCH] = torch.randn(1, 3, PATCH, PATCH, dtype=torch.float64)  # one of the prefix
    assert model(changed, terms).item() != pytest.approx(whole.item(), rel=1e-4)


def test_at_use_all_patches_see_each_other() -> None:
    tower, values = encoder().tower, pictures(1)
    changed = values.clone()
    changed[:, :, -PATCH:, -PATCH:] += torch.randn(1, 3, PATCH, PATCH, dtype=torch.float64)
    before, after = tower(values).last_hidden_state, tower(changed).last_hidden_state
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_every_prefix_is_drawn_equally_often() -> None:
    draws = (np.arange(8000) + 0.5) / 8000
    blank = np.zeros((3, 1, 1), dtype=np.uint8)
    batch = PatchCollate(PATCHES)([PictureSample(blank, "", 0, float(draw), []) for draw in draws])
    lengths, counts = torch.unique(PATCHES - batch["terms"], return_counts=True)
    assert lengths.tolist() == list(range(1, PATCHES))
    assert counts.tolist() == [1000] * 8
    assert batch["count"] == int(batch["terms"].sum())
