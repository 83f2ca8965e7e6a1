"""TaskRes and CLIP-Adapter start at CLIP or near it, and learn only what is theirs."""

import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters.paper import IdentityAdapter
from eventclip.adapters.residual import CLIPAdapter, TaskResAdapter
from eventclip.errors import UserError
from eventclip.models.pooling import logits_loss, pool_logits


def test_taskres_starts_at_zero_shot_and_adds_to_unit_text(golden_batch):
    features, valid, _, text = golden_batch
    adapter = TaskResAdapter(3 * text, 100.0, alpha=0.25)
    torch.testing.assert_close(adapter(features, valid), IdentityAdapter(text, 100.0)(features, valid))
    with torch.no_grad():
        adapter.residual.copy_(torch.randn(text.shape, generator=torch.Generator().manual_seed(0)))
    changed = F.normalize(text, dim=-1) + 0.25 * adapter.residual
    torch.testing.assert_close(adapter(features, valid), IdentityAdapter(changed, 100.0)(features, valid))


def test_clip_adapter_blends_as_its_formula_says(golden_batch):
    features, valid, _, text = golden_batch
    adapter = CLIPAdapter(text, 100.0, reduction=2, residual=0.6)
    assert adapter.down.weight.shape == (text.shape[1] // 2, text.shape[1])
    changed = F.relu(F.relu(features @ adapter.down.weight.T) @ adapter.up.weight.T)
    expected = IdentityAdapter(text, 100.0)(0.4 * changed + 0.6 * features, valid)
    torch.testing.assert_close(adapter(features, valid), expected, rtol=1e-4, atol=1e-4)
    frozen = CLIPAdapter(text, 100.0, residual=1.0)
    torch.testing.assert_close(frozen(features, valid), IdentityAdapter(text, 100.0)(features, valid))


@pytest.mark.parametrize("kind", [TaskResAdapter, CLIPAdapter])
class TestBoth:
    def test_padding_changes_neither_logits_nor_gradients(self, golden_batch, kind):
        features, valid, labels, text = golden_batch
        torch.manual_seed(0)
        adapter, results = kind(text, 100.0), []
        for filler in (0.0, float("nan")):
            adapter.zero_grad()
            logits = adapter(torch.where(valid.unsqueeze(-1), features, torch.tensor(filler)), valid)
            logits_loss(pool_logits(logits, valid, "mean"), labels).backward()
            results.append([logits, *(parameter.grad.clone() for parameter in adapter.parameters())])
        for clean, poisoned in zip(*results, strict=True):
            assert torch.equal(clean, poisoned)

    @pytest.mark.long
    def test_all_that_is_stored_learns_and_comes_back(self, golden_batch, kind):
        features, valid, labels, text = golden_batch
        adapter = kind(text, 100.0)
        before = {name: value.clone() for name, value in adapter.state_dict().items()}
        assert set(before) == {name for name, _ in adapter.named_parameters()}
        optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
        losses = []
        for _ in range(20):
            losses.append(logits_loss(pool_logits(adapter(features, valid), valid, "mean"), labels))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < losses[0]
        assert all(not torch.equal(value, before[name]) for name, value in adapter.state_dict().items())
        fresh = kind(text, 100.0)
        fresh.load_state_dict(adapter.state_dict())
        assert torch.equal(fresh(features, valid), adapter(features, valid))


@pytest.mark.parametrize(
    ("kind", "options"),
    [(TaskResAdapter, {"alpha": 0.0}), (CLIPAdapter, {"reduction": 0}), (CLIPAdapter, {"residual": 1.1})],
)
def test_impossible_options_are_refused(golden_batch, kind, options):
    with pytest.raises(UserError, match=rf"adapter\.{next(iter(options))} must"):
        kind(golden_batch[3], 100.0, **options)
