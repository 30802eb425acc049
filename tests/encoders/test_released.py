"""State dicts in the released code's names."""

import encoder_checks
import pytest
import torch

from matpac.encoders.released import load_released


def test_every_problem_is_listed_and_nothing_is_loaded() -> None:
    net = encoder_checks.tiny_net()
    state = encoder_checks.released(net)
    del state["cls_token"], state["student_encoder.norm.bias"]
    state["surplus"] = torch.zeros(1)
    state["pos_embed"] = torch.zeros(1, 4, 16)
    state["patch_embed.proj.bias"] = torch.ones(16)
    state["log_mel.MelSpectrogram.spectrogram.window"] = torch.ones(400)  # not looked at
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match="state dict: does not fit") as error:
        load_released(net, state)
    assert str(error.value).splitlines()[1:] == [
        "  missing: patches.cls_token",
        "  missing: encoder.norm.bias",
        "  unexpected: surplus",
        "  shape of pos_embed: got (4, 16), allowed: (9, 16)",
    ]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
