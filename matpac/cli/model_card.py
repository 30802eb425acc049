"""The model card of an encoder of ours: what the Hugging Face Hub shows of it, as Markdown.

A card says what a user has to know before trusting the embeddings: data, front end, sizes,
training, whether it collapsed, what linear probes make of it, and what it cannot do. Every number
comes from `Facts`; what is not known is said to be missing.
"""

from dataclasses import dataclass, field
from math import log
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

PAPER = "https://arxiv.org/abs/2502.12031"
TAGS = ["audio", "feature-extraction", "self-supervised-learning", "matpac"]


@dataclass(frozen=True)
class Corpus:
    """A pretraining data set."""

    name: str
    source: str
    """What it is, in words."""
    licence: str
    num_clips: int
    hours: float
    weight: float
    """How often each of its clips was seen per epoch."""


@dataclass(frozen=True)
class ProbeScore:
    """Linear probing of one task, percent."""

    task: str
    source: str
    """The data set, in words."""
    metric: str
    mean: float
    ci95: float
    """Half width of the interval over ``repeats``; NaN for one."""
    repeats: int


@dataclass(frozen=True)
class Facts:
    """What a card is made of; see `matpac.cli.release` for where it comes from."""

    title: str
    profile: str
    run: str
    seed: int
    version: str
    width: int
    num_parameters: int
    column_ms: float
    """From one embedding in time to the next."""
    corpora: list[Corpus]
    front_end: dict[str, Any]
    mean: float
    std: float
    model: dict[str, Any]
    objective: dict[str, Any]
    pretrain: dict[str, Any]
    finals: dict[str, float]
    """The last update's measurements, as the metrics of the ``pretrain`` stage have them."""
    scores: list[ProbeScore] = field(default_factory=list)
    not_probed: list[str] = field(default_factory=list)
    """Tasks of the profile without scores."""
    licence: str = ""
    """Identifier of the weights' licence; "": not decided."""

    @property
    def hours(self) -> float:
        """Of all corpora."""
        return sum(corpus.hours for corpus in self.corpora)


