"""State dicts in the released code's names."""

import pytest
import tiny
import torch
from encoder_checks import released

from matpac.encoders.frozen import AudioEncoder, frozen
from matpac.encoders.released import convert, load_released, our_name
from matpac.method.student import Student


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("cls_token", "patches.cls_token"),
        ("pos_embed", "patches.positions"),
        ("patch_embed.proj.bias", "patches.proj.bias"),
        ("student_encoder.blocks.3.attn.qkv.weight", "encoder.blocks.3.attn.qkv.weight"),
        ("student_encoder.norm.bias", "encoder.norm.bias"),
        ("blocks.3.attn.qkv.weight", "encoder.blocks.3.attn.qkv.weight"),
        ("norm.bias", "encoder.norm.bias"),
        ("norm_stats", "norm_stats"),
        ("decoder.mask_token", "predictor.mask_token"),
        ("decoder.decoder_pos_embed", "predictor.positions"),
        ("decoder.decoder_embed.weight", "predictor.embed.weight"),
        ("decoder.decoder_blocks.0.mlp.fc1.bias", "predictor.encoder.blocks.0.mlp.fc1.bias"),
        ("decoder.decoder_norm.weight", "predictor.encoder.norm.weight"),
        ("decoder.decoder_pred.bias", "predictor.project.bias"),
        ("cls_student_head.mlp.2.weight", "head.mlp.2.weight"),
        ("cls_student_head.last_layer.weight_g", "head.weight_g"),
        ("something.else", "something.else"),
    ],
)
def test_names(theirs: str, ours: str) -> None:
    assert our_name(theirs) == ours


def released_state(student: Student) -> dict[str, torch.Tensor]:
    """With a buffer of the released front end."""
    net = frozen(student, tiny.FRONT_END, mean=0.0, std=1.0)
    return released(net) | {"log_mel.MelSpectrogram.spectrogram.window": torch.ones(400)}


@pytest.fixture
def student() -> Student:
    torch.manual_seed(1)
    return Student(tiny.run().model, 16)


@pytest.fixture
def empty() -> AudioEncoder:
    """An encoder with other weights."""
    torch.manual_seed(2)
    return AudioEncoder(tiny.run().model, tiny.FRONT_END, mean=0.0, std=1.0)


def test_shapes_are_ours_and_front_end_buffers_left_out(student: Student) -> None:
    converted = convert(released_state(student))
    assert converted["patches.positions"].shape == (9, 16)
    assert converted["patches.proj.weight"].shape == (16, 64)
    assert not any("log_mel" in name for name in converted)


def test_loading_gives_the_same_encoder(student: Student, empty: AudioEncoder) -> None:
    load_released(empty, released_state(student))
    expected = frozen(student, tiny.FRONT_END, mean=0.0, std=1.0)
    logmel = torch.randn(1, 16, 40)
    assert torch.equal(empty.embed(logmel), expected.embed(logmel))


def test_every_problem_is_listed_and_nothing_is_loaded(
    student: Student, empty: AudioEncoder
) -> None:
    state = released_state(student)
    del state["cls_token"], state["student_encoder.norm.bias"]
    state["surplus"] = torch.zeros(1)
    state["pos_embed"] = torch.zeros(1, 4, 16)
    before = {name: tensor.clone() for name, tensor in empty.state_dict().items()}
    with pytest.raises(ValueError, match="state dict: does not fit") as error:
        load_released(empty, state)
    assert str(error.value).splitlines()[1:] == [
        "  missing: patches.cls_token",
        "  missing: encoder.norm.bias",
        "  unexpected: surplus",
        "  shape of pos_embed: got (4, 16), allowed: (9, 16)",
    ]
    assert all(torch.equal(t, before[name]) for name, t in empty.state_dict().items())
