"""The same training step as one would write it without this library, for comparison.

Plain ``torch.nn`` modules in autocast, an EMA tensor by tensor, fused AdamW, the whole batch at
once. The sizes are those of a run of ``params.paper.yaml``; the mathematics is that of
`matpac.pretraining.trainer`, with the teacher's update before the optimiser's, as in the released
code.

Shapes: B clips, F mel bins, T frames, N patches = V visible + M masked, D width, K prototypes.
"""

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm transformer block; ``fused``: attention by torch's function, or written out."""

    def __init__(self, width: int, num_heads: int, *, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, length, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D/heads)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
            mixed = weights.softmax(dim=-1) @ value
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.mlp(self.norm2(tokens))


class Head(nn.Module):
    """Three layers, L2 norm, prototypes."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        sizes = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.mlp = nn.Sequential(*sizes, nn.Linear(hidden, bottleneck))
        last = nn.Linear(bottleneck, prototypes, bias=False)
        self.last = nn.utils.parametrizations.weight_norm(last)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, K)."""
        return self.last(F.normalize(self.mlp(latents), dim=-1))


class Plain(nn.Module):
    """Student, teacher, centre and optimiser; `step` is one update.

    Args:
        sizes: the section ``model`` of a run; num_mels: F.
        precision: of the autocast; fused: attention by torch's fused function.
    """

    def __init__(self, sizes: dict, num_mels: int, *, precision: torch.dtype, fused: bool) -> None:
        super().__init__()
        self.precision, patch = precision, sizes["patch_size"]
        self.num_patches = num_mels // patch * (sizes["crop_frames"] // patch)
        self.visible = int(self.num_patches * (1 - sizes["mask_ratio"]))
        width, narrow = sizes["encoder_width"], sizes["predictor_width"]
        stack = partial(Block, fused=fused)
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", torch.randn(1, self.num_patches, width))
        heads = sizes["encoder_heads"]
        blocks = [stack(width, heads) for _ in range(sizes["encoder_depth"])]
        self.encoder = nn.Sequential(*blocks, nn.LayerNorm(width, eps=1e-6))
        self.embed, self.project = nn.Linear(width, narrow), nn.Linear(narrow, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.register_buffer("predictor_positions", torch.randn(1, 1 + self.num_patches, narrow))
        heads = sizes["predictor_heads"]
        blocks = [stack(narrow, heads) for _ in range(sizes["predictor_depth"])]
        self.predictor = nn.Sequential(*blocks, nn.LayerNorm(narrow, eps=1e-6))
        self.head = Head(
            width, sizes["head_hidden"], sizes["head_bottleneck"], sizes["num_prototypes"]
        )
        self.teacher_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.teacher_head = deepcopy(self.head).requires_grad_(False)
        self.register_buffer("center", torch.zeros(1, 1, sizes["num_prototypes"]))

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW on what is trained, once the networks are where they stay."""
        trained = [each for each in self.parameters() if each.requires_grad]
        return torch.optim.AdamW(trained, 3e-4, (0.9, 0.95), weight_decay=0.05, fused=True)

    def step(self, optimizer: torch.optim.Optimizer, logmel: Tensor) -> Tensor:
        """One update on log-mels (B, F, T). Returns: the loss, on the device."""
        logmel = (logmel.float() + 7.056) / 4.193
        with torch.autocast(logmel.device.type, self.precision):
            noise = torch.rand(len(logmel), self.num_patches, device=logmel.device)
            shuffle = noise.argsort(dim=1)
            tokens = self.patches(logmel[:, None]).flatten(2).transpose(1, 2) + self.positions
            shuffled = tokens.gather(1, shuffle[..., None].expand_as(tokens))
            classes = self.cls_token.expand(len(logmel), -1, -1)
            with torch.no_grad():
                masked = torch.cat([classes, shuffled[:, self.visible :]], dim=1)
                target = self.teacher_encoder(masked)[:, 1:]
                target_logits = self.teacher_head(target)
            latents = self.encoder(torch.cat([classes, shuffled[:, : self.visible]], dim=1))
            predicted = self._predict(latents, shuffle)
            logits = self.head(predicted)
        target_logits = (target_logits.float() - self.center) / 0.05
        probabilities = target_logits.softmax(dim=-1)
        classification = -(probabilities * (logits.float() / 0.1).log_softmax(dim=-1)).sum(dim=-1)
        cosine = F.cosine_similarity(predicted.float(), target.float(), dim=-1)
        loss = 0.5 * (2 - 2 * cosine).mean() + 0.5 * classification.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 3.0)
        with torch.no_grad():
            for own, other, decay in (
                (self.teacher_encoder, self.encoder, 0.99995),
                (self.teacher_head, self.head, 0.998),
            ):
                for old, new in zip(own.parameters(), other.parameters(), strict=True):
                    old.mul_(decay).add_(new, alpha=1 - decay)
            self.center.mul_(0.9).add_(probabilities.mean(dim=(0, 1)), alpha=0.1)
        optimizer.step()
        return loss.detach()

    def _predict(self, latents: Tensor, shuffle: Tensor) -> Tensor:
        """Latents (B, 1 + V, D) -> predictions (B, M, D): shuffled back, predicted, shuffled."""
        known = self.embed(latents)
        masks = self.mask_token.expand(len(known), self.num_patches - self.visible, -1)
        together = torch.cat([known[:, 1:], masks.to(known.dtype)], dim=1)
        back = shuffle.argsort(dim=1)[..., None].expand_as(together)
        ordered = torch.cat([known[:, :1], together.gather(1, back)], dim=1)
        found = self.predictor(ordered + self.predictor_positions)[:, 1:]
        found = found.gather(1, shuffle[..., None].expand_as(found))
        return self.project(found[:, self.visible :])