LOSSES = {
    "prediction_loss": "prediction loss, Eq. (1), 0 to 4",
    "classification_loss": "classification loss, Eq. (4), nats",
    "total_loss": "total loss, Eq. (5)",
}
DIAGNOSTICS = {
    "teacher_entropy_of_mean": "entropy of the teacher's mean distribution, nats",
    "teacher_mean_entropy": "mean entropy of its single distributions, nats",
    "teacher_kl": "their difference, nats: 0 where the classification says nothing",
    "prototypes_in_use": "prototypes that are some patch's most likely",
    "target_std": "standard deviation of the teacher's latents",
    "target_effective_rank": "their effective rank",
    "agreement": "patches on whose prototype student and teacher agree",
}
TEMPLATE = """\
---
{{ card_data }}
---

# {{ facts.title }}

A frozen encoder of audio: waveforms in, an embedding of {{ facts.width }} numbers out, per clip or
per {{ "%g" | format(facts.column_ms) }} ms. Pretrained without labels by masked latent prediction
and classification (MATPAC, [the paper]({{ paper }})) on {{ "%.1f" | format(facts.hours) }} hours of
audio. {{ "{:,}".format(facts.num_parameters) }} parameters. Run `{{ facts.run }}`, seed
{{ facts.seed }}, of the profile `{{ facts.profile }}`; written by matpac {{ facts.version }}.

## Use

```python
import matpac
encoder = matpac.load("PATH OR NAME OF THIS MODEL")
embedding = encoder.embed("recording.wav")  # ({{ facts.width }},)
```

Any sample rate, number of channels and length; `frames=True` gives embeddings over time.

## Data

| corpus | what | clips | hours | seen per epoch | licence of the audio |
| --- | --- | ---: | ---: | ---: | --- |
{% for c in facts.corpora -%}
| {{ c.name }} | {{ c.source }} | {{ "{:,}".format(c.num_clips) }} \
| {{ "%.2f" | format(c.hours) }} | {{ "%g" | format(c.weight) }} | {{ c.licence }} |
{% endfor %}
## Front end

Log-mel spectrograms, part of the model:
{% for name, value in facts.front_end.items() %}{{ name }} {{ "%g" | format(value) }}, {% endfor -%}
normalised by mean {{ "%.4f" | format(facts.mean) }} and standard deviation
{{ "%.4f" | format(facts.std) }} of the corpora.

## Model and training

| | |
| --- | --- |
{% for section in (facts.model, facts.objective, facts.pretrain) -%}
{% for name, value in section.items() -%}
| {{ name }} | {{ value }} |
{% endfor -%}
{% endfor -%}
| updates | {{ "{:,}".format(facts.finals["steps"] | int) }} |
| clips used | {{ "{:,}".format(facts.finals["clips"] | int) }} |

## The last update

| | |
| --- | ---: |
{% for name, words in rows.items() if name in facts.finals -%}
| {{ words }} | {{ "%.4g" | format(facts.finals[name]) }} |
{% endfor -%}
| number of prototypes, and the logarithm, which bounds the entropies | {{ prototypes }} |

## Linear probes

{% if facts.scores -%}
| task | data | metric | score, % |
| --- | --- | --- | ---: |
{% for s in facts.scores -%}
| {{ s.task }} | {{ s.source }} | {{ s.metric }} | {{ "%.1f" | format(s.mean) }}\
{% if s.ci95 == s.ci95 %} ± {{ "%.1f" | format(s.ci95) }}{% endif %} |
{% endfor %}
± is half the 95 % interval over {{ facts.scores[0].repeats }} repeats of the probe; it does not
cover another pretraining.
{% endif -%}
{% if facts.not_probed %}
Not probed: {{ facts.not_probed | join(", ") }}. Scores are missing because the `probe` stage of
this run has not given them.
{% endif %}
## Limits

{% for limit in limits -%}
- {{ limit }}
{% endfor %}
## Licence

{% if facts.licence -%}
The weights: {{ facts.licence }}.
{%- else -%}
Nobody has chosen a licence for these weights yet; do so before you publish them
(`matpac release ... --licence IDENTIFIER`).
{%- endif %} The library is under the MIT licence. What the audio was licensed for stands under
Data.

## Reference

Quelennec, Chouteau, Peeters, Essid: Masked Latent Prediction and Classification for Self-Supervised
Audio Representation Learning. ICASSP 2025. {{ paper }}. This is not the authors' model.
"""


def model_card(facts: Facts) -> ModelCard:
    """The card, with the metadata that the Hub reads."""
    data = ModelCardData(
        library_name="matpac", tags=TAGS, pipeline_tag="feature-extraction", **_licence(facts)
    )
    prototypes = facts.model["num_prototypes"]
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        facts=facts,
        limits=limits(facts),
        paper=PAPER,
        rows=LOSSES | DIAGNOSTICS,
        prototypes=f"{prototypes}, {log(prototypes):.4g}",
    )


def _licence(facts: Facts) -> dict[str, str]:
    return {"license": facts.licence} if facts.licence else {}


def limits(facts: Facts) -> list[str]:
    """What the encoder is not good for, in sentences."""
    found = []
    if facts.profile != "paper":
        found.append(
            f"Profile {facts.profile}, not the paper's: other data, or another model. Its scores "
            "cannot be compared with the paper's."
        )
    if facts.hours < 100:
        found.append(
            f"{facts.hours:.1f} hours are a tiny corpus (the paper's has thousands): expect less "
            "than from an encoder trained on AudioSet."
        )
    if all(corpus.source.startswith("rendered") for corpus in facts.corpora):
        found.append("It has heard synthetic sounds only, no recording.")
    crop_s = facts.model["crop_frames"] * facts.front_end["hop_ms"] / 1000
    found.append(
        f"Longer clips are cut into pieces of {crop_s:g} s that do not see each other; nothing "
        f"above {facts.front_end['fmax_hz']:g} Hz is heard."
    )
    found.append("The audio's own biases (places, instruments, languages) were not examined.")
    return found
