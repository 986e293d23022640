import pytest
import torch

from pos_hf.balancing import Gramian, gramian
from pos_hf.balancing.gramian import PACK, ROW


def layers(count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Gradients whose scales spread over four decades between layers, as in a real network."""
    scales = 10 ** (-6 + 4 * torch.rand(count, generator=generator))
    return [torch.randn(1_000_000, generator=generator) * scale for scale in scales]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inner_products_of_25_million_elements_are_accurate_to_1e_6(dtype):
    generator = torch.Generator().manual_seed(0)
    supervised = [layer.to(dtype) for layer in layers(25, generator)]
    unsupervised = [layer.to(dtype) for layer in layers(25, generator)]
    found = gramian(supervised, unsupervised)
    a = sum((s.double() ** 2).sum() for s in supervised)
    c = sum((u.double() ** 2).sum() for u in unsupervised)
    b = sum((s.double() * u.double()).sum() for s, u in zip(supervised, unsupervised, strict=True))
    assert abs(found.supervised - a) <= 1e-6 * a
    assert abs(found.unsupervised - c) <= 1e-6 * c
    assert abs(found.cross - b) <= 1e-6 * (a * c).sqrt()


@pytest.mark.parametrize("size", [1, ROW, ROW + 1, PACK - 1, PACK, PACK + ROW - 1, 2 * PACK + 3])
def test_packing_and_cutting_lose_no_element(size):
    supervised = [torch.arange(size, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)]
    unsupervised = [torch.ones(size, dtype=torch.float64), torch.full((3, 2), -2.0, dtype=torch.float64)]
    found = gramian(supervised, unsupervised)
    assert found.cross.item() == size * (size - 1) / 2 - 12
    assert found.unsupervised.item() == size + 24


def test_the_order_in_memory_does_not_matter():
    s, u = torch.randn(2, 8, 64, 16, 16, dtype=torch.float64)
    for first, second in ((s, u.contiguous(memory_format=torch.channels_last)), (s.mT.contiguous().mT, u)):
        found = gramian([first], [second])
        torch.testing.assert_close(
            torch.stack(found), torch.stack([(s * s).sum(), (u * u).sum(), (s * u).sum()])
        )


def test_a_rank_without_elements_counts_as_zero():
    assert [number.item() for number in gramian([torch.zeros(0, 3)], [torch.zeros(0, 3)])] == [0, 0, 0]


def test_a_missing_gradient_counts_as_zero():
    one, two = torch.tensor([3.0]), torch.tensor([4.0])
    found = gramian([one, None, two, None], [None, two, one, None])
    assert [number.item() for number in found] == [25, 25, 12]
    assert [number.item() for number in gramian([None], [None])] == [0, 0, 0]
    assert [number.item() for number in gramian([one], [None])] == [9, 0, 0]


def test_norm_and_cosines_are_those_of_the_vectors():
    g_s, g_u = torch.randn(2, 7, dtype=torch.float64)
    numbers = Gramian(g_s @ g_s, g_u @ g_u, g_s @ g_u)
    w_s, w_u = torch.tensor([0.3, 1.7], dtype=torch.float64)
    update = w_s * g_s + w_u * g_u
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(numbers.norm(w_s, w_u), update.norm())
    torch.testing.assert_close(numbers.cosine, cosine(g_s, g_u, dim=0))
    expected = torch.minimum(cosine(update, g_s, dim=0), cosine(update, g_u, dim=0))
    torch.testing.assert_close(numbers.min_cosine(w_s, w_u), expected)


def test_a_cosine_stays_one_where_the_squares_underflow():
    vanished = Gramian(*torch.tensor([1.0, 1e-44, 3e-22], dtype=torch.float64))
    assert vanished.cosine == 1
    assert vanished.min_cosine(*torch.tensor([0.0, 1e21], dtype=torch.float64)) <= 1
